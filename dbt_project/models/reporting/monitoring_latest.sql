with newest as (
    select as_of, measured_at
    from {{ source('scoring', 'monitoring') }}
    order by as_of desc, measured_at desc
    limit 1
)

select
    readings.check_name,
    readings.subject,
    readings.verdict,
    readings.value,
    readings.low,
    readings.high,
    readings.limit_value,
    readings.finding,
    readings.alerts,
    readings.model_version,
    readings.as_of,
    readings.measured_at
from {{ source('scoring', 'monitoring') }} as readings
inner join newest on newest.as_of = readings.as_of and newest.measured_at = readings.measured_at
