{#
  Two incremental strategies for marts. Both leave exactly what a full refresh would leave, and both keep the table
  itself: dbt's `table` materialization swaps a new table in and drops the old one with everything that depends on it,
  so the reporting views would be gone until the end of the run, on every run. Here readers see the old rows until the
  commit and the new ones after it; permissions, indexes and views stay.
#}

{# Compare with the new state, row by row, and write only what differs. Needs unique_key, a column that
   is never null. In meta: `changed`, the model that names the keys to look at where only new rows are read (only_new.sql);
   `since`, the column that says from which moment on a row could be known. #}
{% macro get_incremental_converge_sql(arg_dict) %}
  {%- set target = arg_dict["target_relation"] -%}
  {%- set new = arg_dict["temp_relation"] -%}
  {%- set key = adapter.quote(arg_dict["unique_key"]) -%}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | list -%}
  analyze {{ new }};
  {% if not only_new() -%}
  -- On a target that looks small a nested loop would read the rows that the insert has just added, again and again:
  -- quadratic time. Hash joins read the target once, before.
  set local enable_nestloop to off;
  {%- endif %}

  {% if config.get('meta', {}).get('since') -%} with taken as ( {%- endif %}
  delete from {{ target }} as old
  where {% if only_new() -%}
  -- Only what may have changed was read: the rest stands.
  old.{{ key }} in (select {{ key }} from staging.{{ config.get('meta', {}).get('changed') }} union all select {{ key }} from {{ new }}) and
  {% endif -%} not exists (
    select 1
    from {{ new }} as new
    where new.{{ key }} = old.{{ key }}
      and row(new.{{ names | join(', new.') }}) is not distinct from row(old.{{ names | join(', old.') }})
  )
  {{ remember_touched('taken') }};

  {% if config.get('meta', {}).get('since') -%} with put as ( {%- endif %}
  insert into {{ target }} ({{ names | join(', ') }})
  select {{ names | join(', ') }}
  from {{ new }} as new
  where not exists (select 1 from {{ target }} as old where old.{{ key }} = new.{{ key }})
  {{ remember_touched('put') }};
{% endmacro %}

{# The end of a statement that writes alerts or outcomes: what it touched goes to staging.touched (begin_cleaning). #}
{% macro remember_touched(rows) -%}
  {%- if config.get('meta', {}).get('since') -%}
  returning raised_at, {{ config.get('meta', {}).get('since') }} as since)
  insert into staging.touched
  select (raised_at at time zone 'UTC')::date, min(since) from {{ rows }} group by 1
  {%- endif -%}
{%- endmacro %}

{# Whether a moment lies in a day whose alerts or outcomes this run has written: an expression that an index serves. #}
{% macro in_touched_days(moment) -%}
  {{ moment }} >= (select min(day) from staging.touched)::timestamp at time zone 'UTC'
  and ({{ moment }} at time zone 'UTC')::date in (select day from staging.touched)
{%- endmacro %}

{# As `replace`, where only new rows are read: the days that this run has touched. #}
{% macro get_incremental_replace_days_sql(arg_dict) %}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | join(', ') -%}
  delete from {{ arg_dict["target_relation"] }}
  {%- if only_new() %} where day in (select day from staging.touched){% endif %};

  insert into {{ arg_dict["target_relation"] }} ({{ names }})
  select {{ names }} from {{ arg_dict["temp_relation"] }};
{% endmacro %}

{# As `replace`, where only new rows are read: the rows of the keys that `changed` in meta names. #}
{% macro get_incremental_replace_changed_sql(arg_dict) %}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | join(', ') -%}
  delete from {{ arg_dict["target_relation"] }}
  {%- if only_new() %} where alert_id in (select alert_id from staging.{{ config.get('meta', {}).get('changed') }}){% endif %};

  insert into {{ arg_dict["target_relation"] }} ({{ names }})
  select {{ names }} from {{ arg_dict["temp_relation"] }};
{% endmacro %}

{# Replace all rows in one transaction: for small tables and for those without a key. #}
{% macro get_incremental_replace_sql(arg_dict) %}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | join(', ') -%}
  delete from {{ arg_dict["target_relation"] }};

  insert into {{ arg_dict["target_relation"] }} ({{ names }})
  select {{ names }} from {{ arg_dict["temp_relation"] }};
{% endmacro %}
