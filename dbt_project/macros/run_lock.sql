{#
  A run of heed holds the run lock, an advisory lock on a session of its own, and names that session in HEED_RUN_LOCK.
  Each model asks just before it commits whether that session still holds it: a run that has lost the lock must not
  write while the next one does. The number is RUN_LOCK of resources/warehouse/locks.py. When you run dbt by hand,
  HEED_RUN_LOCK is not set and nothing is asked.
#}
{% macro require_run_lock() -%}
  {%- set session = env_var('HEED_RUN_LOCK', '') if execute else '' -%}
  {%- if session %}
    do $run_lock$
    begin
      if not exists (
        select from pg_locks
        where locktype = 'advisory' and granted and classid = 0 and objid = 1751475558 and pid = {{ session | int }}
          and database = (select oid from pg_database where datname = current_database())
      ) then
        raise exception 'heed lost the run lock: the session that held it, pid {{ session | int }}, has ended, so another run may have begun';
      end if;
    end
    $run_lock$
  {%- endif %}
{%- endmacro %}
