{{ config(materialized='view') }}

-- How many older or equal versions of each row there are beside the clean one.
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
