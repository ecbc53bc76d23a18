{#
  Why a raw row does not become a clean one. The only place where the words stand: staging uses them, and the accepted
  values of marts.rejected_rows are tested against them.

  An id longer than 1000 bytes is refused because PostgreSQL cannot index more than about 2700, and an id that long is
  a mistake in a mapping.
#}
{% macro reject_reasons() %}
  {{ return({
    'no_id': 'the id is missing',
    'id_too_long': 'the id is longer than 1000 bytes',
    'no_rule': 'the rule is missing',
    'no_time': 'the time is missing',
    'time_unreadable': 'the time cannot be read',
    'time_in_future': 'the time lies more than a day after the row was loaded',
    'time_too_early': 'the time lies before the earliest that can be true',
    'other_alert': 'the id belongs to another alert (raised at another time)',
    'no_alert_id': 'the alert id is missing',
    'no_type': 'the action type is missing',
    'unknown_alert': 'the alert is not known',
    'before_alert': 'the action lies before its alert',
    'ambiguous_alert': 'the id of its alert belongs to several alerts',
  }) }}
{% endmacro %}

{# One reason as an SQL literal. #}
{% macro reason(name) -%}
  '{{ reject_reasons()[name] }}'
{%- endmacro %}

{% macro id_is_too_long(text) -%} octet_length({{ text }}) > 1000 {%- endmacro %}

{# A row cannot tell of something that happened after it was loaded. One day of tolerance covers times that were written
   without their zone (at most 14 hours) and clocks that differ. The year 2100 holds where `loaded_at` itself is wrong. #}
{% macro is_future(time, loaded_at) -%}
  {{ time }} > least(coalesce({{ loaded_at }}, now()) + interval '24 hours', '2100-01-01T00:00:00Z')
{%- endmacro %}

{# Placeholders (1970-01-01, 1900-01-01) and misread units lie decades before the rest. The suites in `expectations/` stop a
   run at times outside 2000 to 2100: the variable may be later, not earlier. #}
{% macro is_too_early(time) -%}
  {{ time }} < '{{ var("earliest") }}'::timestamp at time zone 'UTC'
{%- endmacro %}

{# Nothing that can be seen. Trimming takes the blanks of ASCII; these are all the others (spreadsheets and web pages write
   U+00A0). The suites in `expectations/` stop a run at an id or a rule that is blank. #}
{% macro is_blank(text) -%}
  {{ text }} ~ '^[\s\x1c-\x1f\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$'
{%- endmacro %}
