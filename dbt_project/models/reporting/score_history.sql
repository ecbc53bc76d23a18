select
    scores.alert_id,
    alerts.raised_at,
    alerts.rule,
    alerts.entity,
    alerts.team,
    row_number() over in_time as number,
    scores.as_of,
    lead(scores.as_of) over in_time as replaced_at,
    scores.scored_at,
    scores.model_version,
    case when not {{ is_hidden() }} then scores.probability end as probability,
    case when not {{ is_hidden() }} then scores.probability - lag(scores.probability) over in_time end as change,
    case when {{ is_hidden() }} then 'holdout' else scores.status end as status,
    case when {{ is_hidden() }} then {{ holdout_reason() }} else scores.reasons end as reasons,
    scores.flood,
    scores.visibility_only,
    holdout.arm,
    outcomes.outcome,
    outcomes.known_at
from {{ source('scoring', 'alert_scores') }} as scores
inner join {{ ref('alerts') }} as alerts on alerts.alert_id = scores.alert_id
inner join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = scores.alert_id
left join {{ source('scoring', 'holdout') }} as holdout on holdout.alert_id = scores.alert_id
window in_time as (partition by scores.alert_id order by scores.as_of, scores.scored_at)
