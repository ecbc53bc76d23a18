"""Floods: bursts of alerts that a bug produced, detected by volume on the day and judged by the acted share later.

Belongs here: what makes a volume unexpected (`detect_floods`), what confirms or clears a flood, and how people
overrule both. Pure functions on frames.
Does not belong here: what a flag excludes (`exclusion`), rules nobody acts on
(`visibility`), tables and settings files.

Words. A *scope* is what flooded on one UTC day: one rule; or many rules at once that share a team, an
attribute (*source*) or nothing (*all*). A scope of many rules holds only those of its rules that are busier
than usual themselves, so genuine alerts of other rules on that day are not flagged.

Time. Everything about a day's band comes from earlier days. A flood is *suspected* at `detected_at`, when
the running count of the day passes the band, and *confirmed* or *cleared* at `decided_at`, when enough outcomes
are known. Where people acted on too many earlier bursts (`record.py`), none is suspected; those that turn out to be
bugs are still confirmed. So one pass over a long history contains every past view:
`exclusion.known_by(floods, T)` equals `detect_floods(history, T)` (only `volume` and `score` still
grow during the day itself).

Method. Counts are compared on the square-root scale, where Poisson noise is constant (Anscombe 1948), by
median and median absolute deviation over the last eight weeks (Hampel 1974), with a weekday profile that
borrows from the whole company; a negative-binomial predictive tail guards the band where data are few.
Whether the burst was a bug is a Bayes factor between "only the usual alerts are acted on" and "acted on as
usual or more", both Beta-Binomial.
"""

from dagster_project.triage.flags.floods.detection import FLOOD_COLUMNS, daily_band, detect_floods
from dagster_project.triage.flags.floods.history import (
    DAY,
    NEVER,
    FloodSettings,
    as_of_us,
    codes_of,
    from_us,
    positions_in,
    to_us,
)
from dagster_project.triage.flags.floods.members import (
    flood_intervals,
    flood_pairs,
    membership_of,
    membership_text,
    rules_in,
)
from dagster_project.triage.flags.floods.overrides import Override, read_overrides
from dagster_project.triage.flags.floods.sources import needed_columns

__all__ = [
    "DAY",
    "FLOOD_COLUMNS",
    "NEVER",
    "FloodSettings",
    "Override",
    "as_of_us",
    "codes_of",
    "daily_band",
    "detect_floods",
    "flood_intervals",
    "flood_pairs",
    "from_us",
    "membership_of",
    "membership_text",
    "needed_columns",
    "positions_in",
    "read_overrides",
    "rules_in",
    "to_us",
]
