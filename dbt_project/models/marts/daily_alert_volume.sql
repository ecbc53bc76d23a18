{{ config(incremental_strategy='replace', indexes=[{'columns': ['day']}]) }}

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
group by 1, 2, 3
