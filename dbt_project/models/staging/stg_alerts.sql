{{ config(
    materialized='incremental', incremental_strategy='restage', on_schema_change='sync_all_columns',
    indexes=[{'columns': ['alert_id'], 'type': 'hash'}, {'columns': ['staged_at']}, {'columns': ['placement']}],
    post_hook=[
        "{{ analyze_after_full_refresh() }}",
        "{{ index_once('stg_alerts_unreadable', '(alert_id) where unreadable_numbers is not null') }}",
    ],
) }}

{%- set raw = source('raw', 'alerts') -%}
{%- set columns = raw_columns(raw, ['alert_id', 'raised_at', 'rule']) -%}

-- Every raw alert once, read and judged: placement says where it goes. See place_rows.sql for the steps,
-- and for which of several versions is clean.
with
{% if only_new() and is_plain_table(raw) -%}
{{ changes(raw, columns, 'alert_id') }}
{%- endif %}

read as (
    select
        {% for name in ['alert_id', 'rule', 'entity', 'team', 'severity', 'title', 'attributes'] -%}
        {{ raw_text(columns, name) }} as {{ name }},
        {% endfor -%}
        {% for name in ['raised_at', 'value', 'threshold'] -%}
        {{ raw_text(columns, name) }} as {{ name }}_text,
        {% endfor -%}
        {{ raw_time(columns, 'raised_at') }} as raised_at,
        {{ raw_double(columns, 'value') }} as value,
        {{ raw_double(columns, 'threshold') }} as threshold,
        {{ raw_time(columns, 'loaded_at') }} as loaded_at,
        {{ raw_load_id(columns) }} as load_id,
        {{ raw_hash(columns) }} as row_hash,
        {{ is_correction(raw, columns) }} as is_correction,
        src.heed_place,
        src.heed_version,
        {{ count_versions(raw_text(columns, 'alert_id')) }}
    from {{ rows_to_stage(raw, columns) }} as src
),

judged as (
    select
        *,
        case
            when alert_id is null or {{ is_blank('alert_id') }} then {{ reason('no_id') }}
            when {{ id_is_too_long('alert_id') }} then {{ reason('id_too_long') }}
            when rule is null or {{ is_blank('rule') }} then {{ reason('no_rule') }}
            when raised_at_text is null then {{ reason('no_time') }}
            when raised_at is null then {{ reason('time_unreadable') }}
            when {{ is_future('raised_at', 'loaded_at') }} then {{ reason('time_in_future') }}
            when {{ is_too_early('raised_at') }} then {{ reason('time_too_early') }}
        end as reject_reason,
        date_trunc('second', raised_at) as second
    from read
),

ranked as (
    select
        *,
        {{ rank_versions() }}
    from judged
),

placed as (
    select
        alert_id, raised_at, rule, entity, team, severity, value, threshold, title, attributes, loaded_at, load_id,
        raised_at_text, value_text, threshold_text, heed_place, heed_version,
        case
            when reject_reason is not null then reject_reason
            when version > 1 and not is_correction and second <> first_second and second <> all (coalesce(corrected_seconds, '{}'))
                then {{ reason('other_alert') }}
        end as reject_reason,
        case when reject_reason is null then version end as version
    from ranked
)

select
    alert_id,
    raised_at,
    rule,
    entity,
    team,
    lower(severity) as severity,
    value,
    threshold,
    title,
    attributes,
    loaded_at,
    nullif(concat_ws(
        ',',
        case when value_text is not null and value is null then 'value' end,
        case when threshold_text is not null and threshold is null then 'threshold' end
    ), '') as unreadable_numbers,
    reject_reason,
    {{ rejected_content({
        'alert_id': 'alert_id', 'raised_at': 'raised_at_text', 'rule': 'rule', 'entity': 'entity', 'team': 'team',
        'severity': 'severity', 'value': 'value_text', 'threshold': 'threshold_text', 'title': 'title',
        'attributes': 'attributes', 'load_id': 'load_id',
    }) }} as content,
    version,
    case when reject_reason is not null then 'rejected' when version = 1 then 'clean' else 'duplicate' end as placement,
    {{ staged_columns(raw, columns) }}
from placed
{% if only_new() and is_plain_table(raw) -%}
union all
select
    alert_id, null, null, null, null, null, null, null, null, null, null, null, null, null, null,
    'gone', raw_place, raw_version, {{ this_run() }}, (select count(*) from present)
from compared
where place is null
{%- endif %}
