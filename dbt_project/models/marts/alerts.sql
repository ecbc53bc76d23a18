{# Only while dbt parses: unit tests need not provide it. #}
{% if not execute %}-- depends_on: {{ ref('int_changed_alerts') }}{% endif %}
{{ config(
    incremental_strategy='converge', unique_key='alert_id',
    meta={'changed': 'changed_alerts', 'since': 'raised_at'},
    indexes=[{'columns': ['alert_id'], 'unique': true}, {'columns': ['raised_at']}],
    post_hook="{{ index_once('alerts_unreadable', \"(alert_id) where attributes ? 'unreadable'\") }}",
) }}

select
    alerts.alert_id,
    alerts.raised_at,
    rules.canonical as rule,
    alerts.entity,
    teams.canonical as team,
    alerts.severity,
    alerts.value,
    alerts.threshold,
    alerts.title,
    case when alerts.attributes is not null then
        coalesce(staging.read_object(alerts.attributes), jsonb_build_object('unreadable', alerts.attributes))
    end as attributes,
    alerts.loaded_at
from {{ ref('stg_alerts') }} as alerts
inner join {{ ref('int_spellings') }} as rules on rules.kind = 'rule' and rules.spelling = alerts.rule
left join {{ ref('int_spellings') }} as teams on teams.kind = 'team' and teams.spelling = alerts.team
where
    alerts.placement = 'clean'
    {% if only_new() -%} and alerts.alert_id in (select alert_id from {{ ref('int_changed_alerts') }}) {%- endif %}
