{#
  Building without getting in the way of readers. A transaction that has read a relation holds a lock on it until it ends,
  and so does pg_dump on everything. Only ACCESS EXCLUSIVE conflicts with that lock: a statement that asks for it waits for
  the reader, and every later reader queues behind it. So in an ordinary run no statement asks for it: views that are
  the same stay, tables are emptied by DELETE (or TRUNCATE where nobody holds them), comments and indexes that stand are not
  written again. A view that has to change asks for its lock for one second at a time, and names who keeps it.
#}

{# dbt's own `view` always creates a new view, swaps the names and drops the old one. This one does so where the
   definition differs. PostgreSQL itself compares: it prints the standing view and a temporary one made of today's SQL. #}
{% materialization view, adapter='postgres' %}
  {%- set target = this.incorporate(type='view') -%}
  {%- set known = load_cached_relation(this) -%}
  {%- set probe = api.Relation.create(schema='pg_temp', identifier=this.identifier ~ '__probe', type='view') -%}
  {% if known is none or not known.is_view %}
    {{ return(dbt.materialization_view_default()) }}
  {% endif %}

  {% call statement('main') %}
    {{ get_create_view_as_sql(probe, sql) }}
  {% endcall %}
  {%- set same = run_query(
      "select pg_get_viewdef(to_regclass('" ~ probe ~ "')) is not distinct from pg_get_viewdef(to_regclass('" ~ target ~ "'))"
  ).rows[0][0] -%}
  {% do run_query('drop view ' ~ probe) %}
  {% if not same %}
    {% do take_from_readers(target) %}
    {{ return(dbt.materialization_view_default()) }}
  {% endif %}

  {{ run_hooks(pre_hooks) }}
  {% do apply_grants(target, config.get('grants'), should_revoke=false) %}
  {% do persist_docs(target, model) %}
  {{ run_hooks(post_hooks) }}
  {{ adapter.commit() }}
  {{ return({'relations': [target]}) }}
{% endmaterialization %}

{# dbt drops the table of a test that stores its failures, and makes a new one. This one replaces its rows. #}
{% materialization test, adapter='postgres' %}
  {%- set standing = adapter.get_relation(database=database, schema=schema, identifier=model['alias']) if should_store_failures() else none -%}
  {% if standing is none or not standing.is_table or not has_columns_of(standing, sql) %}
    {{ return(dbt.materialization_test_default()) }}
  {% endif %}
  {% call statement(auto_begin=True) %}
    delete from {{ standing }};
    insert into {{ standing }} {{ get_limit_subquery_sql(sql, config.get('limit')) }};
  {% endcall %}
  {{ adapter.commit() }}
  {% call statement('main', fetch_result=True) %}
    {{ get_test_sql('select * from ' ~ standing, config.get('fail_calc'), config.get('warn_if'), config.get('error_if'), limit=none) }}
  {% endcall %}
  {{ return({'relations': [standing]}) }}
{% endmaterialization %}

{# Whether a relation has just the columns that a query gives, in their order and with their types. #}
{% macro has_columns_of(relation, sql) %}
  {%- set probe = api.Relation.create(schema='pg_temp', identifier=relation.identifier ~ '__probe', type='view') -%}
  {% do run_query('create view ' ~ probe ~ ' as (' ~ sql ~ ')') %}
  {%- set columns = "(select array_agg(attname || ' ' || format_type(atttypid, atttypmod) order by attnum) from pg_attribute where attnum > 0 and not attisdropped and attrelid = to_regclass('" -%}
  {%- set same = run_query('select ' ~ columns ~ probe ~ "')) = " ~ columns ~ relation ~ "'))").rows[0][0] -%}
  {% do run_query('drop view ' ~ probe) %}
  {{ return(same) }}
{% endmacro %}

{# Take the lock under which a view is replaced. Each attempt waits one second, so that no reader queues for longer;
   `reader_patience` seconds later it gives up and names the sessions that hold the view. OWNER TO the present owner changes
   nothing, and takes that lock on this view alone, which LOCK TABLE would take on the tables beneath it as well. #}
{% macro take_from_readers(relation) %}
  {% call statement('take') %}
    do $take$
    declare
      ends timestamptz := clock_timestamp() + make_interval(secs => {{ var('reader_patience') }});
      owner text := (select pg_get_userbyid(relowner) from pg_class where oid = to_regclass('{{ relation }}'));
      keepers text;
    begin
      loop
        begin
          set local lock_timeout to '1s';
          execute format('alter view {{ relation }} owner to %I', owner);
          exit;
        exception when lock_not_available then
          if clock_timestamp() > ends then
            -- The login may see more of other sessions than the role that owns what dbt builds.
            reset role;
            select string_agg(format(
              'pid %s (user %s, application %s%s)', activity.pid, coalesce(activity.usename, 'unknown'),
              coalesce(nullif(activity.application_name, ''), 'unnamed'),
              coalesce(', ' || activity.state || ' since ' || to_char(activity.xact_start at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', '')
            ), '; ' order by activity.xact_start)
            into keepers
            from pg_locks as held
            inner join pg_stat_activity as activity on activity.pid = held.pid
            where
              held.granted
              and held.relation = to_regclass('{{ relation }}')
              and held.pid <> pg_backend_pid();
            raise exception 'heed cannot replace {{ relation.schema }}.{{ relation.identifier }}, whose definition has changed: it is held by %', coalesce(keepers, 'a session that has just ended')
              using errcode = 'lock_not_available';
          end if;
          perform pg_sleep(1);
        end;
      end loop;
      set local lock_timeout to '{{ var('lock_timeout') }}';
    end
    $take$;
  {% endcall %}
{% endmacro %}

{# Empty a table: by TRUNCATE where nobody holds it at this moment, else by DELETE, which waits for no reader. #}
{% macro empty_table(relation) -%}
  do $empty$
  begin
    lock table {{ relation }} in access exclusive mode nowait;
    truncate {{ relation }};
  exception when lock_not_available then
    delete from {{ relation }};
  end
  $empty$;
{%- endmacro %}

{# dbt truncates the tables of seeds. #}
{% macro postgres__reset_csv_table(model, full_refresh, old_relation, agate_table) %}
  {% if full_refresh %}
    {{ return(default__reset_csv_table(model, full_refresh, old_relation, agate_table)) }}
  {% endif %}
  {% set emptying = empty_table(old_relation) %}
  {% call statement('empty') %}{{ emptying }}{% endcall %}
  {{ return(emptying) }}
{% endmacro %}

{# Comments are written where they differ: COMMENT waits for a VACUUM, and dbt would write all of them in each run. #}
{% macro postgres__persist_docs(relation, model, for_relation, for_columns) %}
  {% set standing = {} %}
  {% for row in run_query(
      "select coalesce(attname, '')::text, description from pg_description left join pg_attribute on attrelid = objoid and attnum = objsubid and objsubid > 0 "
      ~ "where classoid = 'pg_class'::regclass and objoid = to_regclass('" ~ relation ~ "')"
  ).rows %}
    {% do standing.update({row[0]: row[1]}) %}
  {% endfor %}
  {% set wanted = {'': model.description} if for_relation and config.persist_relation_docs() and model.description else {} %}
  {% if for_columns and config.persist_column_docs() %}
    {% for name, column in model.columns.items() if column.description %}
      {% do wanted.update({name: column.description}) %}
    {% endfor %}
  {% endif %}
  {% for name, text in wanted.items() if standing.get(name) != text %}
    {% if loop.first %}{% do default__persist_docs(relation, model, for_relation, for_columns) %}{% endif %}
  {% endfor %}
{% endmacro %}

{# For hooks: an index beyond what dbt's `indexes` can say, made where it is missing. CREATE INDEX IF NOT EXISTS takes its
   lock before it looks. #}
{% macro index_once(name, what) -%}
  {% if execute and run_query("select to_regclass('" ~ this.schema ~ "." ~ name ~ "') is null").rows[0][0] %}
    create index if not exists {{ name }} on {{ this }} {{ what }}
  {% endif %}
{%- endmacro %}
