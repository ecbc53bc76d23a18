{{ config(incremental_strategy='replace') }}

-- Clean and rejected rows are counted where people read them, duplicates in staging, and raw rows in the snapshot that
-- staging saw: whatever falls through between the stages shows as a difference.
{% for table, model, mart, condition in [
    ('alerts', 'stg_alerts', 'alerts', 'true'),
    ('actions', 'stg_actions', 'actions', 'true'),
    ('rules', 'stg_rules', 'rules', 'is_declared'),
] -%}
{%- set raw = source('raw', table) -%}
{%- set columns = raw_columns(raw, [], optional_table=true) -%}
select
    '{{ table }}'::text as source,
    coalesce(
        {% if table == 'rules' -%} (select max(raw_rows) from {{ ref(model) }}), {%- else -%}
        -- The last run that staged anything counted them: where nothing was staged, nothing had changed.
        (select raw_rows from {{ ref(model) }} order by staged_at desc limit 1), {%- endif %}
        (select count(*) from {{ raw_rows(raw, columns) }} as counted)
    ) as raw_rows,
    (select count(*) from {{ ref(mart) }} where {{ condition }}) as clean_rows,
    (select count(*) from {{ ref(model) }} where placement = 'duplicate') as duplicate_rows,
    (select count(*) from {{ ref('rejected_rows') }} where source = '{{ table }}') as rejected_rows
{{ "union all" if not loop.last }}
{% endfor %}
