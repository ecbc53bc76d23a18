{{ config(alias='changed_outcomes') }}

-- The alerts whose outcome may differ from before this run because they or their actions changed; none where everything is
-- read. Those for which only time has passed are found by the model itself. See only_new.sql.
select alert_id from {{ ref('int_changed_alerts') }}
union
select alert_id from {{ ref('int_changed_actions') }}
where alert_id is not null
