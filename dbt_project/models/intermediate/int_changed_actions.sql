{{ config(alias='changed_actions') }}

-- The actions whose row in marts.actions may differ from before this run, with every alert that they belong or belonged to;
-- none where everything is read. See only_new.sql.
select distinct
    action_id,
    alert_id
from {{ ref('stg_actions') }}
where {% if run_reads_new() -%} staged_at = {{ this_run() }} and action_id is not null {%- else -%} false {%- endif %}
