-- What showing a score does: alerts with a shown score against those that were held out at random. The draw is made alert
-- by alert, so that alerts of one rule and day need no special care: each of them may be in either arm.
with cut as (
    select
        max(as_of) as as_of,
        (select min(assigned_at) from {{ source('scoring', 'holdout') }}) as first_draw
    from {{ source('scoring', 'publications') }}
),

scored as (
    {{ first_scores() }}
),

-- Whole horizons only: alerts that were decided early are no fair sample. Flags as they were when the draw was made: later
-- ones depend on what people did.
cohort as (
    select
        holdout.share as drawn_at,
        holdout.arm = 'held out' as held_out,
        case
            when scored.probability < 0.1 then '0% to 10%'
            when scored.probability < 0.25 then '10% to 25%'
            when scored.probability < 0.5 then '25% to 50%'
            else '50% to 100%'
        end as band,
        scored.probability,
        scored.acted,
        extract(epoch from scored.known_at - scored.raised_at)::double precision / 3600 as hours
    from scored
    inner join {{ source('scoring', 'holdout') }} as holdout on holdout.alert_id = scored.alert_id
    cross join cut
    where scored.acted is not null and not scored.is_flagged and scored.horizon_ends_at <= cut.as_of
),

measured as (
    select
        measures.measure,
        scopes.scope,
        cohort.drawn_at,
        cohort.held_out,
        cohort.probability,
        measures.value
    from cohort
    cross join lateral (values ('acted share', acted), ('hours to the first decision', hours)) as measures (measure, value)
    cross join lateral (values ('all alerts'), (band)) as scopes (scope)
),

-- One stratum per share that was set: alerts drawn at different shares came at different times.
strata as (
    select
        measure,
        scope,
        drawn_at,
        count(*) filter (where not held_out) as n1,
        count(*) filter (where held_out) as n0,
        sum(value) filter (where not held_out) as sum1,
        sum(value) filter (where held_out) as sum0,
        avg(value) filter (where not held_out) as mean1,
        avg(value) filter (where held_out) as mean0,
        coalesce(var_samp(value) filter (where not held_out), 0) as variance1,
        coalesce(var_samp(value) filter (where held_out), 0) as variance0,
        avg(value) as mean,
        sum(probability) filter (where not held_out) as said1,
        sum(probability) filter (where held_out) as said0
    from measured
    group by measure, scope, drawn_at
),

bounded as (
    select
        *,
        n1::double precision * n0 / nullif(n1 + n0, 0) as weight,
        case when measure = 'acted share' then
            (mean1 - ({{ wilson('mean1', 'n1', '-') }})) ^ 2 + (({{ wilson('mean0', 'n0', '+') }}) - mean0) ^ 2
        else {{ z95() }} ^ 2 * (variance1 / nullif(n1, 0) + variance0 / nullif(n0, 0)) end as below,
        case when measure = 'acted share' then
            (({{ wilson('mean1', 'n1', '+') }}) - mean1) ^ 2 + (mean0 - ({{ wilson('mean0', 'n0', '-') }})) ^ 2
        else {{ z95() }} ^ 2 * (variance1 / nullif(n1, 0) + variance0 / nullif(n0, 0)) end as above,
        mean * (1 - mean) * (1.0 / nullif(n1, 0) + 1.0 / nullif(n0, 0)) as variance_if_none
    from strata
),

pooled as (
    select
        measure,
        scope,
        sum(n1)::bigint as n1,
        sum(n0)::bigint as n0,
        sum(sum1) / nullif(sum(n1), 0) as value1,
        sum(sum0) / nullif(sum(n0), 0) as value0,
        sum(said1) / nullif(sum(n1), 0) as said1,
        sum(said0) / nullif(sum(n0), 0) as said0,
        sum(weight * (mean1 - mean0)) / nullif(sum(weight), 0) as difference,
        sqrt(sum(weight ^ 2 * below)) / nullif(sum(weight), 0) as below,
        sqrt(sum(weight ^ 2 * above)) / nullif(sum(weight), 0) as above,
        (sum(weight * (mean1 - mean0))) ^ 2 / nullif(sum(weight ^ 2 * variance_if_none), 0) as chi_square,
        sum(n1) >= {{ minimum_known() }} and sum(n0) >= {{ minimum_known() }} as enough
    from bounded
    group by measure, scope
),

-- A score that people follow makes them act more where it is high and less where it is low. The sum may hide it; the
-- bands together do not. The limits are the 95% points of chi-square with 1 to 4 degrees of freedom.
joint as (
    select
        count(*) as bands,
        sum(chi_square) > (array[3.8415, 5.9915, 7.8147, 9.4877])[count(*)::integer] as differently
    from pooled
    where measure = 'acted share' and scope <> 'all alerts' and enough and chi_square is not null
),

-- What people without a holdout compare: before and after; or the alerts of a band with the others.
before as (
    select
        measures.measure,
        avg(measures.value) as value
    from {{ ref('alert_outcomes') }} as outcomes
    cross join cut
    left join {{ source('quality', 'flagged_alerts') }} as flagged on flagged.alert_id = outcomes.alert_id
    left join {{ source('scoring', 'holdout') }} as holdout on holdout.alert_id = outcomes.alert_id
    cross join lateral (
        values
            ('acted share', (outcomes.outcome = 'acted')::int::double precision),
            (
                'hours to the first decision',
                extract(epoch from outcomes.known_at - outcomes.raised_at)::double precision / 3600
            )
    ) as measures (measure, value)
    where
        flagged.alert_id is null
        and holdout.alert_id is null
        and outcomes.outcome is not null
        and outcomes.horizon_ends_at <= cut.as_of
        and outcomes.raised_at < cut.first_draw
        and outcomes.raised_at >= cut.first_draw - (cut.as_of - cut.first_draw)
    group by measures.measure
)

select
    pooled.measure,
    pooled.scope,
    coalesce(pooled.n1, 0) as shown_alerts,
    coalesce(pooled.n0, 0) as held_out_alerts,
    case when pooled.enough then pooled.value1 end as with_score,
    case when pooled.enough then pooled.value0 end as without_score,
    case when pooled.enough then pooled.difference end as difference,
    case when pooled.enough then pooled.difference - pooled.below end as low,
    case when pooled.enough then pooled.difference + pooled.above end as high,
    case when pooled.enough then pooled.said1 end as mean_probability_with_score,
    case when pooled.enough then pooled.said0 end as mean_probability_without_score,
    case when pooled.enough then
        pooled.value1 - case when pooled.scope = 'all alerts' then before.value else
            (everything.value1 * everything.n1 - pooled.value1 * pooled.n1) / nullif(everything.n1 - pooled.n1, 0)
        end
    end as naive_difference,
    case when pooled.scope = 'all alerts' then 'against alerts before the first draw'
        else 'against shown alerts of the other bands' end as naive_is,
    case
        when not pooled.enough then 'too few'
        when pooled.difference - pooled.below > 0 then 'more'
        when pooled.difference + pooled.above < 0 then 'less'
        else 'no difference seen'
    end as verdict,
    case
        when pooled.scope <> 'all alerts' then null
        when not pooled.enough or (pooled.measure = 'acted share' and joint.bands = 0) then 'too few'
        when pooled.measure = 'acted share' then case when joint.differently then 'yes' else 'not seen' end
        when pooled.difference - pooled.below > 0 or pooled.difference + pooled.above < 0 then 'yes'
        else 'not seen'
    end as people_act_differently
from pooled
inner join pooled as everything on everything.measure = pooled.measure and everything.scope = 'all alerts'
left join before on before.measure = pooled.measure
cross join joint
