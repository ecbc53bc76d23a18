{# Only while dbt parses: unit tests need not provide it. #}
{% if not execute %}-- depends_on: {{ ref('int_changed_actions') }}{% endif %}
{{ config(
    incremental_strategy='converge', unique_key='action_id',
    meta={'changed': 'changed_actions'},
    indexes=[{'columns': ['action_id'], 'unique': true}, {'columns': ['alert_id']}],
) }}

select
    actions.action_id,
    actions.alert_id,
    actions.acted_at,
    actions.action_type,
    coalesce(types.meaning, 'neutral') as meaning,
    actions.actor,
    actions.loaded_at
from {{ ref('stg_actions') }} as actions
left join {{ ref('stg_action_types') }} as types on types.type_key = {{ type_key('actions.action_type') }}
where
    actions.placement = 'clean'
    {% if only_new() -%} and actions.action_id in (select action_id from {{ ref('int_changed_actions') }}) {%- endif %}
