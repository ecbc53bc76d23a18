with scored as (
    {{ first_scores() }}
),

weekly as (
    select
        date_trunc('week', raised_at at time zone 'UTC')::date as week,
        count(*) as alerts,
        count(*) filter (where is_flagged) as flagged,
        count(acted) as known_with_flagged,
        count(acted) filter (where not is_flagged) as known,
        count(*) filter (where acted = 1 and not is_flagged) as acted,
        avg(acted) as share_with_flagged,
        avg(acted) filter (where not is_flagged) as share,
        avg(probability) filter (where acted is not null and not is_flagged) as mean_probability,
        avg({{ log_loss('acted', 'probability') }}) filter (where acted is not null) as log_loss_with_flagged,
        avg({{ log_loss('acted', 'probability') }}) filter (where acted is not null and not is_flagged) as log_loss,
        avg((probability - acted) ^ 2) filter (where not is_flagged) as brier
    from scored
    group by 1
),

judged as (
    select
        *,
        known >= {{ minimum_known() }} as enough,
        known_with_flagged >= {{ minimum_known() }} as enough_with_flagged,
        {{ base_rate_log_loss('share') }} as base,
        {{ base_rate_log_loss('share_with_flagged') }} as base_with_flagged
    from weekly
)

select
    week,
    alerts,
    flagged,
    known,
    acted,
    case when enough then mean_probability end as mean_probability,
    case when enough then share end as acted_share,
    case when enough then log_loss end as log_loss,
    case when enough then brier end as brier,
    case when enough then base end as base_rate_log_loss,
    case when enough then 1 - log_loss / base end as log_loss_skill,
    case when enough_with_flagged then log_loss_with_flagged end as log_loss_with_flagged,
    case when enough_with_flagged then 1 - log_loss_with_flagged / base_with_flagged end as log_loss_skill_with_flagged
from judged
