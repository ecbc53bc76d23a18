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
    'no_alert_id': 'the alert id is missing',
    'no_type': 'the action type is missing',
    'unknown_alert': 'the alert is not known',
    'before_alert': 'the action lies before its alert',
  }) }}
{% endmacro %}

{# One reason as an SQL literal. #}
{% macro reason(name) -%}
  '{{ reject_reasons()[name] }}'
{%- endmacro %}

{% macro id_is_too_long(text) -%} octet_length({{ text }}) > 1000 {%- endmacro %}

{# A row cannot tell of something that happened after it was loaded. One day of tolerance covers times that were written
   without their zone (at most 14 hours) and clocks that differ. #}
{% macro is_future(time, loaded_at) -%}
  {{ time }} > coalesce({{ loaded_at }}, now()) + interval '24 hours'
{%- endmacro %}
