{{ config(tags=['clean']) }}

-- An outcome and the moment it became known stand or are missing together, and nothing is known before the alert, after
-- its horizon, or after the as-of.
select *
from {{ ref('alert_outcomes') }}
where
    (outcome is null) <> (known_at is null)
    or known_at < raised_at
    or known_at > horizon_ends_at
    or known_at > {{ as_of() }}
    or (outcome = 'acted' and decided_by is null)
