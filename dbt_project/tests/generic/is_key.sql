{# These columns tell the rows apart, and none of them is ever null: what `unique` and `not_null` ask, in one look at a view
   that is computed anew for each look. `columns`: where one is not enough. #}
{% test is_key(model, column_name=none, columns=none) %}
{%- set names = columns or [column_name] %}
select
    {{ names | join(', ') }},
    count(*) as rows
from {{ model }}
group by {{ names | join(', ') }}
having count(*) > 1 or {{ names | join(' is null or ') }} is null
{% endtest %}
