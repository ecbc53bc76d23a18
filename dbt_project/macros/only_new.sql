{#
  Cleaning what is new. Before each run heed decides whether the tables were built from the same raw tables, by this project,
  with the same settings and no later as-of (resources/dbt/incremental.py), and says so in HEED_CLEAN. Then a model reads what
  changed since; otherwise, and whenever you run dbt by hand, it reads everything. Both leave the same tables. A test holds
  this over random loads, corrections and deletions.

  PostgreSQL itself says what changed, not a clock: every version of a row has a place (ctid) and the number of the
  transaction that wrote it (xmin). Staging keeps both. A raw row whose pair is not in staging is new, a pair in staging that is
  not in raw is gone, and a corrected row is one of each. That holds without loaded_at, for rows that were committed late
  and for rows that were deleted. It costs a look at the two numbers of each raw row; no text is read.
#}

{# Whether this model reads only what is new. #}
{% macro only_new() %}
  {{ return(run_reads_new() and is_incremental()) }}
{% endmacro %}

{# Whether this run reads only what is new. `execute` comes first: what dbt asks of the environment while it parses makes it
   parse anew when the answer changes. #}
{% macro run_reads_new() %}
  {{ return(execute and env_var('HEED_CLEAN', '') == 'new') }}
{% endmacro %}

{# A post-hook: after 1,000 rows of a million the planner's figures still hold, and autovacuum sees to them. #}
{% macro analyze_after_full_refresh() -%}
  {% if not only_new() and model.config.materialized != 'view' %}analyze (skip_locked) {{ this }}{% endif %}
{%- endmacro %}

{# When this run began: marks the rows that it staged. #}
{% macro this_run() -%}
  '{{ run_started_at.isoformat() }}'::timestamptz
{%- endmacro %}

{# For hooks that create something: dbt takes its role on when it connects, and a rollback before the hooks takes it off again. #}
{% macro as_owner() -%}
  {% if target.role %}set role {{ adapter.quote(target.role) }};{% endif %}
{%- endmacro %}

{# Before anything is built: what the tables were built with is forgotten, until heed says it anew after a run that went
   well. HEED_CLEAN is `publish` where dbt only builds the reporting views. #}
{% macro begin_cleaning() %}
  {% if execute and env_var('HEED_CLEAN', '') != 'publish' %}
    {{ as_owner() }}
    create unlogged table if not exists staging.touched (day date, since timestamptz);
    comment on table staging.touched is 'What the last run wrote or took away: the days of the alerts, and the first moments at which that could be known.';
    delete from staging.touched;
    {# ALTER TABLE takes its lock before it looks whether the columns exist, and would wait for readers in each run. #}
    do $built_with$
    begin
      create unlogged table if not exists staging.built_with (fingerprint text, as_of timestamptz, written_by bigint, built text);
      if not exists (select from pg_attribute where attrelid = to_regclass('staging.built_with') and attname = 'built') then
        alter table staging.built_with add column if not exists written_by bigint, add column if not exists built text;
      end if;
    end
    $built_with$;
    comment on table staging.built_with is 'What the clean tables were built with. Empty: nobody knows, and the next run reads everything.';
    delete from staging.built_with;
  {% endif %}
{% endmacro %}

{#
  The raw rows that a staging model reads, as a FROM item named src, with where each one stands (heed_place, heed_version) and
  the row itself (heed_row). `id`: the id's column. `more`: a query of staged places that must be read again for another reason.
  To be used after `changes`, which it reads.
#}
{% macro rows_to_stage(relation, columns) -%}
  {%- if columns is none -%}
    (select raw.*, null::tid as heed_place, null::xid as heed_version, raw::text as heed_row from {{ relation }} as raw)
  {%- elif not is_plain_table(relation) -%}
    (select raw.*, null::tid as heed_place, null::xid as heed_version, raw::text as heed_row from {{ relation }} as raw)
  {%- elif only_new() -%}
    (
      select raw.*, raw.ctid as heed_place, raw.xmin as heed_version, raw::text as heed_row
      from {{ relation }} as raw
      where raw.ctid = any(array(select place from to_read))
    )
  {%- else -%}
    (select raw.*, raw.ctid as heed_place, raw.xmin as heed_version, raw::text as heed_row from {{ relation }} as raw)
  {%- endif -%}
{%- endmacro %}

{# Whether rows of this relation have a place: a table of its own, not a view, not made of parts. #}
{% macro is_plain_table(relation) %}
  {% if not execute %}{{ return(true) }}{% endif %}
  {% set found = run_query("select relkind = 'r' and not relhassubclass from pg_class where oid = to_regclass('" ~ relation.render() | replace("'", "''") ~ "')") %}
  {{ return(found.rows | length > 0 and found.rows[0][0]) }}
{% endmacro %}

{# The steps before `read` where only new rows are staged: what is present, fresh and gone, and which raw rows to read. #}
{% macro changes(relation, columns, id, again='') -%}
present as materialized (
    select
        ctid as place,
        xmin as version
    from {{ relation }}
),

compared as materialized (
    select
        present.place,
        present.version,
        staged.raw_place,
        staged.raw_version,
        staged.{{ id }}
    from present
    full join (select * from {{ this }} where placement <> 'gone') as staged
        on staged.raw_place = present.place and staged.raw_version = present.version
    where present.place is null or staged.raw_place is null
),

fresh as (
    select nullif(btrim(raw.{{ adapter.quote(id) }}::text, E' \t\r\n\f\x0b'), '') as id
    from {{ relation }} as raw
    where raw.ctid = any(array(select place from compared where raw_place is null))
),

-- All versions of an id are placed together.
ids as materialized (
    select id from fresh where id is not null
    union
    select {{ id }} from compared where place is null and {{ id }} is not null
    union
    -- Whether such a time lies in the future is asked of the clock.
    select {{ id }} from {{ this }} where reject_reason = {{ reason('time_in_future') }} and loaded_at is null and {{ id }} is not null
    {% if again %}
    union
    {{ again }}
    {% endif %}
),

to_read as materialized (
    select place from compared where raw_place is null
    union
    select staged.raw_place
    from {{ this }} as staged
    inner join ids on ids.id = staged.{{ id }}
    where
        staged.placement <> 'gone'
        and not exists (
            select 1 from compared
            where compared.place is null and compared.raw_place = staged.raw_place and compared.raw_version = staged.raw_version
        )
),
{%- endmacro %}

{# The number of raw rows in the snapshot that this statement sees; see count_raw_rows. #}
{% macro staged_columns(raw, columns) -%}
    heed_place as raw_place,
    heed_version as raw_version,
    {{ this_run() }} as staged_at,
    {% if only_new() and is_plain_table(raw) -%}
    (select count(*) from present) as raw_rows
    {%- else -%}
    {{ count_raw_rows(raw, columns) }}
    {%- endif %}
{%- endmacro %}

{# The strategy of staging: what was read replaces what stood, rows that are gone stay as a note until the next change. #}
{% macro get_incremental_restage_sql(arg_dict) %}
  {%- set target = arg_dict["target_relation"] -%}
  {%- set new = arg_dict["temp_relation"] -%}
  {%- set names = arg_dict["dest_columns"] | map(attribute="quoted") | join(', ') -%}
  {% if only_new() %}
    analyze {{ new }};
    delete from {{ target }} as old
    using {{ new }} as new
    where old.raw_place = new.raw_place and old.raw_version = new.raw_version;
    delete from {{ target }} where placement = 'gone' and exists (select 1 from {{ new }});
  {% else %}
    {{ empty_table(target) }}
  {% endif %}
  insert into {{ target }} ({{ names }}) select {{ names }} from {{ new }};
{% endmacro %}

{# Where only new rows were cleaned, tests look at those: the others were looked at when they were new. #}
{% macro get_where_subquery(relation) -%}
  {%- set those = {
      'alerts': 'alert_id in (select alert_id from staging.changed_alerts)',
      'actions': 'action_id in (select action_id from staging.changed_actions)',
      'alert_outcomes': 'alert_id in (select alert_id from staging.changed_alerts union select alert_id from staging.changed_actions)',
      'stg_alerts': 'staged_at = ' ~ this_run(),
      'stg_actions': 'staged_at = ' ~ this_run(),
      'daily_alert_volume': 'day in (select day from staging.touched)',
  } -%}
  {%- if run_reads_new() and relation.schema in ('marts', 'staging') and relation.identifier in those and not config.get('where') -%}
    {% do return('(select * from ' ~ relation ~ ' where ' ~ those[relation.identifier] ~ ') dbt_subquery') %}
  {%- endif -%}
  {% do return(default__get_where_subquery(relation)) %}
{%- endmacro %}

