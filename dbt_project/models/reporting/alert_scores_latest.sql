with reading as (
    {{ reading_moment() }}
),

curve_set as (
    select curve_sets.*
    from {{ source('scoring', 'curve_sets') }} as curve_sets
    inner join reading on curve_sets.as_of <= reading.read_at
    order by curve_sets.as_of desc, curve_sets.fitted_at desc
    limit 1
),

rate_set as (
    select max(flagged_rates.as_of) as as_of
    from {{ source('scoring', 'flagged_rates') }} as flagged_rates
    inner join reading on flagged_rates.as_of <= reading.read_at
),

facts as (
    select
        latest.*,
        alerts.rule,
        alerts.entity,
        alerts.team,
        alerts.severity,
        alerts.value,
        alerts.threshold,
        alerts.title,
        alerts.attributes,
        outcomes.outcome,
        outcomes.known_at,
        outcomes.outcome is null as is_open,
        {{ is_hidden() }} as is_hidden,
        case when latest.visibility_only then 'visibility_only' when latest.flood then 'flood' end as kind,
        extract(epoch from (select reading.read_at from reading) - alerts.raised_at)::double precision as age
    from {{ ref('alert_outcomes') }} as outcomes
    inner join {{ ref('alerts') }} as alerts on alerts.alert_id = outcomes.alert_id
    -- Looked up alert by alert: who asks for open alerts does not wait for the scores of all closed ones to be ranked.
    cross join lateral (
        select scores.*
        from {{ source('scoring', 'alert_scores') }} as scores
        where scores.alert_id = outcomes.alert_id
        order by scores.as_of desc, scores.scored_at desc
        limit 1
    ) as latest
    left join {{ source('scoring', 'holdout') }} as holdout on holdout.alert_id = outcomes.alert_id
)

select
    facts.alert_id,
    facts.raised_at,
    facts.rule,
    facts.entity,
    facts.team,
    facts.severity,
    facts.value,
    facts.threshold,
    facts.title,
    facts.attributes,
    case
        when facts.is_hidden then null
        when not facts.is_open then facts.probability
        else coalesce(flagged.now, chance.now)
    end as probability,
    case when not facts.is_hidden then facts.probability end as probability_at_raise,
    case when facts.is_open and not facts.is_hidden then flagged.low end as low,
    case when facts.is_open and not facts.is_hidden then flagged.high end as high,
    case when facts.is_open and facts.kind is not null
        then coalesce(rate_of_rule.words, rate_of_kind.words) end as flag_words,
    case when facts.is_hidden then 'holdout' else facts.status end as status,
    case
        when facts.is_hidden then {{ holdout_reason() }}
        when clock.reason is not null then jsonb_build_array(clock.reason) || coalesce(facts.reasons, '[]')
        else facts.reasons
    end as reasons,
    facts.flood,
    facts.visibility_only,
    facts.model_version,
    facts.as_of,
    facts.scored_at,
    (select reading.read_at from reading) as read_at,
    facts.outcome,
    facts.known_at,
    facts.is_open
from facts
left join {{ source('scoring', 'decision_curves') }} as of_rule
    on of_rule.curve_version = (select curve_set.curve_version from curve_set)
    and of_rule.level = 'rule' and of_rule.team = coalesce(facts.team, '') and of_rule.rule = facts.rule
left join {{ source('scoring', 'decision_curves') }} as of_team
    on of_team.curve_version = (select curve_set.curve_version from curve_set)
    and of_team.level = 'team' and of_team.team = coalesce(facts.team, '') and of_team.rule = ''
left join {{ source('scoring', 'decision_curves') }} as of_all
    on of_all.curve_version = (select curve_set.curve_version from curve_set)
    and of_all.level = 'all' and of_all.team = '' and of_all.rule = ''
left join {{ source('scoring', 'flagged_rates') }} as rate_of_rule
    on rate_of_rule.as_of = (select rate_set.as_of from rate_set)
    and rate_of_rule.kind = facts.kind and rate_of_rule.rule = facts.rule
left join {{ source('scoring', 'flagged_rates') }} as rate_of_kind
    on rate_of_kind.as_of = (select rate_set.as_of from rate_set)
    and rate_of_kind.kind = facts.kind and rate_of_kind.rule = ''
cross join lateral (
    select greatest(1, width_bucket(facts.age, (select curve_set.ages from curve_set))) as step
) as at
cross join lateral (
    select
        coalesce((coalesce(of_rule.a, of_team.a, of_all.a))[at.step], 0) as a,
        coalesce((coalesce(of_rule.b, of_team.b, of_all.b))[at.step], 1) as b,
        coalesce((coalesce(of_rule.c, of_team.c, of_all.c))[at.step], 0) as c
) as curve
cross join lateral (
    select {{ chance_now('facts.probability', 'curve.a', 'curve.b', 'curve.c') }} as now
) as chance
-- What is true of a flagged alert is the share of its kind; it falls with the wait as every other chance.
cross join lateral (
    select
        coalesce(rate_of_rule.probability, rate_of_kind.probability) as share,
        coalesce(rate_of_rule.low, rate_of_kind.low) as low,
        coalesce(rate_of_rule.high, rate_of_kind.high) as high
) as of_its_kind
cross join lateral (
    select
        {{ chance_now('of_its_kind.share', 'curve.a', 'curve.b', 'curve.c') }} as now,
        {{ chance_now('of_its_kind.low', 'curve.a', 'curve.b', 'curve.c') }} as low,
        {{ chance_now('of_its_kind.high', 'curve.a', 'curve.b', 'curve.c') }} as high
) as flagged
cross join lateral (
    select
        case
            when facts.is_open and facts.kind is null
                then {{ age_reason('chance.now', 'facts.probability', 'facts.age') }}
        end as reason
) as clock
