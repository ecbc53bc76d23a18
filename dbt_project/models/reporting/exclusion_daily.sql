with volume as (
    select
        day,
        sum(alerts)::bigint as alerts,
        sum(acted)::bigint as acted,
        sum(acted + not_acted)::bigint as known
    from {{ ref('daily_alert_volume') }}
    group by day
),

excluded as (
    select
        (raised_at at time zone 'UTC')::date as day,
        count(*) as excluded,
        count(*) filter (where flood) as flood_alerts,
        count(*) filter (where visibility_only) as visibility_only_alerts,
        count(*) filter (where outcome = 'acted') as acted,
        count(*) filter (where outcome is not null) as known
    from {{ ref('excluded_alerts') }}
    group by 1
),

floods as (
    select
        day,
        count(*) filter (where status = 'suspected') as suspected,
        count(*) filter (where status = 'confirmed') as confirmed,
        count(*) filter (where status = 'cleared') as cleared
    from {{ source('quality', 'flood_days') }}
    where superseded_at is null
    group by day
)

select
    volume.day,
    volume.alerts,
    band.expected,
    band.upper,
    coalesce(excluded.flood_alerts, 0) as flood_alerts,
    coalesce(excluded.visibility_only_alerts, 0) as visibility_only_alerts,
    coalesce(excluded.excluded, 0) as excluded,
    coalesce(excluded.excluded, 0)::double precision / volume.alerts as share_excluded,
    coalesce(floods.suspected, 0) as floods_suspected,
    coalesce(floods.confirmed, 0) as floods_confirmed,
    coalesce(floods.cleared, 0) as floods_cleared,
    volume.acted::double precision / nullif(volume.known, 0) as acted_share,
    (volume.acted - coalesce(excluded.acted, 0))::double precision
    / nullif(volume.known - coalesce(excluded.known, 0), 0) as acted_share_without_excluded
from volume
left join {{ source('quality', 'daily_volume_band') }} as band on band.day = volume.day
left join excluded on excluded.day = volume.day
left join floods on floods.day = volume.day
