{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'alert_outcomes'}}}) }}

select alerts.alert_id
from {{ ref('alerts') }} as alerts
where not exists (select 1 from {{ ref('alert_outcomes') }} as outcomes where outcomes.alert_id = alerts.alert_id)
