{# The rule by which thresholds are chosen, and counts, are those of triage/evaluation/workload.py. #}
with scored as (
    {{ first_scores() }}
),

forecasts as (
    select
        probability as threshold,
        count(*) as own,
        sum(acted)::bigint as own_acted
    from scored
    where acted is not null and not is_flagged
    group by probability
),

below as (
    select
        threshold,
        own,
        own_acted,
        (sum(own) over ())::bigint as alerts,
        (sum(own_acted) over ())::bigint as acted,
        (sum(own) over (order by threshold) - own)::bigint as alerts_below,
        (sum(own_acted) over (order by threshold) - own_acted)::bigint as acted_below,
        count(*) over () as thresholds
    from forecasts
),

published as (
    select
        threshold,
        alerts,
        acted,
        alerts_below,
        acted_below,
        alerts >= {{ minimum_known() }} and acted > 0 as enough
    from below
    where
        thresholds <= 1000
        or alerts_below * 1000 / alerts < (alerts_below + own) * 1000 / alerts
        {%- for promise in ("0.01", "0.02", "0.05") %}
        or (
            acted_below::double precision / nullif(acted, 0) <= {{ promise }}::double precision
            and (acted_below + own_acted)::double precision / nullif(acted, 0) > {{ promise }}::double precision
        )
        {%- endfor %}
),

newest as (
    select
        curves.model_version,
        max(curves.as_of) as as_of
    from {{ source('training', 'workload_curves') }} as curves
    where curves.model_version = (
        select publications.model_version
        from {{ source('scoring', 'publications') }} as publications
        order by publications.as_of desc, publications.published_at desc
        limit 1
    )
    group by curves.model_version
),

evaluated as (
    select
        curves.threshold,
        curves.alerts,
        curves.acted,
        curves.alerts_below,
        curves.acted_below
    from {{ source('training', 'workload_curves') }} as curves
    inner join newest on newest.model_version = curves.model_version and newest.as_of = curves.as_of
    where not exists (select 1 from published where published.enough)
),

curve as (
    select
        'scores' as source,
        threshold,
        alerts,
        acted,
        alerts_below,
        acted_below
    from published
    where enough or not exists (select 1 from evaluated)
    union all
    select
        'evaluation' as source,
        threshold,
        alerts,
        acted,
        alerts_below,
        acted_below
    from evaluated
)

select
    source,
    threshold,
    alerts,
    acted,
    alerts_below,
    acted_below,
    case when alerts >= {{ minimum_known() }} then alerts_below::double precision / alerts end as share_saved,
    case when alerts >= {{ minimum_known() }} then acted_below::double precision / nullif(acted, 0) end as share_missed
from curve
