{{ config(incremental_strategy='replace_days', indexes=[{'columns': ['day']}]) }}

select
    (alerts.raised_at at time zone 'UTC')::date as day,
    alerts.rule,
    alerts.team,
    count(*) as alerts,
    count(*) filter (where outcomes.outcome = 'acted') as acted,
    count(*) filter (where outcomes.outcome = 'not_acted') as not_acted,
    count(*) filter (where outcomes.outcome is null) as undecided
from {{ ref('alerts') }} as alerts
inner join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = alerts.alert_id
{% if only_new() -%}
where {{ in_touched_days('alerts.raised_at') }}
{%- endif %}
group by 1, 2, 3
