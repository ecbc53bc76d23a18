{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'action_meanings'}}}, severity='warn', store_failures=true, schema='staging') }}

-- Action types that nobody explained; they are read as neutral. `heed action-types` writes the file that explains them.
-- The rows stay readable in staging.unknown_action_types.
select
    action_type,
    actions,
    first_acted_at,
    last_acted_at
from {{ ref('action_meanings') }}
where meaning is null
