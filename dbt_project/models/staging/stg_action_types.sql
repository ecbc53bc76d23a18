{{ config(materialized='incremental', incremental_strategy='replace', on_schema_change='sync_all_columns') }}

{%- set raw = source('raw', 'action_types') -%}
{%- set columns = raw_columns(raw, ['action_type', 'meaning'], optional_table=true) -%}

-- What each action type means: the project's list, and what users loaded, which wins.
with loaded as (
    select
        {{ read_action_type('text.action_type') }} as action_type,
        lower(text.meaning) as meaning,
        {{ raw_time(columns, 'loaded_at') }} as loaded_at
    from {{ raw_rows(raw, columns) }} as src
    cross join lateral (
        select
            {% for name in ['action_type', 'meaning', 'loaded_at'] -%}
            {{ raw_text(columns, name) }} as {{ name }}{{ "," if not loop.last }}
            {% endfor %}
        offset 0
    ) as text
),

both_sources as (
    select
        action_type,
        meaning,
        loaded_at,
        'loaded' as defined_in
    from loaded
    where action_type is not null and meaning in ('acted', 'dismissed', 'neutral', 'reopened')
    union all
    select
        {{ read_action_type('action_type') }},
        lower(meaning),
        null,
        'project'
    from {{ ref('action_types') }}
)

select distinct on ({{ type_key('action_type') }} collate "C")
    action_type,
    {{ type_key('action_type') }} as type_key,
    meaning,
    defined_in
from both_sources
order by {{ type_key('action_type') }} collate "C", defined_in, loaded_at desc nulls last, meaning, action_type collate "C"
