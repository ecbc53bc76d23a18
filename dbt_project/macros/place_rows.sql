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
  One placement per raw action or rule. Rows with a reason are rejected. Of the others with the same id the newest is clean
  and the rest are duplicates: latest loaded_at, then highest load_id, then highest row_hash, so that the same rows always
  give the same answer. A newer version that is rejected therefore does not hide an older one that is valid.
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

{#
  Alerts are placed otherwise: the version loaded FIRST is clean, because its facts were known at the raise, or nearly so.
  Later versions may hold what people learned or decided since, and are duplicates (marts.alert_fact_changes says what they
  changed). Only where a person said that a load is a correction (raw.corrections) its rows win, the newest of them.

  A row that was raised in another second than every version of its alert (the first one and the corrections) is another
  alert with the same id, and is rejected. Seconds, because systems cut fractions off in one export and not in the next.

  The step `ranked` needs only one sort for its three window functions.
#}
{% macro rank_versions() -%}
        row_number() over (partition by {{ version_group() }} order by not is_correction, {{ version_order() }}) as version,
        first_value(second) over (
            partition by {{ version_group() }}, not is_correction order by {{ version_order() }}
        ) as first_second,
        array_agg(second) filter (where is_correction) over (partition by {{ version_group() }}) as corrected_seconds
{%- endmacro %}

{% macro version_group() -%} alert_id collate "C", (reject_reason is null) {%- endmacro %}

{# Of corrections the newest comes first, of all others the oldest; then load_id and row_hash, so that the same rows always
   give the same answer. #}
{% macro version_order() -%}
  case when is_correction then loaded_at end desc nulls last, case when is_correction then load_id end desc nulls last,
  loaded_at nulls first, load_id nulls first, row_hash collate "C"
{%- endmacro %}

{# Whether a row is of a load that a person called a correction. Load numbers of other schemas are not heed's. #}
{% macro is_correction(relation, columns) -%}
  {%- if columns is none or 'load_id' not in columns or relation.schema != 'raw' -%}
    false
  {%- else -%}
    coalesce(src.load_id::bigint in (select load_id from raw.corrections), false)
  {%- endif -%}
{%- endmacro %}
