with scored as (
    {{ first_scores() }}
),

teams as (
    select
        team,
        count(*) as alerts,
        count(*) filter (where is_flagged) as flagged
    from scored
    group by team
),

ranked as (
    select
        team,
        probability,
        acted,
        -- The mean rank of equal probabilities.
        rank() over (partition by team order by probability)
        + (count(*) over (partition by team, probability) - 1) / 2.0 as position
    from scored
    where acted is not null and not is_flagged
),

measured as (
    select
        team,
        count(*) as known,
        count(*) filter (where acted = 1) as acted,
        avg(acted) as share,
        avg(probability) as mean_probability,
        avg({{ log_loss('acted', 'probability') }}) as log_loss,
        sum(position) filter (where acted = 1) as rank_sum
    from ranked
    group by team
),

judged as (
    select
        *,
        known >= {{ minimum_known() }} as enough,
        {{ base_rate_log_loss('share') }} as base
    from measured
)

select
    teams.team,
    teams.alerts,
    teams.flagged,
    coalesce(judged.known, 0) as known,
    coalesce(judged.acted, 0) as acted,
    case when judged.enough then judged.share end as acted_share,
    case when judged.enough then judged.mean_probability end as mean_probability,
    case when judged.enough then judged.log_loss end as log_loss,
    case when judged.enough then 1 - judged.log_loss / judged.base end as log_loss_skill,
    -- Mann and Whitney: the chance that an alert that was acted on has the higher probability of the two.
    case when judged.enough then
        (judged.rank_sum - judged.acted * (judged.acted + 1) / 2.0)::double precision
        / nullif(judged.acted * (judged.known - judged.acted), 0)
    end as auc,
    case when judged.enough then 'enough' else 'too few' end as status
from teams
left join judged on judged.team is not distinct from teams.team
