{# From text to types. The work is done by the functions of functions.sql; here stands what they accept, and why. #}

{#
  A moment, timestamptz. Accepted: ISO 8601 date and time, T or blank between them, seconds and fractions optional,
  followed by Z, UTC, +02, +0200, +02:00 (with or without a blank) or nothing, which means source_time_zone; or epoch
  seconds (10 digits), milliseconds (13), both with or without fractions, microseconds (16) or nanoseconds (19). A date without a time of day is not a moment: read
  as midnight, an action could precede its alert and an outcome be known too early. Dates that no calendar has
  (2025-02-30) are null. Years 1000 to 2999, because beyond them other systems in the chain cannot hold the value.
#}
{% macro read_time(text) -%}
  staging.read_time({{ text }}, '{{ var("source_time_zone") | replace("'", "''") }}')
{%- endmacro %}

{# A moment from a raw column: typed columns pass straight through, all else is read as text. #}
{% macro raw_time(columns, name) -%}
  {%- set types = ['timestamp with time zone', 'timestamp without time zone'] -%}
  {%- if columns is not none and columns.get(name) in types -%}
    {%- set column = 'src.' ~ adapter.quote(name) -%}
    case when {{ column }} >= '1000-01-01' and {{ column }} < '3000-01-01' then {{ column }}
      {%- if columns[name] == types[1] %} at time zone '{{ var("source_time_zone") | replace("'", "''") }}'{% endif %} end
  {%- else -%}
    {{ read_time(raw_text(columns, name)) }}
  {%- endif -%}
{%- endmacro %}

{# A finite double precision number. 'nan', 'inf', thousands separators and anything beyond the range become null. #}
{% macro raw_double(columns, name) -%}
  staging.read_double({{ raw_text(columns, name) }})
{%- endmacro %}

{# true, false or null. #}
{% macro read_boolean(text) -%}
  case
    when lower({{ text }}) in ('true', 't', 'yes', 'y', '1', '1.0') then true
    when lower({{ text }}) in ('false', 'f', 'no', 'n', '0', '0.0') then false
  end
{%- endmacro %}

{# One spelling per action type: "False Positive", "false_positive" and "false-positive" are the same. #}
{% macro read_action_type(text) -%}
  case
    when {{ text }} ~ '[\s_]' then regexp_replace(lower({{ text }}), '[\s_]+', '-', 'g')
    else lower({{ text }})
  end
{%- endmacro %}

{# What makes two spellings of an action type the same word: "Won't Fix", "wont_fix" and "WONTFIX" are one. A type without
   any letter or digit is compared as it is. `dagster_project/resources/inputs/action_types.py` does the same; a test compares the two. #}
{% macro type_key(text) -%}
  coalesce(nullif(translate(lower({{ text }}), E' \t\n\r\f\x0b_-/.,:;!?()[]&''’`"', ''), ''), lower({{ text }}))
{%- endmacro %}
