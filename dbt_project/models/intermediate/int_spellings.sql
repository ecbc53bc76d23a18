{{ config(alias='stg_spellings') }}

-- One spelling per rule and per team. Two spellings that differ only in letter case mean the same; the most frequent one
-- among clean alerts is shown, and among equally frequent ones the alphabetically first.
with counted as (
    select
        'rule' as kind,
        rule as spelling,
        count(*) as uses
    from {{ ref('stg_alerts') }}
    where placement = 'clean'
    group by rule
    union all
    select
        'team',
        team,
        count(*)
    from {{ ref('stg_alerts') }}
    where placement = 'clean' and team is not null
    group by team
    union all
    -- Declarations count for nothing in the vote, but their spellings need an answer too.
    select
        'rule',
        rule,
        0
    from {{ ref('stg_rules') }}
    where placement = 'clean'
    union all
    select
        'team',
        team,
        0
    from {{ ref('stg_rules') }}
    where placement = 'clean' and team is not null
),

summed as (
    select
        kind,
        spelling,
        sum(uses) as uses
    from counted
    group by kind, spelling
),

chosen as (
    select
        kind,
        spelling,
        first_value(spelling) over (
            partition by kind, lower(spelling)
            order by uses desc, spelling collate "C"
        ) as canonical
    from summed
)

select
    chosen.kind,
    chosen.spelling,
    chosen.canonical,
    -- What it was before this run: alerts that carry the old one must be written anew.
    {% if only_new() -%} standing.canonical {%- else -%} null::text {%- endif %} as canonical_before
from chosen
{% if only_new() -%}
left join {{ this }} as standing on standing.kind = chosen.kind and standing.spelling = chosen.spelling
{%- endif %}
