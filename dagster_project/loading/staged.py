"""Warnings about a file's rows as a whole, asked of the staging table while the file is loaded.

Belongs here: questions about times and other rows, to `pg_temp.incoming`, `pg_temp.judged` and `pg_temp.stored`.
Does not belong here: what single columns show (`observed.py`), and what dbt's tests look at afterwards.

Times are read by the very function that dbt's staging models use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dagster_project.loading.contract import Kind, shown
from dagster_project.loading.ledger import one_row
from dagster_project.loading.observed import TIMES, Observed, values_of
from dagster_project.loading.records.times import ISO, formats_that_fit, is_time
from dagster_project.loading.report import LoadWarning
from dagster_project.settings import PROJECT

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_BARE = "btrim({}, E' \\t\\r\\n\\f\\x0b')"
_MOMENT = f"pg_temp.read_time({_BARE}, $1)"
_NAIVE_TIME = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?$"
# Of a file's actions, to see whether they come before their alerts: a second of work at most.
_LOOKED_AT = 200_000
# A few are clocks that differ by seconds; a fifth is a pattern.
_MOST_EARLY = 0.2
# Different spellings of one id in two systems.
_FORMS = {
    "without leading zeros": "ltrim({0}, '0')",
    "without .0 at the end": "regexp_replace({0}, '[.]0+$', '')",
    "in small letters": "lower({0})",
}


@lru_cache(maxsize=1)
def read_time_function() -> str:
    """The function by which dbt's staging models read times, for this connection alone: a load may come before
    the first run of dbt, and a loader may not write to staging."""
    text = (PROJECT / "dbt_project" / "macros" / "functions.sql").read_text(encoding="utf-8")
    definition = re.search(r"create or replace function staging\.read_time.*?\$body\$.*?\$body\$;", text, re.DOTALL)
    if definition is None:
        raise AssertionError("functions.sql defines no staging.read_time")
    return definition[0].replace("staging.read_time", "pg_temp.read_time")


def before_their_alert(early: int, matched: int, least: float) -> tuple[str, str]:
    """Cause and remedy of actions before their alerts. least : the smallest number of seconds after an alert."""
    cause = f"{early:,} of {matched:,} actions come before their alert, by up to {-least / 3600:.1f} hours"
    if early < _MOST_EARLY * matched:
        return cause, "the run rejects them"
    return cause, (
        "the times of the two seem to be in different zones, or day and month are swapped: write time_zone or "
        "time_format for each in the mapping; the run rejects these actions"
    )


class StagedChecks:
    """Questions to `pg_temp.incoming`, which holds the rows of the file, and to `pg_temp.judged`.

    zone : the zone of times that carry none.
    """

    def __init__(self, cursor: Cursor, kind: Kind, zone: str) -> None:
        self.cursor, self.kind, self.zone = cursor, kind, zone
        self.time = TIMES.get(kind, "")
        self.has_function = False

    def _one(self, query: str, *parameters: Any) -> Any:
        if "read_time" in query and not self.has_function:
            self.cursor.execute(read_time_function())
            self.has_function = True
        return one_row(self.cursor, query, *parameters)

    def before_insert(self, observed: Observed) -> Iterator[LoadWarning]:
        """Before the rows are in the raw tables: about their times, and about what they replace."""
        if observed.unsure_times:
            yield from self._unreadable_times(observed.rows)
            if self.zone.upper() not in ("UTC", "ETC/UTC", "GMT"):
                yield from self._clock_changes()
        if self.kind == "alerts":
            yield from self._several_alerts_with_one_id()
        yield from self._back_again()

    def _unreadable_times(self, rows: int) -> Iterator[LoadWarning]:
        time = _BARE.format(self.time)
        count, *examples = self._one(
            f"""SELECT count(*), min({time}), max({time}),
                       min({time}) FILTER (WHERE {time} ~ '^[0-9]{{4}}-[0-9-]{{5}}$')
                FROM pg_temp.incoming
                WHERE reason IS NULL AND {time} <> '' AND {_MOMENT.format(self.time)} IS NULL""",
            self.zone,
        )
        if not count:
            return
        first, last, day = examples
        texts = shown(first) if first == last else f"{shown(first)} to {shown(last)}"
        then = "the run will reject these rows" if self.kind != "rules" else "it will be empty"
        remedy = f"export {self.time} as 2026-05-01T08:00:00Z, with its offset or in UTC, and load the file again"
        if day is not None:
            remedy = (
                f'a day alone is no moment: write time_of_day = "12:00" under [{self.kind}] in the mapping, or {remedy}'
            )
        elif re.match(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{4}", first):
            say = f'write time_format = "day-first" or "month-first" under [{self.kind}] in the mapping'
            remedy = f"heed does not guess which of the first two numbers is the month: {say}, or {remedy}"
        elif is_time(first):
            remedy = f'write time_format = "{(formats_that_fit(first) or [ISO])[0]}" in the mapping, or {remedy}'
        yield LoadWarning(
            "unreadable_times",
            count,
            f"{count:,} of {rows:,} rows have a time in {self.time} that cannot be read ({texts}), and {then}",
            remedy,
        )

    def _clock_changes(self) -> Iterator[LoadWarning]:
        # Where an hour comes twice, the same local time also occurs an hour (in some places half an hour) before or
        # after.
        twice, never, one_twice, one_never = self._one(
            f"""WITH local AS (
                    SELECT text, moment, CASE WHEN moment IS NOT NULL AND text ~ '{_NAIVE_TIME}'
                                              THEN text::timestamp END AS clock
                    FROM (SELECT {_BARE.format(self.time)} AS text, {_MOMENT.format(self.time)} AS moment
                          FROM pg_temp.incoming WHERE reason IS NULL AND {self.time} IS NOT NULL) AS times
                ),
                judged AS (
                    SELECT text, moment AT TIME ZONE $1 <> clock AS comes_never, EXISTS (
                               SELECT FROM unnest(ARRAY[-60, -30, 30, 60]) AS minutes
                               WHERE (moment + make_interval(mins => minutes)) AT TIME ZONE $1 = clock) AS comes_twice
                    FROM local WHERE clock IS NOT NULL
                )
                SELECT count(*) FILTER (WHERE comes_twice AND NOT comes_never), count(*) FILTER (WHERE comes_never),
                       min(text) FILTER (WHERE comes_twice AND NOT comes_never), min(text) FILTER (WHERE comes_never)
                FROM judged""",
            self.zone,
        )
        remedy = f"export {self.time} in UTC or with its offset"
        if twice:
            yield LoadWarning(
                "hour_that_comes_twice",
                twice,
                f"{values_of(twice, self.time)}, such as {shown(one_twice)}, can mean two moments, because the clock "
                f"goes back in {self.zone}; the later one will be taken",
                remedy,
            )
        if never:
            yield LoadWarning(
                "hour_that_never_comes",
                never,
                f"{values_of(never, self.time)}, such as {shown(one_never)}, cannot exist, because the clock goes "
                f"forward in {self.zone}; an hour later will be taken",
                remedy,
            )

    def _several_alerts_with_one_id(self) -> Iterator[LoadWarning]:
        """Rows with one id and different times are unlikely to be versions of one alert."""
        compose = 'make the id of several columns in the mapping, like alert_id = ["repository", "number"]'
        ids, rows, example = self._one(
            f"""WITH several AS (
                   SELECT alert_id, count(*) AS rows
                   FROM pg_temp.judged JOIN pg_temp.incoming USING (seq)
                   WHERE is_questioned AND alert_id IS NOT NULL
                   GROUP BY alert_id HAVING count(DISTINCT {_MOMENT.format("raised_at")}) > 1
               )
               SELECT count(*), coalesce(sum(rows), 0)::bigint, min(alert_id) FROM several""",
            self.zone,
        )
        if ids:
            yield LoadWarning(
                "several_alerts_with_one_id",
                rows,
                f"{rows:,} rows share {ids:,} alert id{'s' if ids > 1 else ''} (such as {shown(example)}) but were "
                "raised at different times: they are different alerts, and their decisions cannot be kept apart",
                f"the id is not unique: {compose}, or export complete ids",
            )
        ids, example, before, after = self._one(
            f"""WITH last AS (
                   SELECT DISTINCT ON (alert_id) alert_id, raised_at
                   FROM pg_temp.judged JOIN pg_temp.incoming USING (seq)
                   WHERE is_questioned AND alert_id IS NOT NULL ORDER BY alert_id, seq DESC
               ),
               moved AS (
                   SELECT alert_id, stored.raised_at AS before, last.raised_at AS after
                   FROM last JOIN pg_temp.stored ON is_newest AND stored.id = alert_id
                   WHERE {_MOMENT.format("last.raised_at")} <> {_MOMENT.format("stored.raised_at")}
               )
               SELECT count(*), (array_agg(alert_id ORDER BY alert_id))[1], (array_agg(before ORDER BY alert_id))[1],
                      (array_agg(after ORDER BY alert_id))[1] FROM moved""",
            self.zone,
        )
        if ids:
            yield LoadWarning(
                "raised_at_changed",
                ids,
                f"{ids:,} alert id{'s were' if ids > 1 else ' was'} loaded before with another raised_at (such as "
                f"{shown(example)}: {shown(before)}, now {shown(after)})",
                f"if they are corrections, nothing needs doing; if they are other alerts, {compose}",
            )

    def _back_again(self) -> Iterator[LoadWarning]:
        (rows,) = self._one("SELECT count(*) FROM pg_temp.judged WHERE is_added AND is_back_again")
        if rows:
            yield LoadWarning(
                "back_again",
                rows,
                f"{rows:,} rows were loaded before, replaced by a later load, and now count again",
                "if that was not meant, load the later file once more",
            )

    def early_actions(self) -> Iterator[LoadWarning]:
        """How many of the file's first actions come before their alerts, as where clocks or zones differ."""
        if self.kind != "actions":
            return
        early, matched, least = self._one(
            f"""WITH acted AS (
                   SELECT alert_id, {_MOMENT.format("acted_at")} AS moment FROM pg_temp.incoming
                   WHERE reason IS NULL AND seq < {_LOOKED_AT}
               ),
               raised AS (
                   SELECT DISTINCT ON (alert_id) alert_id, {_MOMENT.format("raised_at")} AS moment FROM raw.alerts
                   WHERE alert_id IN (SELECT alert_id FROM acted) ORDER BY alert_id, loaded_at
               )
               SELECT count(*) FILTER (WHERE acted.moment < raised.moment), count(*),
                      coalesce(min(extract(epoch FROM acted.moment - raised.moment)), 0)::double precision
               FROM acted JOIN raised USING (alert_id)""",
            self.zone,
        )
        if early:
            yield LoadWarning("actions_before_their_alert", early, *before_their_alert(early, matched, least))

    def unmatched_actions(self) -> Iterator[LoadWarning]:
        """How many of the file's actions belong to no alert that is loaded."""
        if self.kind != "actions":
            return
        self.cursor.execute("DROP TABLE IF EXISTS pg_temp.unmatched")
        self.cursor.execute(
            """CREATE TEMPORARY TABLE unmatched AS
               SELECT alert_id FROM pg_temp.incoming WHERE reason IS NULL AND alert_id IS NOT NULL
                   AND NOT EXISTS (SELECT FROM raw.alerts WHERE alerts.alert_id = incoming.alert_id)"""
        )
        rows, example, actions, any_alert = self._one(
            """SELECT count(*), min(alert_id),
                      (SELECT count(*) FROM pg_temp.incoming WHERE reason IS NULL AND alert_id IS NOT NULL),
                      EXISTS (SELECT FROM raw.alerts) FROM pg_temp.unmatched"""
        )
        if not rows:
            return
        hint = "load those alerts too; until then these actions are rejected"
        if not any_alert:
            hint = "load the alerts; until then the actions are rejected"
        for words, form in _FORMS.items():
            (would,) = self._one(
                f"""SELECT count(*) FROM pg_temp.unmatched AS one WHERE {form.format("one.alert_id")} IN (
                        SELECT {form.format("alerts.alert_id")} FROM raw.alerts WHERE alert_id IS NOT NULL)"""
            )
            if would:
                hint = f"{would:,} of them would match {words}: write the ids in both files in one way"
                break
        yield LoadWarning(
            "unmatched_actions",
            rows,
            f"{rows:,} of {actions:,} actions belong to no alert that is loaded (such as {shown(example)})",
            hint,
        )
