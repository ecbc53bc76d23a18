{#
  The moment at which outcomes stand, as an SQL expression of type timestamptz: the variable as_of, else the environment's
  HEED_AS_OF (ISO 8601; without a zone it means UTC), else now. heed sets the environment: a variable that differs in every
  run would make dbt parse its whole project in every run.
#}
{% macro as_of() -%}
  {%- set text = (var('as_of', none) or env_var('HEED_AS_OF', '')) | string | trim -%}
  {%- if not text or text | lower in ('none', 'null') -%}
    now()
  {%- else -%}
    {%- set pattern = '^\\d{4}-\\d{2}-\\d{2}([T ]\\d{2}:\\d{2}(:\\d{2}(\\.\\d{1,9})?)?)?( ?(Z|UTC|[+-]\\d{2}(:?\\d{2})?))?$' -%}
    {%- if not modules.re.match(pattern, text) -%}
      {{ exceptions.raise_compiler_error(
        "The variable as_of is '" ~ text ~ "', which is not a moment. Write it like 2025-05-01 or 2025-05-01T06:00:00Z.") }}
    {%- endif -%}
    {%- if modules.re.search('(Z|UTC|[+-]\\d{2}(:?\\d{2})?)$', text[10:]) -%}
      '{{ text }}'::timestamptz
    {%- else -%}
      '{{ text }} UTC'::timestamptz
    {%- endif -%}
  {%- endif -%}
{%- endmacro %}

{# The horizon as an interval of hours, so that a change to summer time in the session's zone does not move it. #}
{% macro horizon() -%}
  make_interval(secs => 86400.0 * {{ var('horizon_days') }})
{%- endmacro %}
