"""What people should know about a file that was loaded: counted, with an example and what to do.

Belongs here: questions to a file's rows whose answer changes what people would conclude, asked while it is loaded.
Does not belong here: changes to rows (`values.py`), refusals (`readers.py`), and what dbt's tests look at afterwards.

Rows are looked at column by column as they are read (`Observed`), and in the staging table `pg_temp.incoming` where the
question is about times or other rows. Times are read there by the very function that dbt's staging models use.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from dagster_project.loading.contract import NUMBERS, Kind, shown
from dagster_project.loading.values import BLANKS, NumberEvidence
from dagster_project.settings import PROJECT

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

    from dagster_project.loading.readers import Chunk

TIMES: dict[Kind, str] = {"alerts": "raised_at", "actions": "acted_at", "rules": "created_at"}
# Columns whose texts name something: a placeholder there would be a rule, a team or an id of its own.
_NAMES = ("rule", "entity", "team", "severity", "alert_id", "action_id", "action_type", "actor")
# How systems write that a cell is empty. Not NA, which is also North America.
PLACEHOLDERS = (
    *("null", "NULL", "Null", "(null)", "none", "None", "NONE", "(none)", "nan", "NaN", "NAN", "n/a", "N/A", "#N/A"),
    *("-", "--", "?", "undefined", "(empty)", "\\N"),
)
# Spreadsheets write long numbers so, and keep 6 to 15 digits of them.
_SCIENTIFIC = r"^[-+]?[0-9](?:[.,][0-9]+)?[eE][+]?[0-9]+$"
_NUMBER = r"^[-+]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][-+]?[0-9]{1,3})?$"
# Only times that staging reads, with their offset. All others are asked about one by one, in the warehouse.
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_SURE_TIME = (
    f"^[12][0-9]{{3}}-{_DAY}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{{1,9}})?"
    "(?:Z|[+-]0[0-9]:?[0-5][0-9])$"
)
_NAIVE_TIME = "^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]{1,9})?)?$"
EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class LoadWarning:
    """Something about a file that people should know.

    Attributes
    ----------
    name : what kind of thing, for machines. rows : how many rows it concerns. cause, remedy : in words.
    """

    name: str
    rows: int
    cause: str
    remedy: str

    def line(self) -> str:
        """One line in words."""
        return f"{self.cause}; {self.remedy}"


@dataclass
class Observed:
    """What the columns of a file show while it is read. Each chunk is shown once: first as the file has it, for its
    numbers, then as it is loaded."""

    kind: Kind
    rows: int = 0
    numbers: dict[str, NumberEvidence] = field(default_factory=dict)
    unreadable_numbers: Counter[str] = field(default_factory=Counter)
    placeholders: dict[str, Counter[str]] = field(default_factory=dict)
    scientific: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    undecodable: Counter[str] = field(default_factory=Counter)
    first_line: dict[str, int] = field(default_factory=dict)
    unsure_times: int = 0

    def as_in_file(self, chunk: Chunk) -> None:
        """See how numbers are written."""
        for name in NUMBERS:
            if name in chunk.contract and name not in chunk.typed:
                self.numbers.setdefault(name, NumberEvidence()).add(chunk.contract[name])

    def as_loaded(self, chunk: Chunk) -> None:
        """See the texts that go into the raw tables."""
        self.rows += chunk.rows
        for one in chunk.set_aside:
            reason = one.reason.split(";")[0]
            self.undecodable[reason] += 1
            self.first_line.setdefault(reason, one.line)
        for name in NUMBERS:
            if name in chunk.contract:
                self._count(self.unreadable_numbers, name, chunk.contract[name], _NUMBER, matching=False)
        for name in _NAMES:
            if name in chunk.contract:
                texts = chunk.contract[name]
                empty = texts.filter(pc.is_in(texts, pa.array(PLACEHOLDERS)))
                if len(empty):
                    self.placeholders.setdefault(name, Counter()).update(empty.to_pylist())
                if name.endswith("_id"):
                    self._count(self.scientific, name, texts, _SCIENTIFIC, matching=True)
        time = chunk.contract.get(TIMES.get(self.kind, ""))
        if time is not None:
            self.unsure_times += int(pc.sum(pc.invert(pc.match_substring_regex(time, _SURE_TIME))).as_py() or 0)

    def _count(self, counts: Counter[str], name: str, texts: pa.Array, pattern: str, *, matching: bool) -> None:
        matches = pc.match_substring_regex(pc.utf8_trim(texts, BLANKS), pattern)
        cells = texts.filter(pc.fill_null(matches if matching else pc.invert(matches), False))
        if len(cells):
            counts[name] += len(cells)
            self.examples.setdefault(f"{pattern} {name}", cells[0].as_py())

    def warnings(self, decimals: dict[str, str], delimiter: str) -> Iterator[LoadWarning]:
        """What the columns alone tell. `decimals` : how numbers were read."""
        if self.undecodable:
            rows = self.undecodable.total()
            yield LoadWarning(
                "undecodable_rows",
                rows,
                f"{rows:,} of {self.rows + rows:,} rows are undecodable and were rejected: {self.reasons()}",
                f"they are in raw.undecodable_rows; {self.mend()} and load the file again",
            )
        for name, count in self.scientific.items():
            yield LoadWarning(
                "cut_ids",
                count,
                f"{_values(count, name)}, such as {shown(self.examples[f'{_SCIENTIFIC} {name}'])}, lost digits in a "
                "spreadsheet or a floating-point column, so different rows may share one id",
                "export the ids as text, straight from the system that made them",
            )
        for name, texts in self.placeholders.items():
            some = ", ".join(f"{count:,} {shown(text)}" for text, count in texts.most_common(EXAMPLES_SHOWN))
            listed = ", ".join(f'"{text}"' for text, _ in texts.most_common())
            yield LoadWarning(
                "placeholders",
                texts.total(),
                f"{_values(texts.total(), name)} may mean an empty cell ({some}) and will be read as a name",
                f"if it does, write empty = [{listed}] under [{self.kind}] in the mapping",
            )
        yield from self._about_numbers(decimals, delimiter)

    def reasons(self) -> str:
        """Why rows were undecodable, the most frequent first."""
        some = self.undecodable.most_common(EXAMPLES_SHOWN)
        return ", ".join(f"{count:,} {reason} (first on line {self.first_line[reason]:,})" for reason, count in some)

    def mend(self) -> str:
        """What makes the most frequent of them readable."""
        reason = self.undecodable.most_common(1)[0][0]
        if "UTF-8" in reason:
            return "save the file as UTF-8 (`iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW_FILE`)"
        if "backslash" in reason:
            return 'write a quote inside a quoted field as ""'
        if "field" in reason or "quote" in reason:
            return 'give each row as many fields as the header, and quote with " (a quote inside is written "")'
        if "header" in reason:
            return "remove the lines before the header"
        return "export it without such rows"

    def _about_numbers(self, decimals: dict[str, str], delimiter: str) -> Iterator[LoadWarning]:
        say = f'write decimal = "," or decimal = "." under [{self.kind}] in the mapping'
        for name, evidence in self.numbers.items():
            example = lambda key, found=evidence: shown(found.examples[key])  # noqa: E731
            if evidence.contradictory() and name not in decimals:
                yield LoadWarning(
                    "contradictory_decimals",
                    evidence.settled.total(),
                    f"{name} has {evidence.settled[',']:,} numbers with a decimal comma ({example('settled ,')}) and "
                    f"{evidence.settled['.']:,} with a decimal point ({example('settled .')})",
                    f"export them in one way, or {say}",
                )
            elif name not in decimals and evidence.ambiguous[","]:
                count = evidence.ambiguous[","]
                yield LoadWarning(
                    "ambiguous_decimals",
                    count,
                    f"{_values(count, name)}, such as {example('ambiguous ,')}, cannot be read: nothing in the file "
                    "says whether the comma is for decimals or thousands",
                    say,
                )
            elif name not in decimals and evidence.ambiguous["."] and not evidence.settled["."] and delimiter == ";":
                count = evidence.ambiguous["."]
                yield LoadWarning(
                    "ambiguous_decimals",
                    count,
                    f"{_values(count, name)}, such as {example('ambiguous .')}, will be read with a decimal point, "
                    "though the file is separated by semicolons, as files with decimal commas are",
                    say,
                )
        for name, count in self.unreadable_numbers.items():
            yield LoadWarning(
                "unreadable_numbers",
                count,
                f"{_values(count, name)}, such as {shown(self.examples[f'{_NUMBER} {name}'])}, cannot be read as a "
                "number and will be empty",
                f"export it as a plain number, or map another column to {name}",
            )


def _values(count: int, name: str) -> str:
    return f"{count:,} value{'s' if count != 1 else ''} of {name}"


@lru_cache(maxsize=1)
def read_time_function() -> str:
    """The function by which dbt's staging models read times, to be made for this connection alone: a load may come
    before the first run of dbt, and a loader may not write to staging."""
    text = (PROJECT / "dbt_project" / "macros" / "functions.sql").read_text(encoding="utf-8")
    found = re.search(r"create or replace function staging\.read_time.*?\$body\$.*?\$body\$;", text, re.DOTALL)
    if found is None:
        raise AssertionError("functions.sql defines no staging.read_time")
    return found[0].replace("staging.read_time", "pg_temp.read_time")


class StagedDoubts:
    """Questions to `pg_temp.incoming`, where the rows of the file stand, and to `pg_temp.judged`.

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
        self.cursor.execute(query, parameters=parameters or None)
        row = self.cursor.fetchone()
        self.cursor.fetchall()  # the driver refuses the next statement while rows are outstanding
        return row

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
        time = f"btrim({self.time}, E' \\t\\r\\n\\f\\x0b')"
        count, *examples = self._one(
            f"""SELECT count(*), min({time}), max({time}),
                       min({time}) FILTER (WHERE {time} ~ '^[0-9]{{4}}-[0-9-]{{5}}$')
                FROM pg_temp.incoming
                WHERE reason IS NULL AND {time} <> '' AND pg_temp.read_time({time}, $1) IS NULL""",
            self.zone,
        )
        if not count:
            return
        first, last, day = examples
        texts = shown(first) if first == last else f"{shown(first)} to {shown(last)}"
        then = "the run will reject these rows" if self.kind != "rules" else "it will be empty"
        remedy = f"export {self.time} as 2026-05-01T08:00:00Z, with its offset or in UTC, and load the file again"
        if day is not None:
            remedy = f"a day alone is no moment: {remedy}"
        elif re.match(r"\d{1,2}[-/.]\d{1,2}[-/.]\d{4}", first):
            remedy = f"heed does not guess which of the first two numbers is the month: {remedy}"
        yield LoadWarning(
            "unreadable_times",
            count,
            f"{count:,} of {rows:,} rows have a time in {self.time} that cannot be read ({texts}), and {then}",
            remedy,
        )

    def _clock_changes(self) -> Iterator[LoadWarning]:
        # Where a change of the clock makes an hour come twice, the same local time is had an hour (in some places half
        # an hour) before or after as well.
        twice, never, one_twice, one_never = self._one(
            f"""WITH local AS (
                    SELECT text, moment, CASE WHEN moment IS NOT NULL AND text ~ '{_NAIVE_TIME}'
                                              THEN text::timestamp END AS clock
                    FROM (SELECT btrim({self.time}, E' \\t\\r\\n\\f\\x0b') AS text,
                                 pg_temp.read_time(btrim({self.time}, E' \\t\\r\\n\\f\\x0b'), $1) AS moment
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
                f"{_values(twice, self.time)}, such as {shown(one_twice)}, can mean two moments, because the clock "
                f"goes back in {self.zone}; the later one will be taken",
                remedy,
            )
        if never:
            yield LoadWarning(
                "hour_that_never_comes",
                never,
                f"{_values(never, self.time)}, such as {shown(one_never)}, cannot exist, because the clock goes "
                f"forward in {self.zone}; an hour later will be taken",
                remedy,
            )

    def _several_alerts_with_one_id(self) -> Iterator[LoadWarning]:
        """Rows with one id and different times are hardly versions of one alert."""
        compose = 'make the id of several columns in the mapping, like alert_id = ["repository", "number"]'
        ids, rows, example = self._one(
            """WITH several AS (
                   SELECT alert_id, count(*) AS rows
                   FROM pg_temp.judged JOIN pg_temp.incoming USING (seq)
                   WHERE is_questioned AND alert_id IS NOT NULL
                   GROUP BY alert_id HAVING count(DISTINCT pg_temp.read_time(
                       btrim(raised_at, E' \\t\\r\\n\\f\\x0b'), $1)) > 1
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
            """WITH last AS (
                   SELECT DISTINCT ON (alert_id) alert_id, raised_at
                   FROM pg_temp.judged JOIN pg_temp.incoming USING (seq)
                   WHERE is_questioned AND alert_id IS NOT NULL ORDER BY alert_id, seq DESC
               ),
               moved AS (
                   SELECT alert_id, stored.raised_at AS before, last.raised_at AS after
                   FROM last JOIN pg_temp.stored ON is_newest AND stored.id = alert_id
                   WHERE pg_temp.read_time(btrim(last.raised_at, E' \\t\\r\\n\\f\\x0b'), $1)
                       <> pg_temp.read_time(btrim(stored.raised_at, E' \\t\\r\\n\\f\\x0b'), $1)
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


# How two systems write one id differently.
_FORMS = {
    "without leading zeros": "ltrim({0}, '0')",
    "without .0 at the end": "regexp_replace({0}, '[.]0+$', '')",
    "in small letters": "lower({0})",
}
