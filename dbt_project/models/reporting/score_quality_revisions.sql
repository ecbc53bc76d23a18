-- What each week's quality was known to be at the end of the week and a week later each, until every horizon is over.
with scored as (
    {{ first_scores() }}
),

moments as (
    select
        weeks.week,
        ((weeks.week + 7 * number)::timestamp at time zone 'UTC') as known_by
    from (select distinct date_trunc('week', raised_at at time zone 'UTC')::date as week from scored) as weeks
    cross join generate_series(1, 2 + ceil({{ var('horizon_days') }} / 7.0)::integer) as number
    where ((weeks.week + 7 * number)::timestamp at time zone 'UTC') <= (
        select max(as_of) from {{ source('scoring', 'publications') }}
    )
),

revised as (
    select
        moments.week,
        moments.known_by,
        count(*) as alerts,
        count(*) filter (where scored.known_at <= moments.known_by) as known,
        count(*) filter (where scored.known_at <= moments.known_by and scored.acted = 1) as acted,
        avg(scored.acted) filter (where scored.known_at <= moments.known_by) as share,
        avg(scored.probability) filter (where scored.known_at <= moments.known_by) as mean_probability,
        avg({{ log_loss('scored.acted', 'scored.probability') }})
            filter (where scored.known_at <= moments.known_by) as log_loss
    from moments
    inner join scored on date_trunc('week', scored.raised_at at time zone 'UTC')::date = moments.week
    where not scored.is_flagged
    group by moments.week, moments.known_by
),

judged as (
    select
        *,
        known >= {{ minimum_known() }} as enough,
        {{ base_rate_log_loss('share') }} as base
    from revised
)

select
    week,
    known_by,
    alerts,
    known,
    acted,
    case when enough then mean_probability end as mean_probability,
    case when enough then share end as acted_share,
    case when enough then log_loss end as log_loss,
    case when enough then 1 - log_loss / base end as log_loss_skill
from judged
