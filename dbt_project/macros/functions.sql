{#
  Readers of text: three functions in the staging schema that turn text into a typed value, or into null where the text
  is not what it should be. None of them can raise. They are functions, not expressions, because each looks at its text
  several times, and PostgreSQL would trim and match it again for every mention.

  PostgreSQL 15 cannot ask whether a text can be cast. read_time and read_double decide by pattern before they cast, so
  that they need no exception handler: a handler costs a subtransaction per row and forbids parallel plans. read_object
  needs one. Digits are written [0-9], because \d also matches digits of other scripts, which a cast refuses. The first
  pattern of each is the short and frequent one: PostgreSQL pays for a pattern's states on every row.

  The advisory lock lets two dbt runs start at the same moment: without it the second `create or replace` fails with
  "tuple concurrently updated".
#}
{% macro create_functions() %}
{{ as_owner() }}
do $do$
begin
  perform pg_advisory_xact_lock(hashtext('heed: staging functions'));

  -- `if not exists` would ask for the right to create schemas even where it does.
  if to_regnamespace('staging') is null then
    create schema staging;
  end if;

  create or replace function staging.read_time(value text, zone text) returns timestamptz
  language plpgsql stable strict parallel safe as $body$
  declare
    has_zone boolean;
  begin
    if value ~ '^[12][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-5][0-9]Z$' then
      has_zone := true;
    elsif value ~ '^[12][0-9]{3}-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)?(?: ?(?:Z|z|UTC|[-+](?:0[0-9]|1[0-5])(?::?[0-5][0-9])?))?$' then
      has_zone := substr(value, 11) ~ '[ZzC+-]';
    elsif value ~ '^[0-9]{10}(?:[.][0-9]{1,9})?$' then
      return to_timestamp(value::double precision);
    elsif value ~ '^[0-9]{13}(?:[.][0-9]{1,6})?$' then
      return to_timestamp(value::double precision / 1000);
    elsif value ~ '^[0-9]{16}(?:[.]0)?$' then
      return to_timestamp(value::double precision / 1000000);
    elsif value ~ '^[0-9]{19}$' then
      return to_timestamp(value::double precision / 1000000000);
    else
      return null;
    end if;
    -- Only a day that the calendar has, and hours 00 to 23.
    if substr(value, 6, 2) not between '01' and '12' or substr(value, 9, 2) not between '01' and '31'
        or substr(value, 12, 2) > '23' then
      return null;
    end if;
    if substr(value, 9, 2) > '28' and substr(value, 9, 2)::int
        > extract(day from make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1) + interval '1 month' - interval '1 day')
        then
      return null;
    end if;
    if has_zone then
      return value::timestamptz;
    end if;
    return value::timestamp at time zone zone;
  end
  $body$;

  create or replace function staging.read_double(value text) returns double precision
  language plpgsql immutable strict parallel safe as $body$
  declare
    exact numeric;
  begin
    if octet_length(value) <= 40 and value ~ '^[-+]?[0-9]+[.]?[0-9]*$' then
      return value::double precision;
    end if;
    -- By way of numeric, which holds what double precision raises on. 400 characters are beyond any real number.
    if octet_length(value) <= 400
        and value ~ '^[-+]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][-+]?[0-9]{1,3})?$' then
      exact := value::numeric;
      if exact = 0 or abs(exact) between 1e-300 and 1e308 then
        return exact::double precision;
      end if;
    end if;
    return null;
  end
  $body$;

  create or replace function staging.read_object(value text) returns jsonb
  language plpgsql immutable strict as $body$
  declare
    parsed jsonb;
  begin
    parsed := value::jsonb;
    if jsonb_typeof(parsed) = 'object' then
      return parsed;
    end if;
    return null;
  exception when others then  -- not JSON, a null character, numbers beyond numeric's range, nesting beyond the stack
    return null;
  end
  $body$;

  comment on function staging.read_time(text, text) is
    'The moment in a text, or null. Accepted: see the macro read_time. The second argument is the zone of texts without one.';
  comment on function staging.read_double(text) is 'The finite number in a text, or null.';
  comment on function staging.read_object(text) is 'The JSON object in a text, or null.';
end
$do$;
{% endmacro %}
