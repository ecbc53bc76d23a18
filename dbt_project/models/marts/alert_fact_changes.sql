{# Only while dbt parses: unit tests need not provide it. #}
{% if not execute %}-- depends_on: {{ ref('int_changed_alerts') }}{% endif %}
{{ config(
    incremental_strategy='replace_changed',
    meta={'changed': 'changed_alerts'},
    indexes=[{'columns': ['alert_id']}],
) }}

-- Facts that a later version of an alert tells otherwise than the one that heed uses (place_rows.sql). Of several changes of
-- one column the first one. That a later version does not tell a fact at all is no change: exports differ in their columns.
with pairs as (
    select
        used.alert_id,
        used.loaded_at as first_loaded_at,
        later.loaded_at as changed_at,
        later.version,
        {% for name in ['rule', 'entity', 'team', 'severity', 'value', 'threshold', 'title', 'attributes'] -%}
        used.{{ name }} as first_{{ name }},
        later.{{ name }} as later_{{ name }}{{ "," if not loop.last }}
        {% endfor %}
    from {{ ref('stg_alerts') }} as later
    inner join {{ ref('stg_alerts') }} as used on used.alert_id = later.alert_id and used.placement = 'clean'
    where
        later.placement = 'duplicate'
        -- What a correction replaced was before it.
        and (later.loaded_at < used.loaded_at) is not true
        {% if only_new() -%} and later.alert_id in (select alert_id from {{ ref('int_changed_alerts') }}) {%- endif %}
),

differences as (
    select
        pairs.alert_id,
        facts.column_name,
        facts.first_value,
        facts.later_value,
        pairs.first_loaded_at,
        pairs.changed_at,
        pairs.version
    from pairs
    cross join lateral (
        values
        {% for name in ['rule', 'entity', 'team', 'severity', 'value', 'threshold', 'title'] -%}
        ('{{ name }}', first_{{ name }}::text, later_{{ name }}::text){{ "," if not loop.last }}
        {% endfor %}
    ) as facts (column_name, first_value, later_value)
    -- Letter case makes no other rule and no other team.
    where lower(facts.first_value) is distinct from lower(facts.later_value) and facts.later_value is not null
    union all
    select
        pairs.alert_id,
        '@' || attribute.name,
        objects.first_object ->> attribute.name,
        attribute.later_value,
        pairs.first_loaded_at,
        pairs.changed_at,
        pairs.version
    from pairs
    cross join lateral (
        select
            coalesce(staging.read_object(first_attributes), '{}') as first_object,
            coalesce(staging.read_object(later_attributes), '{}') as later_object
        offset 0
    ) as objects
    cross join lateral jsonb_each_text(objects.later_object) as attribute (name, later_value)
    where
        pairs.first_attributes is distinct from pairs.later_attributes
        and attribute.later_value is not null
        and objects.first_object ->> attribute.name is distinct from attribute.later_value
)

select distinct on (alert_id collate "C", column_name collate "C")
    alert_id,
    column_name,
    first_value,
    later_value,
    first_loaded_at,
    changed_at
from differences
order by alert_id collate "C", column_name collate "C", changed_at nulls first, version
