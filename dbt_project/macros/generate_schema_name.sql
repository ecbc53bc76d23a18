{#
  Schemas carry exactly the name that the project gives them (staging, marts, reporting). dbt's own default would
  prefix them with the target's schema, and then Python could not know where to read.
#}
{% macro generate_schema_name(custom_schema_name, node) -%}
  {{ (custom_schema_name or target.schema) | trim }}
{%- endmacro %}
