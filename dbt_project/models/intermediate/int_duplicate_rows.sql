{{ config(materialized='view', alias='duplicate_rows') }}

-- How many other versions and copies of each clean row there are.
{% for table, model, id in [('alerts', 'stg_alerts', 'alert_id'), ('actions', 'stg_actions', 'action_id'),
                             ('rules', 'stg_rules', 'rule_key')] -%}
select
    '{{ table }}' as source,
    {{ id }} as row_id,
    count(*) as duplicates,
    max(loaded_at) as last_loaded_at
from {{ ref(model) }}
where placement = 'duplicate'
group by {{ id }}
{{ "union all" if not loop.last }}
{% endfor %}
