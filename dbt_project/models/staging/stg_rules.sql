{%- set raw = source('raw', 'rules') -%}
{%- set columns = raw_columns(raw, ['rule'], optional_table=true) -%}

-- Every raw declaration of a rule once. Rules that differ only in letter case are the same rule. See place_rows.sql.
with read as (
    select
        {% for name in ['rule', 'title', 'team', 'declared_visibility_only'] -%}
        {{ raw_text(columns, name) }} as {{ name }},
        {% endfor -%}
        lower({{ raw_text(columns, 'rule') }}) as rule_key,
        {{ raw_text(columns, 'created_at') }} as created_at_text,
        {{ raw_time(columns, 'created_at') }} as created_at,
        {{ raw_time(columns, 'loaded_at') }} as loaded_at,
        {{ raw_load_id(columns) }} as load_id,
        {{ raw_hash(columns) }} as row_hash,
        {{ count_versions('lower(' ~ raw_text(columns, 'rule') ~ ')') }}
    from {{ rows_to_read(raw, columns) }} as src
),

judged as (
    select
        *,
        case when rule is null then {{ reason('no_rule') }} end as reject_reason
    from read
)

select
    rule,
    rule_key,
    title,
    team,
    {{ read_boolean('declared_visibility_only') }} as declared_visibility_only,
    created_at,
    loaded_at,
    nullif(concat_ws(
        ',',
        case when created_at_text is not null and created_at is null then 'created_at' end,
        case when declared_visibility_only is not null and {{ read_boolean('declared_visibility_only') }} is null
            then 'declared_visibility_only' end
    ), '') as unreadable,
    reject_reason,
    {{ rejected_content({
        'rule': 'rule', 'title': 'title', 'team': 'team', 'declared_visibility_only': 'declared_visibility_only',
        'created_at': 'created_at_text', 'load_id': 'load_id',
    }) }} as content,
    {{ place_rows('rule_key') }},
    {{ count_raw_rows(raw, columns) }}
from judged
