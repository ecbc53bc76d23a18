"""Records to chunks of rows: alerts, actions, or the actions that decisions in alerts make.

Belongs here: applying a record mapping to a file, and what people should know about how it fitted.
Does not belong here: formats (`sources.py`), times (`times.py`), decisions (`actions.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dagster_project.errors import HeedError
from dagster_project.loading.columns import listed
from dagster_project.loading.contract import COLUMNS, NUMBERS, REQUIRED, Kind, nearest, normal_name, shown
from dagster_project.loading.readers import arrow_text
from dagster_project.loading.readers.chunk import Chunk, Reader
from dagster_project.loading.readers.layout import Layout
from dagster_project.loading.readers.source import SourceFile
from dagster_project.loading.records.actions import BY_MACHINE, Action, DecisionMaker
from dagster_project.loading.records.conditions import any_holds
from dagster_project.loading.records.fields import Field, Record, has, leaves, roots
from dagster_project.loading.records.sources import Block, open_records
from dagster_project.loading.records.spec import RecordMapping
from dagster_project.loading.records.times import TimeColumn, formats_that_fit, settle
from dagster_project.loading.report import LoadWarning
from dagster_project.loading.values import BLANKS

_SAMPLE = 1000  # records that must show a required column


class RecordReader(Reader):
    """A file's records as rows. Lines are rows of the table, or lines of the text.

    decisions_only : the rows are the actions that decisions in alerts make.
    """

    def __init__(
        self, kind: Kind, source: SourceFile, mapping: RecordMapping, layout: Layout, *, decisions_only: bool = False
    ) -> None:
        self.kind, self.source, self.decisions_only = kind, source, decisions_only
        self.table: Kind = "alerts" if decisions_only else kind
        self.own, self.mapping = _completed(self.table, mapping)
        self.records = open_records(self.table, source, layout, self._misfit)
        self.before_header, self.delimiter = self.records.before_header, self.records.delimiter
        self.skipped = 0
        self.skipped_example = ""
        if self.records.names is None:
            self._check_sample()
        self.ignored = self._not_loaded()
        self._settle()

    # The header, or a sample of the records, against the mapping.

    def _misfit(self, names: Sequence[str]) -> HeedError | None:
        record: Record = dict.fromkeys(names)
        return self._missing(list(names), lambda path: has(record, path))

    def _check_sample(self) -> None:
        keys: dict[str, None] = {}
        sample: list[Record] = []
        for block in self.records.blocks():
            for _, record in block.records:
                sample.append(record)
                keys.update(dict.fromkeys(record))
            if len(sample) >= _SAMPLE:
                break
        if not sample:
            return
        every: Record = dict.fromkeys(keys)
        error = self._missing(list(keys), lambda path: has(every, path))
        if error is None:
            candidates = [r for r in sample if not self.mapping.where or any_holds(self.mapping.where, r)]
            for name in REQUIRED[self.table]:
                one = self.mapping.fields[name]
                if candidates and not any(one.text(r) for r in candidates):
                    paths = " or ".join(shown(path) for path in one.paths)
                    error = HeedError(
                        f"none of the first {len(candidates):,} records of {self.source.name} has a value at {paths}, "
                        f"which {self.mapping.source} takes for {name}",
                        f"correct [{self.table}] there: a record has {listed([p for p, _ in leaves(candidates[0])])}",
                    )
        if error is not None:
            raise error

    def _missing(self, names: list[str], is_there: Any) -> HeedError | None:
        mapping, file = self.mapping, self.source.name
        lacking = []
        for name, one in mapping.fields.items():
            missing = [path for path in one.paths if not is_there(path)]
            needed = len(missing) == len(one.paths) if one.how == "first" else bool(missing)
            if needed and one.otherwise is not None:
                needed = not any(is_there(path) for path in one.otherwise.all_paths())
            if not needed or one.value:
                continue
            if name in self.own:  # the contract's own name, which no mapping asked for
                lacking += [name] if name in REQUIRED[self.table] else []
                continue
            if mapping.lenient and name not in REQUIRED[self.table]:
                continue
            close = nearest(next(iter(reversed(list(roots(missing[0]))))), names)
            hint = f"did you mean {shown(close)}" if close else f"it has {listed(names)}"
            named = " or ".join(shown(path) for path in missing)
            return HeedError(
                f"{mapping.source} takes {name} from the column {named}, which {file} does not have",
                f"correct [{self.table}] there: {hint}",
            )
        lacking += [name for name in REQUIRED[self.table] if name not in mapping.fields]
        if lacking:
            lines = ", ".join(f'{name} = "{nearest(name, names) or "your_column"}"' for name in lacking)
            return HeedError(
                f"{file} has no column{'s' * (len(lacking) > 1)} {', '.join(lacking)}, which "
                f"{self.table.replace('_', ' ')} need (it has {listed(names)})",
                f"name it in a file for --mapping: under [{self.table}] write {lines}; "
                "`heed inspect FILE` proposes one",
            )
        if mapping.lenient:
            return None
        wanted = [("ignores", path) for path in mapping.ignored]
        wanted += [("keeps", path) for path in mapping.keep or ()]
        wanted += [("decides by", path) for d in mapping.decisions for path in d.time.paths if not d.each]
        for verb, path in wanted:
            if not is_there(path):
                close = nearest(path, names)
                hint = f"did you mean {shown(close)}" if close else f"it has {listed(names)}"
                return HeedError(
                    f"{mapping.source} {verb} the column {shown(path)}, which {file} does not have",
                    f"correct [{self.table}] there: {hint}",
                )
        return None

    def _not_loaded(self) -> tuple[str, ...]:
        names = self.records.names
        if names is None or self.decisions_only:
            return ()
        record: Record = dict.fromkeys(names)
        return tuple(
            name
            for name, _ in leaves(record)
            if name not in self._used_keys() and not self.mapping.keeps(self.kind, name)
        )

    def _used_keys(self) -> set[str]:
        return {key for one in self.mapping.fields.values() for path in one.all_paths() for key in roots(path)}

    # Times.

    def _settle(self) -> None:
        """The time columns, after a look at the whole file where it must settle how they are written."""
        rules = [(name, self.mapping.fields[name], rule) for name, rule in self.mapping.rules.items()
                 if name in self.mapping.fields]  # fmt: skip
        if self.kind == "alerts" or self.decisions_only:
            rules += [(d.time.paths[0] if d.time.paths else "time", d.time, d.rule) for d in self.mapping.decisions]
        self.times = [TimeColumn(_called(name, one), rule) for name, one, rule in rules]
        self._fields = [one for _, one, _ in rules]
        if not any(column.settles() for column in self.times):
            return
        key = (self.table, self.mapping.source)
        if key not in self.source.settled:
            self._observe()
            settle(self.times, self.source.name, self.table)
            self.source.settled[key] = [column.order for column in self.times]
        for column, order in zip(self.times, self.source.settled[key], strict=False):
            column.order = column.order or order

    def _observe(self) -> None:
        each = [d.each for d in self.mapping.decisions]
        of_alert = len(self.times) - len(each) if self.kind == "alerts" or self.decisions_only else len(self.times)
        rows = 0
        for block in self.records.blocks():
            if rows >= _SAMPLE and not any(column.open or column.only for column in self.times):
                return  # no time with day and month as numbers: nothing to settle, and no need to read on
            rows += len(block.records)
            for _, record in block.records:
                for at, (column, one) in enumerate(zip(self.times, self._fields, strict=True)):
                    if at >= of_alert and each[at - of_alert]:
                        continue  # nested lists come by API, whose times are ISO 8601 or epochs
                    text = one.text(record, self.mapping.empty)
                    if text is not None:
                        column.observe(text)

    def _time_of(self, name: str) -> TimeColumn:
        names = [n for n in self.mapping.rules if n in self.mapping.fields]
        return self.times[names.index(name)]

    # Rows.

    def chunks(self) -> Iterator[Chunk]:
        of_fields = sum(name in self.mapping.fields for name in self.mapping.rules)
        self.maker = DecisionMaker(self.mapping, self.times[of_fields:])
        self.skipped = 0
        for block in self.records.blocks():
            yield self._decided(block) if self.decisions_only else self._rows(block)

    def _id(self, record: Record, name: str) -> str | None:
        return self.mapping.fields[name].text(record, self.mapping.empty)

    def _decided(self, block: Block) -> Chunk:
        actions: list[Action] = []
        for row, record in block.records:
            is_alert = not self.mapping.where or any_holds(self.mapping.where, record)
            alert_id = self._id(record, "alert_id") if is_alert else None
            actions += self.maker.actions(row, record, alert_id, is_alert)
        columns = {name: pa.array([getattr(a, name) for a in actions], pa.string()) for name in COLUMNS["actions"][:-1]}
        words = arrow_text.json_of([action.further.get("type") for action in actions])
        # Rows that cannot be decoded were rejected with the alerts.
        return Chunk(len(actions), columns, [("type", words)])

    def _rows(self, block: Block) -> Chunk:
        mapping = self.mapping
        rows: list[tuple[int, Record]] = []
        for row, record in block.records:
            if mapping.where and not any_holds(mapping.where, record):
                self.skipped += 1
                self.skipped_example = self.skipped_example or f"row {row:,}"
            else:
                rows.append((row, record))
        contract: dict[str, pa.Array] = {}
        for name, one in mapping.fields.items():
            texts = [one.text(record, mapping.empty) for _, record in rows]
            if name in mapping.rules:
                column = self._time_of(name)
                texts = [
                    None if text is None else column.iso(text, row) for (row, _), text in zip(rows, texts, strict=True)
                ]
            contract[name] = pa.array(texts, pa.string())
        typed = frozenset(
            name for name in NUMBERS if name in mapping.fields and _is_typed([r for _, r in rows], mapping.fields[name])
        )
        return Chunk(len(rows), contract, self._attributes([r for _, r in rows]), block.rejected, typed)

    def _attributes(self, rows: list[Record]) -> list[tuple[str, pa.Array]]:
        kept: dict[str, bool] = {}
        values: dict[str, list[Any]] = {}
        for at, record in enumerate(rows):
            for path, value in leaves(record):
                if path not in kept:
                    kept[path] = self.mapping.keeps(self.kind, path)
                if kept[path] and value not in (None, "") and str(value) not in self.mapping.empty:
                    values.setdefault(path.strip(BLANKS), [None] * len(rows))[at] = value
        return [(path, arrow_text.json_of(column)) for path, column in sorted(values.items())]

    # What people should know.

    def notes(self) -> Iterator[LoadWarning]:
        """How the mapping fitted the file, after all chunks were read."""
        for column in self.times if not self.decisions_only else self.maker.times:
            yield from self._about_times(column)
        if self.skipped:
            yield LoadWarning(
                "no_alerts",
                self.skipped,
                f"{self.skipped:,} records are no {self.kind} by `where` of {self.mapping.source} "
                f"(the first: {self.skipped_example})",
                "change `where` if they are",
                is_note=True,
            )
        if self.records.passed_over and not self.decisions_only:
            count = self.records.passed_over
            yield LoadWarning(
                "other_lines",
                count,
                f"{count:,} lines are neither alerts nor decisions by `lines` of {self.mapping.source}",
                "add an expression if they matter",
                is_note=True,
            )
        if self.decisions_only:
            yield from self._about_decisions()

    def _about_times(self, column: TimeColumn) -> Iterator[LoadWarning]:
        clock = {"hour_that_comes_twice": column.twice, "hour_that_never_comes": column.never}
        for name, count in clock.items():
            if count:
                what = "can mean two moments" if name.endswith("twice") else "cannot exist"
                yield LoadWarning(
                    name,
                    count,
                    f"{count:,} different values of {column.name} {what}, because the clock changes in "
                    f"{column.rule.zone}; the later moment is taken",
                    "export it in UTC or with its offset",
                )
        if not column.unread:
            return
        row, text = column.first_unread
        fits = formats_that_fit(text)
        if column.days and not column.rule.hour:
            remedy = 'a day alone is no moment: write time_of_day = "12:00" in the mapping, or export the time of day'
        elif fits:
            remedy = f'what would fit: time_format = "{fits[0]}"' + (f' or "{fits[1]}"' if len(fits) > 1 else "")
        else:
            remedy = "no format that heed knows fits it: write time_format with the codes of strptime"
        wanted = " or ".join(shown(form) for form in column.rule.formats)
        cause = f"does not fit time_format {wanted}" if wanted else "cannot be read as a time"
        if not column.read and not (column.days and not column.rule.hour):
            raise HeedError(
                f"row {row:,} of {self.source.path}: {column.name} is {shown(text)}, which {cause}; nor does any other",
                f"{remedy}; nothing was loaded",
            )
        yield LoadWarning(
            "unfit_times",
            column.unread,
            f"{column.unread:,} of {column.unread + column.read:,} values of {column.name} cannot be used: "
            f"{shown(text)} in row {row:,} {cause}",
            f"{remedy}; the run will reject these rows",
        )

    def _about_decisions(self) -> Iterator[LoadWarning]:
        counts = self.maker.counts
        if machine := counts.by_machine:
            total = machine.total()
            yield LoadWarning(
                "decided_by_machine",
                total,
                f"{total:,} decisions were made by a machine ({_some(machine)}); they are of type {BY_MACHINE}, which "
                "is neutral",
                f"an --action-types file may give {BY_MACHINE} another meaning",
                is_note=True,
            )
        if untimed := counts.without_time:
            total = untimed.total()
            yield LoadWarning(
                "decisions_without_time",
                total,
                f"{total:,} decisions ({_some(untimed)}) have no time (the first: {counts.examples['without_time']}), "
                "so they are no actions: their alerts count as if nobody had decided",
                "export the time of the decision too, or load the actions from a log of events",
            )
        if counts.without_alert:
            yield LoadWarning(
                "decisions_without_alert",
                counts.without_alert,
                f"{counts.without_alert:,} decisions belong to no alert before them in the file "
                f"(the first: {counts.examples['without_alert']})",
                "export from an earlier day on; the run rejects these actions",
            )


def _some(counts: Any) -> str:
    return ", ".join(f"{count:,} {shown(word, 30)}" for word, count in counts.most_common(4))


def _called(name: str, one: Field) -> str:
    path = one.paths[0] if one.paths else name
    return path if normal_name(path) == normal_name(name) else f"{name} ({path})" if name in COLUMNS["alerts"] else path


def _is_typed(rows: list[Record], one: Field) -> bool:
    from dagster_project.loading.records.fields import look_up

    values = [look_up(record, path) for record in rows[:200] for path in one.paths]
    return any(isinstance(v, int | float) and not isinstance(v, bool) and v == v for v in values)


def _completed(kind: Kind, mapping: RecordMapping) -> tuple[set[str], RecordMapping]:
    """With the contract's own names for what the mapping does not say, and these names; a preset names all it wants."""
    if mapping.lenient:
        return set(), mapping
    taken = set(map(normal_name, (*mapping.used(), *mapping.ignored)))
    own = {name: Field((name,)) for name in COLUMNS[kind] if name not in mapping.fields and name not in taken}
    return set(own), replace(mapping, fields={**own, **mapping.fields})
