{# Only while dbt parses: unit tests need not provide it. #}
{% if not execute %}-- depends_on: {{ ref('int_changed_outcomes') }}{% endif %}
{{ config(
    incremental_strategy='converge', unique_key='alert_id',
    meta={'changed': 'changed_outcomes', 'since': 'known_at'},
    indexes=[{'columns': ['alert_id'], 'unique': true}, {'columns': ['raised_at']}],
) }}

-- Whether somebody acted on an alert, and when that became known. Stands at the variable as_of: later actions do not
-- exist for it, and a horizon that is not over yet decides nothing.
with
{% if only_new() -%}
-- Touched themselves or by an action; and those undecided so far for which the as-of has passed a decision or the horizon.
due as materialized (
    select alert_id from {{ ref('int_changed_outcomes') }}
    union
    select standing.alert_id
    from {{ this }} as standing
    where
        standing.outcome is null
        and (
            standing.horizon_ends_at <= {{ as_of() }}
            or exists (
                select 1 from {{ ref('actions') }} as actions
                where
                    actions.alert_id = standing.alert_id
                    and actions.meaning in ('acted', 'dismissed')
                    and actions.acted_at <= {{ as_of() }}
            )
        )
    union
    -- Dismissals that the as-of has passed a reopening of.
    select standing.alert_id
    from {{ this }} as standing
    inner join {{ ref('actions') }} as actions on actions.alert_id = standing.alert_id
    where
        standing.outcome = 'not_acted'
        and standing.decided_by is not null
        and actions.meaning = 'reopened'
        and actions.acted_at > standing.known_at
        and actions.acted_at <= {{ as_of() }}
),

{% endif -%}
-- Reopening an alert revokes the dismissals before it, from that moment on. What was done stays done.
reopened as (
    select
        alerts.alert_id,
        max(actions.acted_at) as reopened_at
    from {{ ref('actions') }} as actions
    inner join {{ ref('alerts') }} as alerts on alerts.alert_id = actions.alert_id
    where
        {% if only_new() -%} alerts.alert_id in (select alert_id from due) and {% endif -%}
        actions.meaning = 'reopened'
        and actions.acted_at <= alerts.raised_at + {{ horizon() }}
        and actions.acted_at <= {{ as_of() }}
    group by alerts.alert_id
),

decisive as (
    select distinct on (alerts.alert_id collate "C")
        alerts.alert_id,
        actions.action_id,
        actions.meaning,
        actions.acted_at
    from {{ ref('alerts') }} as alerts
    inner join {{ ref('actions') }} as actions on actions.alert_id = alerts.alert_id
    left join reopened on reopened.alert_id = alerts.alert_id
    where
        {% if only_new() -%} alerts.alert_id in (select alert_id from due) and {% endif -%}
        (actions.meaning = 'acted' or (actions.meaning = 'dismissed' and (actions.acted_at < reopened.reopened_at) is not true))
        and actions.acted_at >= alerts.raised_at
        and actions.acted_at <= alerts.raised_at + {{ horizon() }}
        and actions.acted_at <= {{ as_of() }}
    -- Decisions of one moment: acted wins, because a dismissal that follows an act closes the matter; then the smaller id.
    order by
        alerts.alert_id collate "C",
        actions.acted_at,
        (actions.meaning = 'acted') desc,
        actions.action_id collate "C"
),

alerts as (
    select
        alert_id,
        raised_at,
        raised_at + {{ horizon() }} as horizon_ends_at
    from {{ ref('alerts') }}
    {% if only_new() -%} where alert_id in (select alert_id from due) {%- endif %}
)

select
    alerts.alert_id,
    alerts.raised_at,
    alerts.horizon_ends_at,
    case
        when decisive.meaning = 'acted' then 'acted'
        when decisive.meaning = 'dismissed' or horizon_decides then 'not_acted'
    end as outcome,
    case
        when decisive.action_id is not null then decisive.acted_at
        when horizon_decides then alerts.horizon_ends_at
    end as known_at,
    decisive.action_id as decided_by
from alerts
left join decisive on decisive.alert_id = alerts.alert_id
left join {{ ref('shared_ids') }} as shared on shared.alert_id = alerts.alert_id
-- Of an alert that shares its id the actions after that moment are rejected: that none is left says nothing.
cross join lateral (
    select alerts.horizon_ends_at <= {{ as_of() }} and (shared.shared_from <= alerts.horizon_ends_at) is not true as horizon_decides
) as answers
