with latest as (
    select distinct on (alert_id) *
    from {{ source('scoring', 'alert_scores') }}
    order by alert_id, as_of desc, scored_at desc
)

select
    latest.alert_id,
    alerts.raised_at,
    alerts.rule,
    alerts.entity,
    alerts.team,
    alerts.severity,
    alerts.value,
    alerts.threshold,
    alerts.title,
    alerts.attributes,
    case when not {{ is_hidden() }} then latest.probability end as probability,
    case when {{ is_hidden() }} then 'holdout' else latest.status end as status,
    case when {{ is_hidden() }} then {{ holdout_reason() }} else latest.reasons end as reasons,
    latest.flood,
    latest.visibility_only,
    latest.model_version,
    latest.as_of,
    latest.scored_at,
    outcomes.outcome,
    outcomes.known_at,
    outcomes.outcome is null as is_open
from latest
inner join {{ ref('alerts') }} as alerts on alerts.alert_id = latest.alert_id
inner join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = latest.alert_id
left join {{ source('scoring', 'holdout') }} as holdout on holdout.alert_id = latest.alert_id
