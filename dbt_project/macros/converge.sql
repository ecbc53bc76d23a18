{#
  Two incremental strategies for marts. Both leave exactly what a full refresh would leave, and both keep the table
  itself: dbt's `table` materialization swaps a new table in and drops the old one with everything that depends on it,
  so the reporting views would be gone until the end of the run, on every run. Here readers see the old rows until the
  commit and the new ones after it; permissions, indexes and views stay.
#}

{# Compare with the new state, row by row, and write only what differs. Needs unique_key, a column that is never null. #}
{% macro get_incremental_converge_sql(arg_dict) %}
  {%- set target = arg_dict["target_relation"] -%}
  {%- set new = arg_dict["temp_relation"] -%}
  {%- set key = adapter.quote(arg_dict["unique_key"]) -%}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | list -%}
  analyze {{ new }};
  -- On a target that looks small a nested loop would read the rows that the insert has just added, again and again:
  -- quadratic time. Hash joins read the target once, before.
  set local enable_nestloop to off;

  delete from {{ target }} as old
  where not exists (
    select 1
    from {{ new }} as new
    where new.{{ key }} = old.{{ key }}
      and row(new.{{ names | join(', new.') }}) is not distinct from row(old.{{ names | join(', old.') }})
  );

  insert into {{ target }} ({{ names | join(', ') }})
  select {{ names | join(', ') }}
  from {{ new }} as new
  where not exists (select 1 from {{ target }} as old where old.{{ key }} = new.{{ key }});
{% endmacro %}

{# Replace all rows in one transaction: for small tables and for those without a key. #}
{% macro get_incremental_replace_sql(arg_dict) %}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | join(', ') -%}
  delete from {{ arg_dict["target_relation"] }};

  insert into {{ arg_dict["target_relation"] }} ({{ names }})
  select {{ names }} from {{ arg_dict["temp_relation"] }};
{% endmacro %}
