{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'load_reconciliation'}}}) }}

-- Every raw row ends in exactly one place. Fails with the source whose rows do not add up.
select *
from {{ ref('load_reconciliation') }}
where raw_rows <> clean_rows + duplicate_rows + rejected_rows
