{{ config(
    materialized='incremental', incremental_strategy='restage', on_schema_change='sync_all_columns',
    indexes=[{'columns': ['action_id'], 'type': 'hash'}, {'columns': ['alert_id'], 'type': 'hash'}, {'columns': ['staged_at']}, {'columns': ['placement']}],
    post_hook="{{ analyze_after_full_refresh() }}",
) }}

{%- set raw = source('raw', 'actions') -%}
{%- set columns = raw_columns(raw, ['action_id', 'alert_id', 'acted_at', 'action_type']) -%}

{%- set again -%}
    -- An action is judged against its alert.
    select staged.action_id
    from {{ this }} as staged
    inner join {{ ref('stg_alerts') }} as alerts on alerts.alert_id = staged.alert_id
    where alerts.staged_at = {{ this_run() }} and staged.action_id is not null
{%- endset %}

-- Every raw action once, read and judged against its alert: placement says where it goes. See place_rows.sql.
with
{% if only_new() and is_plain_table(raw) -%}
{{ changes(raw, columns, 'action_id', again) }}
{%- endif %}

read as (
    select
        {% for name in ['action_id', 'alert_id', 'action_type', 'actor'] -%}
        {{ raw_text(columns, name) }} as {{ name }},
        {% endfor -%}
        {{ raw_text(columns, 'acted_at') }} as acted_at_text,
        {{ raw_time(columns, 'acted_at') }} as acted_at,
        {{ raw_time(columns, 'loaded_at') }} as loaded_at,
        {{ raw_load_id(columns) }} as load_id,
        {{ raw_hash(columns) }} as row_hash,
        alerts.raised_at,
        shared.shared_from,
        src.heed_place,
        src.heed_version,
        {{ count_versions(raw_text(columns, 'action_id')) }}
    from {{ rows_to_stage(raw, columns) }} as src
    left join {{ ref('stg_alerts') }} as alerts
        on alerts.alert_id = {{ raw_text(columns, 'alert_id') }} and alerts.placement = 'clean'
    left join {{ ref('shared_ids') }} as shared on shared.alert_id = {{ raw_text(columns, 'alert_id') }}
),

judged as (
    select
        *,
        case
            when action_id is null or {{ is_blank('action_id') }} then {{ reason('no_id') }}
            when {{ id_is_too_long('action_id') }} then {{ reason('id_too_long') }}
            when alert_id is null then {{ reason('no_alert_id') }}
            when action_type is null or {{ is_blank('action_type') }} then {{ reason('no_type') }}
            when acted_at_text is null then {{ reason('no_time') }}
            when acted_at is null then {{ reason('time_unreadable') }}
            when {{ is_future('acted_at', 'loaded_at') }} then {{ reason('time_in_future') }}
            when raised_at is null then {{ reason('unknown_alert') }}
            when acted_at < raised_at - make_interval(secs => 60.0 * {{ var('clock_skew_minutes') }})
                then {{ reason('before_alert') }}
            when {{ is_too_early('acted_at') }} then {{ reason('time_too_early') }}
            when acted_at >= shared_from then {{ reason('ambiguous_alert') }}
        end as reject_reason
    from read
)

select
    action_id,
    alert_id,
    -- Within the clock skew an action counts as at the raise moment.
    case when reject_reason is null then greatest(acted_at, raised_at) else acted_at end as acted_at,
    {{ read_action_type('action_type') }} as action_type,
    actor,
    loaded_at,
    reject_reason,
    {{ rejected_content({
        'action_id': 'action_id', 'alert_id': 'alert_id', 'acted_at': 'acted_at_text', 'action_type': 'action_type',
        'actor': 'actor', 'load_id': 'load_id',
    }) }} as content,
    {{ place_rows('action_id') }},
    {{ staged_columns(raw, columns) }}
from judged
{% if only_new() and is_plain_table(raw) -%}
union all
select
    compared.action_id, staged.alert_id, null, null, null, null, null, null,
    'gone', compared.raw_place, compared.raw_version, {{ this_run() }}, (select count(*) from present)
from compared
inner join {{ this }} as staged on staged.raw_place = compared.raw_place and staged.raw_version = compared.raw_version
where compared.place is null and staged.placement <> 'gone'
{%- endif %}
