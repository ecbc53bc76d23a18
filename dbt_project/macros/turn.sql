{#
  A run of heed holds its turn by an advisory lock on a session of its own, and says which (HEED_TURN). Each model asks just
  before it commits whether that session still holds it: a run that has lost its turn must not write beside the next one.
  The number is TURN_LOCK of resources/turn.py. dbt that is run by hand has no turn, and is not asked.
#}
{% macro keep_turn() -%}
  {%- set session = env_var('HEED_TURN', '') if execute else '' -%}
  {%- if session %}
    do $turn$
    begin
      if not exists (
        select from pg_locks
        where locktype = 'advisory' and granted and classid = 0 and objid = 1751475558 and pid = {{ session | int }}
          and database = (select oid from pg_database where datname = current_database())
      ) then
        raise exception 'heed lost its turn: the session that held its lock, pid {{ session | int }}, has ended, so another run may have begun';
      end if;
    end
    $turn$
  {%- endif %}
{%- endmacro %}
