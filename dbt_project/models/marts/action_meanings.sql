{{ config(materialized='view') }}

-- What people wrote that they did, and what heed takes it for.
with uses as (
    select
        {{ type_key('actions.action_type') }} as type_key,
        min(actions.action_type collate "C") as action_type,
        count(*) as actions,
        count(distinct actions.alert_id) filter (where outcomes.decided_by is null) as alerts_without_decision,
        min(actions.acted_at) as first_acted_at,
        max(actions.acted_at) as last_acted_at,
        min(actions.action_id collate "C") as example
    from {{ ref('actions') }} as actions
    inner join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = actions.alert_id
    group by 1
)

select
    uses.action_type,
    types.meaning,
    types.defined_in,
    uses.actions,
    uses.alerts_without_decision,
    uses.first_acted_at,
    uses.last_acted_at,
    uses.example
from uses
left join {{ ref('stg_action_types') }} as types on types.type_key = uses.type_key
