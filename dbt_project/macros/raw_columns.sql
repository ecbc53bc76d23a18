{#
  What a raw table offers. Users may point the sources at tables of their own: typed or text, with or without the
  optional columns. Everything is read through raw_text(), so that one set of readers serves both.
#}

{# Column name -> data type of a raw relation. None while parsing and in unit tests: there every column of the
   contract counts as present, and as text. Raises where a required column or a required table is missing. #}
{% macro raw_columns(relation, required, optional_table=false) %}
  {% if not execute or relation.is_cte %}
    {{ return(none) }}
  {% endif %}
  {% set columns = {} %}
  {% for column in adapter.get_columns_in_relation(relation) %}
    {% do columns.update({column.name: column.data_type | lower}) %}
  {% endfor %}
  {% if not columns and optional_table %}
    {{ return(columns) }}
  {% endif %}
  {% if not columns %}
    {{ exceptions.raise_compiler_error(
      "There is no table " ~ relation.schema ~ "." ~ relation.identifier
      ~ ". Load alerts first, or point the variables raw_schema and raw_alerts, raw_actions at your own tables.") }}
  {% endif %}
  {% for name in required if name not in columns %}
    {{ exceptions.raise_compiler_error(
      "The table " ~ relation.schema ~ "." ~ relation.identifier ~ " has no column " ~ name
      ~ "; it has " ~ (columns.keys() | join(", ")) ~ ". Rename the column, or put a view with that name before it.") }}
  {% endfor %}
  {{ return(columns) }}
{% endmacro %}

{# A raw table as a FROM item named src, or an empty one where an optional table is absent. #}
{% macro raw_rows(relation, columns) -%}
  {%- if columns is not none and not columns -%}
    (select where false)
  {%- else -%}
    (select * from {{ relation }})
  {%- endif -%}
{%- endmacro %}

{# The same with the whole row as text beside its columns, which stands for its content where it has no hash. #}
{% macro rows_to_read(relation, columns) -%}
  {%- if columns is not none and not columns -%}
    (select null::text as heed_row where false)
  {%- else -%}
    (select raw.*, raw::text as heed_row from {{ relation }} as raw)
  {%- endif -%}
{%- endmacro %}

{# One column as trimmed text; empty and absent both become null. The vertical tab is written \x0b: before PostgreSQL 16
   \v means the letter v. #}
{% macro raw_text(columns, name) -%}
  {%- if columns is none or name in columns -%}
    nullif(btrim(src.{{ adapter.quote(name) }}::text, E' \t\r\n\f\x0b'), '')
  {%- else -%}
    null::text
  {%- endif -%}
{%- endmacro %}

{# The hash that settles the order of otherwise equal versions of a row. #}
{% macro raw_hash(columns) -%}
  {%- if columns is none or 'row_hash' in columns -%}
    coalesce(src.row_hash::text, md5(src.heed_row))
  {%- else -%}
    md5(src.heed_row)
  {%- endif -%}
{%- endmacro %}

{# The number of the load that brought a row; null in tables that heed did not load. #}
{% macro raw_load_id(columns) -%}
  {%- if columns is none or 'load_id' in columns -%} src.load_id::bigint {%- else -%} null::bigint {%- endif -%}
{%- endmacro %}
