{{ config(post_hook="analyze {{ this }}") }}

{%- set raw = source('raw', 'actions') -%}
{%- set columns = raw_columns(raw, ['action_id', 'alert_id', 'acted_at', 'action_type']) -%}

-- Every raw action once, read and judged against its alert: placement says where it goes. See place_rows.sql.
with read as (
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
        {{ count_versions(raw_text(columns, 'action_id')) }}
    from {{ raw_rows(raw, columns) }} as src
    left join {{ ref('stg_alerts') }} as alerts
        on alerts.alert_id = {{ raw_text(columns, 'alert_id') }} and alerts.placement = 'clean'
),

judged as (
    select
        *,
        case
            when action_id is null then {{ reason('no_id') }}
            when {{ id_is_too_long('action_id') }} then {{ reason('id_too_long') }}
            when alert_id is null then {{ reason('no_alert_id') }}
            when action_type is null then {{ reason('no_type') }}
            when acted_at_text is null then {{ reason('no_time') }}
            when acted_at is null then {{ reason('time_unreadable') }}
            when {{ is_future('acted_at', 'loaded_at') }} then {{ reason('time_in_future') }}
            when raised_at is null then {{ reason('unknown_alert') }}
            when acted_at < raised_at - make_interval(secs => 60.0 * {{ var('clock_skew_minutes') }})
                then {{ reason('before_alert') }}
        end as reject_reason
    from read
)

select
    action_id,
    alert_id,
    -- Within the clock skew an action counts as at the raise moment.
    greatest(acted_at, raised_at) as acted_at,
    {{ read_action_type('action_type') }} as action_type,
    actor,
    loaded_at,
    reject_reason,
    {{ rejected_content({
        'action_id': 'action_id', 'alert_id': 'alert_id', 'acted_at': 'acted_at_text', 'action_type': 'action_type',
        'actor': 'actor', 'load_id': 'load_id',
    }) }} as content,
    {{ place_rows('action_id') }},
    {{ count_raw_rows(raw, columns) }}
from judged
