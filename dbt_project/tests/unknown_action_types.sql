{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'stg_actions'}}}, severity='warn', store_failures=true, schema='staging') }}

-- Action types that nobody explained; they are read as neutral. Add them to raw.action_types or to the seed.
-- The rows stay readable in staging.unknown_action_types.
select
    actions.action_type,
    count(*) as actions,
    min(actions.acted_at) as first_acted_at,
    max(actions.acted_at) as last_acted_at
from {{ ref('stg_actions') }} as actions
left join {{ ref('stg_action_types') }} as types on types.action_type = actions.action_type
where actions.placement = 'clean' and types.action_type is null
group by actions.action_type
