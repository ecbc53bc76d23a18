{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'rejected_rows'}}}, severity='warn', store_failures=true, schema='staging') }}

-- Ids that several alerts carry: all but the first one loaded are rejected, and so are actions that may belong to any of them.
-- The rows stay readable in staging.ids_of_several_alerts.
select
    row_id as alert_id,
    count(*) as other_alerts
from {{ ref('rejected_rows') }}
where source = 'alerts' and reason = {{ reason('other_alert') }}
group by row_id
