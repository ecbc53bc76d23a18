with thresholds as (
    select
        step,
        (step / 100.0)::double precision as threshold
    from generate_series(0, 100) as step
),

scored as (
    {{ first_scores() }}
),

-- Each alert falls behind the highest threshold that its probability reaches; width_bucket compares exactly.
counted as (
    select
        width_bucket(probability, (select array_agg(threshold order by threshold) from thresholds)) - 1 as step,
        count(*) as alerts,
        sum(acted) as acted
    from scored
    where acted is not null and not is_flagged
    group by 1
),

below as (
    select
        thresholds.threshold,
        coalesce(sum(counted.alerts) filter (where counted.step < thresholds.step), 0)::bigint as alerts_below,
        coalesce(sum(counted.acted) filter (where counted.step < thresholds.step), 0)::bigint as acted_below,
        coalesce(sum(counted.alerts), 0)::bigint as alerts,
        coalesce(sum(counted.acted), 0)::bigint as acted
    from thresholds
    left join counted on true
    group by thresholds.threshold
)

select
    threshold,
    alerts,
    acted,
    alerts_below,
    acted_below,
    case when alerts >= {{ minimum_known() }} then alerts_below::double precision / alerts end as share_saved,
    case when alerts >= {{ minimum_known() }} then acted_below::double precision / nullif(acted, 0) end as share_missed
from below
