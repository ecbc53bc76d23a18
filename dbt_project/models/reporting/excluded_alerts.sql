select
    flagged.alert_id,
    flagged.raised_at,
    alerts.rule,
    alerts.entity,
    alerts.team,
    flagged.flood,
    flagged.visibility_only,
    case
        when flagged.flood and flagged.visibility_only then 'flood and visibility-only'
        when flagged.flood then 'flood'
        else 'visibility-only'
    end as excluded_as,
    flagged.reason,
    outcomes.outcome
from {{ source('quality', 'flagged_alerts') }} as flagged
inner join {{ ref('alerts') }} as alerts on alerts.alert_id = flagged.alert_id
left join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = flagged.alert_id
