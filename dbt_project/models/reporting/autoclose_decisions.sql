-- What heed decided about closing, and what the other system may apply: `may_be_closed`. The human always wins: a
-- decision that somebody undid, or whose alert somebody acted on, does not stand.
with undone as (
    select
        decided.alert_id,
        min(events.as_of) as undone_at
    from {{ source('scoring', 'autoclose_decisions') }} as decided
    inner join {{ source('scoring', 'autoclose_events') }} as events
        on events.request_id = decided.request_id and events.event = 'undone'
    where
        decided.decision = 'close'
        and events.as_of >= decided.as_of
        and coalesce(events.alert_id, decided.alert_id) = decided.alert_id
    group by decided.alert_id
)

select
    decided.alert_id,
    alerts.raised_at,
    decided.rule,
    alerts.entity,
    alerts.team,
    decided.as_of,
    decided.decided_at,
    decided.request_id,
    decided.mode,
    decided.decision,
    -- Who knew which alerts are drawn could treat them otherwise than the rest: it shows once the outcome is known.
    case when not decided.drawn or outcomes.outcome is not null then decided.reason end as reason,
    case when not decided.drawn or outcomes.outcome is not null then decided.probability end as probability,
    decided.threshold,
    decided.miss_rate,
    decided.model_version,
    decided.evidence,
    undone.undone_at,
    outcomes.outcome,
    outcomes.known_at,
    decided.mode = 'on'
    and decided.decision = 'close'
    and undone.undone_at is null
    and outcomes.outcome is distinct from 'acted' as may_be_closed
from {{ source('scoring', 'autoclose_decisions') }} as decided
inner join {{ ref('alerts') }} as alerts on alerts.alert_id = decided.alert_id
inner join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = decided.alert_id
left join undone on undone.alert_id = decided.alert_id
