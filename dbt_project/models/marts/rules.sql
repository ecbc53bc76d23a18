{{ config(incremental_strategy='replace') }}

with raised as (
    select
        rule,
        count(*) as alerts,
        min(raised_at) as first_raised_at,
        max(raised_at) as last_raised_at
    from {{ ref('alerts') }}
    group by rule
),

declared as (
    select
        names.canonical as rule,
        rules.title,
        teams.canonical as team,
        rules.declared_visibility_only,
        rules.created_at
    from {{ ref('stg_rules') }} as rules
    inner join {{ ref('int_spellings') }} as names on names.kind = 'rule' and names.spelling = rules.rule
    left join {{ ref('int_spellings') }} as teams on teams.kind = 'team' and teams.spelling = rules.team
    where rules.placement = 'clean'
)

select
    coalesce(declared.rule, raised.rule) as rule,
    declared.title,
    declared.team,
    coalesce(declared.declared_visibility_only, false) as declared_visibility_only,
    declared.created_at,
    declared.rule is not null as is_declared,
    coalesce(raised.alerts, 0) as alerts,
    raised.first_raised_at,
    raised.last_raised_at
from declared
full join raised on raised.rule = declared.rule
