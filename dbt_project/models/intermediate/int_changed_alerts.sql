{# Only while dbt parses: unit tests need not provide it. #}
{% if not execute %}-- depends_on: {{ ref('int_spellings') }}{% endif %}
{{ config(alias='changed_alerts') }}

-- The alerts whose row in marts.alerts may differ from before this run; none where everything is read. See only_new.sql.
{% if run_reads_new() -%}
select alert_id
from {{ ref('stg_alerts') }}
where staged_at = {{ this_run() }} and alert_id is not null
union
select alerts.alert_id
from {{ ref('stg_alerts') }} as alerts
inner join {{ ref('int_spellings') }} as spellings
    on (spellings.kind = 'rule' and spellings.spelling = alerts.rule)
    or (spellings.kind = 'team' and spellings.spelling = alerts.team)
where alerts.placement = 'clean' and spellings.canonical_before <> spellings.canonical
{%- else -%}
select alert_id from {{ ref('stg_alerts') }} where false
{%- endif %}
