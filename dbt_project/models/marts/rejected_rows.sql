{{ config(incremental_strategy='replace') }}

{% for table, model, id in [('alerts', 'stg_alerts', 'alert_id'), ('actions', 'stg_actions', 'action_id'),
                             ('rules', 'stg_rules', 'rule')] -%}
select
    '{{ table }}'::text as source,
    {{ id }} as row_id,
    reject_reason as reason,
    content,
    loaded_at
from {{ ref(model) }}
where placement = 'rejected'
{{ "union all" if not loop.last }}
{% endfor %}
