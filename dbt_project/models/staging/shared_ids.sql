{{ config(materialized='view') }}

-- Ids that several alerts carry: the first one loaded is in marts.alerts, the others are rejected. From the moment on at
-- which another one was raised, nobody knows to which of them an action belongs.
select
    alert_id,
    min(raised_at) as shared_from,
    count(distinct date_trunc('second', raised_at)) as other_alerts
from {{ ref('stg_alerts') }}
where placement = 'rejected' and reject_reason = {{ reason('other_alert') }}
group by alert_id
