{#
  Staging models have three steps, and their order is a matter of speed as well: `read` turns each raw column into text
  and types, each once; `judged` names a reason where the row cannot be used; `place_rows` says where the row goes. The
  window function of `read` keeps the planner from folding the steps into one, where every text would be read again for
  every mention; what is below it may run in parallel, and its sort serves the last step too.
#}

{# The column that ends the step `read`: how many raw rows carry this id. #}
{% macro count_versions(id) -%}
  count(*) over (partition by ({{ id }}) collate "C") as versions
{%- endmacro %}

{# The raw row's columns as loaded (trimmed, without nulls), where the row is rejected. `names`: column of the raw table
   -> column of the step `read`. #}
{% macro rejected_content(names) -%}
  case when reject_reason is not null then
    jsonb_strip_nulls(jsonb_build_object(
      {%- for name, column in names.items() %}'{{ name }}', {{ column }}{{ ", " if not loop.last }}{% endfor -%}
    ))
  end
{%- endmacro %}

{#
  One placement per raw row. Rows with a reason are rejected. Of the others with the same id the newest is clean and the
  rest are duplicates: latest loaded_at, then highest load_id, then highest row_hash, so that the same rows always give
  the same answer. A newer version that is rejected therefore does not hide an older one that is valid.
#}
{% macro place_rows(id) -%}
  case
    when reject_reason is not null then 'rejected'
    when versions = 1 then 'clean'
    when row_number() over (
      partition by {{ id }} collate "C", (reject_reason is null)
      order by loaded_at desc nulls last, load_id desc nulls last, row_hash collate "C" desc
    ) = 1 then 'clean'
    else 'duplicate'
  end as placement
{%- endmacro %}

{# The number of raw rows in the snapshot that this statement sees. The reconciliation compares with it, so that rows
   loaded while dbt runs do not look like rows lost. #}
{% macro count_raw_rows(raw, columns) -%}
  (select count(*) from {{ raw_rows(raw, columns) }} as counted) as raw_rows
{%- endmacro %}
