{{ config(tags=['clean'], meta={'dagster': {'ref': {'name': 'alerts'}}}, severity='warn', store_failures=true, schema='staging') }}

{%- set types = source('raw', 'action_types') -%}
{%- set columns = raw_columns(types, [], optional_table=true) %}

-- Optional values whose text cannot be read, counted by table and column. Their rows are clean all the same: numbers and
-- times became null, attributes stand whole under the key unreadable.
-- The rows stay readable in staging.unreadable_values.
select
    'alerts' as source,
    unreadable.name as column_name,
    count(*) as clean_rows
from {{ ref('stg_alerts') }} as alerts
cross join lateral string_to_table(alerts.unreadable_numbers, ',') as unreadable (name)
where alerts.placement = 'clean' and alerts.unreadable_numbers is not null
group by unreadable.name
union all
select
    'alerts',
    'attributes',
    count(*)
from {{ ref('alerts') }}
where attributes ? 'unreadable'
having count(*) > 0
union all
select
    'rules',
    unreadable.name,
    count(*)
from {{ ref('stg_rules') }} as rules
cross join lateral string_to_table(rules.unreadable, ',') as unreadable (name)
where rules.placement = 'clean'
group by unreadable.name
union all
select
    'action_types',
    'meaning',
    count(*)
from {{ raw_rows(types, columns) }} as src
where
    {{ raw_text(columns, 'action_type') }} is null
    -- Without a meaning: a list that is not filled in yet.
    or lower({{ raw_text(columns, 'meaning') }}) not in ('acted', 'dismissed', 'neutral', 'reopened')
having count(*) > 0
