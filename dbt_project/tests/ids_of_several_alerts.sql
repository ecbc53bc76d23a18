{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'stg_alerts'}}}, severity='warn', store_failures=true, schema='staging') }}

-- Ids that several alerts carry: all but the first one loaded are in marts.rejected_rows, and so are actions that may belong to
-- any of them. The rows stay readable in staging.ids_of_several_alerts.
select
    alert_id,
    other_alerts,
    shared_from
from {{ ref('shared_ids') }}
