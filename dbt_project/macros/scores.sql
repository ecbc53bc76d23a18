{#
  What the reporting views share, so that "the first score", "known" and "log-loss" mean one thing.
#}

{# The first score of each alert with its outcome as now known: what the alert's readers saw when it was young. Later
   scores of the same alert may know more and would flatter the model. Of alerts that were decided to be closed nobody
   knows what would have become of them: their outcome is unknown here. #}
{% macro first_scores() -%}
    select
        scores.alert_id,
        scores.raised_at,
        scores.probability,
        scores.flood or scores.visibility_only as is_flagged,
        alerts.team,
        case when closed.alert_id is null then outcomes.known_at end as known_at,
        outcomes.horizon_ends_at,
        case when closed.alert_id is null then (outcomes.outcome = 'acted')::int::double precision end as acted
    from (
        select distinct on (alert_id) *
        from {{ source('scoring', 'alert_scores') }}
        order by alert_id, as_of, scored_at
    ) as scores
    inner join {{ ref('alerts') }} as alerts on alerts.alert_id = scores.alert_id
    inner join {{ ref('alert_outcomes') }} as outcomes on outcomes.alert_id = scores.alert_id
    left join {{ source('scoring', 'autoclose_decisions') }} as closed
        on closed.alert_id = scores.alert_id and closed.decision = 'close' and closed.mode = 'on'
{%- endmacro %}

{# Log-loss of one score. Probabilities of exactly 0 or 1 are read as one in a million away from them: a single
   certain mistake would otherwise make every mean infinite. #}
{% macro log_loss(acted, probability) -%}
  -ln(greatest(1e-6, case when {{ acted }} = 1 then {{ probability }} else 1 - {{ probability }} end))
{%- endmacro %}

{# Log-loss of the constant that knew the acted share in advance; null when all outcomes are the same. #}
{% macro base_rate_log_loss(share) -%}
  case when {{ share }} > 0 and {{ share }} < 1
    then -({{ share }} * ln({{ share }}) + (1 - {{ share }}) * ln(1 - {{ share }})) end
{%- endmacro %}

{# Below this many known outcomes a metric is null: 50 outcomes leave a share of one half uncertain by 14 points. #}
{% macro minimum_known() -%} 50 {%- endmacro %}

{# No score is shown: the alert is held out at random, and its outcome is not known yet. Once it is known, a score can no
   longer change it. Wants the tables `holdout` (left joined) and `outcomes`. #}
{% macro is_hidden() -%}
  (holdout.arm is not distinct from 'held out' and outcomes.outcome is null)
{%- endmacro %}

{% macro holdout_reason() -%}
  '["no score is shown for this alert: it was drawn at random, to measure what scores change"]'::jsonb
{%- endmacro %}

{# The 97.5% point of the normal distribution. #}
{% macro z95() -%} 1.959964 {%- endmacro %}

{# One end of Wilson's 95% interval of a share (1927): `side` is + or -. Two of them make Newcombe's interval of a
   difference (Statistics in Medicine 1998, method 10). #}
{% macro wilson(share, n, side) -%}
  ({{ share }} + {{ z95() }} ^ 2 / (2 * nullif({{ n }}, 0)) {{ side }} {{ z95() }} * sqrt(greatest(0,
    {{ share }} * (1 - {{ share }}) / nullif({{ n }}, 0) + {{ z95() }} ^ 2 / (4 * nullif({{ n }}, 0)::double precision ^ 2))))
  / (1 + {{ z95() }} ^ 2 / nullif({{ n }}, 0))
{%- endmacro %}

{# The moment for which the chance now is given. It moves with the clock while runs publish and stops an hour after the
   newest publication: "still undecided" is known only as far as actions were loaded, and without that stop an outage of
   a day would make every alert look as if nobody were going to act. #}
{% macro reading_moment() -%}
    select least(now(), coalesce(max(as_of) + interval '1 hour', now())) as read_at
    from {{ source('scoring', 'publications') }}
{%- endmacro %}

{# The chance now from the chance at the raise: `chance_now` of triage/learning/time_to_decision.py, operation by
   operation, so that both give the same number to the last bit. Never simplify it. #}
{% macro chance_now(p, a, b, c) -%}
  case when {{ p }} >= 1 then 1 else
    ({{ a }} * sqrt({{ p }} * (1 - {{ p }})) + {{ b }} * {{ p }}
      + {{ c }} * {{ p }} * sqrt({{ p }} * (1 - {{ p }})) / (1 - {{ p }}))
    / (({{ a }} * sqrt({{ p }} * (1 - {{ p }})) + {{ b }} * {{ p }}
      + {{ c }} * {{ p }} * sqrt({{ p }} * (1 - {{ p }})) / (1 - {{ p }})) + (1 - {{ p }}))
  end
{%- endmacro %}

{# A share as people say it: 23%, 0.4%, under 0.1%; as `share` of triage/learning/reasons/words.py. #}
{% macro share_words(share) -%}
  case
    when {{ share }} > 0 and {{ share }} < 0.001 then 'under 0.1%'
    when {{ share }} > 0.999 and {{ share }} < 1 then 'over 99.9%'
    when ({{ share }} > 0 and {{ share }} < 0.01) or ({{ share }} > 0.99 and {{ share }} < 1)
      then to_char(100 * {{ share }}, 'FM90.0') || '%'
    else round(100 * {{ share }}) || '%'
  end
{%- endmacro %}

{# The reason that the clock gives: how long nobody has decided, and the share of such alerts that is still acted on. Null
   where that moved the chance by less than 0.3 log-odds (a factor of 0.74), as `LEAST_EFFECT` of the other reasons. #}
{% macro age_reason(now, at_raise, age) -%}
  case
    when {{ age }} >= 120 and not ({{ now }} * (1 - {{ at_raise }}) between
      0.74 * {{ at_raise }} * (1 - {{ now }}) and {{ at_raise }} * (1 - {{ now }}) / 0.74)
    then 'nobody has decided it for ' || case
        when {{ age }} >= 172800 then round({{ age }} / 86400) || ' days'
        when {{ age }} >= 7200 then round({{ age }} / 3600) || ' hours'
        else round({{ age }} / 60) || ' minutes' end
      || ': of such alerts ' || {{ share_words(now) }} || ' are still acted on (' || {{ share_words(at_raise) }}
      || ' when it was raised)'
  end
{%- endmacro %}
