"""The world as files: the untidy CSV that real systems export.

Belongs here: writing, and every kind of mess with its exact count.
Does not belong here: what the alerts are. Mess never changes which alerts there are or what became of them:
cleaning the files well gives the world's alerts back.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from dagster_project.simulator.config import WorldConfig
from dagster_project.simulator.decisions import ACTION_TYPES
from dagster_project.simulator.world import World

# Clocks of two systems differ by seconds to a few minutes. An action earlier than this before its alert is
# another fault.
MAX_CLOCK_SKEW_SECONDS = 240

# (text between date and time, suffix, offset in minutes): the ways in which the export writes one and the
# same moment.
_CLOCKS = (
    ("T", "Z", 0),
    (" ", "+02:00", 120),
    ("T", "-0500", -300),
    (" ", "+00:00", 0),
    ("T", "+0530", 330),
    (" ", "Z", 0),
)
_CLOCK_SHARES = (0.5, 0.2, 0.1, 0.1, 0.05, 0.05)
_NO_TIMES = ("yesterday", "2025-02-30 10:00:00", "31/31/2025 25:61", "n/a", "0000-00-00T00:00:00Z")
_UNKNOWN_TYPES = ("zapped", "???", "auto-thing", "closed by wizard")
_BROKEN_JSON = ('{"collector": "collector-1"', "{collector: 1}", "[1, 2", "not json")
_ALERT_COLUMNS = (
    "alert_id",
    "raised_at",
    "rule",
    "entity",
    "team",
    "severity",
    "value",
    "threshold",
    "title",
    "attributes",
)
_EXTRA_COLUMNS = (
    "platform", "country", "campaign_type", "account", "account_manager", "budget_band", "campaign_status", "source",
)  # fmt: skip
_ACTION_COLUMNS = ("action_id", "alert_id", "acted_at", "action_type", "actor")


@dataclass(frozen=True)
class MessyExport:
    """The files of one export and what is wrong in them.

    `counts["alerts" | "actions" | "rules"]` holds, in rows: `rows` (in the file), `clean`, and then

    - duplicates: `identical_duplicate`, `changed_duplicate` (the same id, other content; of alerts the true
      row is earlier in the file, of actions later);
    - rejects: `empty_id`, `unreadable_time`, `future_time`, and for alerts `empty_rule`, for actions
      `orphan`, `empty_type` and `before_alert` (by days);
    - what a good cleaner repairs, counted inside `clean`: `letter_case`, `blanks`, `nulls` (optional fields
      emptied), `broken_attributes`, and for actions `clock_skew` (at most `MAX_CLOCK_SKEW_SECONDS` before the
      alert) and `unknown_type` (the only clean rows that are not in the world: they mean nothing).

    `clean` + duplicates + rejects = `rows`. Each row has at most one fault that rejects it or makes it a
    duplicate.
    """

    alerts: Path
    actions: Path
    rules: Path
    action_types: Path
    counts: dict[str, dict[str, int]]


def export_messy(world: World, directory: str | Path, seed: int = 0) -> MessyExport:
    """Write alerts.csv.gz, actions.csv.gz, rules.csv and action_types.csv as a real system would.

    The alert file has the contract's columns and further ones (platform, country, ...), which the loader
    turns into attributes. The same world and seed give the same bytes. About 1% of rows carry each common
    fault and about 0.1% each rare one; each kind occurs at least once.

    world : what to export.
    directory : created when absent; files in it are overwritten.
    seed : of the mess only.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    stream = WorldConfig(seed=seed).stream
    counts: dict[str, dict[str, int]] = {}
    alerts, counts["alerts"] = _messy_alerts(world, stream("messy alerts"))
    actions, counts["actions"] = _messy_actions(world, stream("messy actions"))
    rules, counts["rules"] = _messy_rules(world, stream("messy rules"))
    types = pd.DataFrame({"action_type": list(ACTION_TYPES), "meaning": list(ACTION_TYPES.values())}, dtype="str")
    paths = [folder / name for name in ("alerts.csv.gz", "actions.csv.gz", "rules.csv", "action_types.csv")]
    for path, frame in zip(paths, (alerts, actions, rules, types), strict=True):
        _write_csv(frame, path)
    return MessyExport(paths[0], paths[1], paths[2], paths[3], counts)


class _Mess:
    """Spoils the rows of one table, each row at most once per column, and counts."""

    def __init__(self, frame: pd.DataFrame, rng: np.random.Generator) -> None:
        self.base, self.rng = frame.reset_index(drop=True), rng
        self.counts: dict[str, int] = {}
        self.size = len(frame)
        self.extra: list[pd.DataFrame] = []
        self.place: list[np.ndarray] = []

    def many(self, share: float) -> int:
        """How many rows a share is: at least one, never more than there are."""
        return min(self.size, max(1, round(share * self.size)))

    def rows(self, share: float, among: np.ndarray | None = None) -> np.ndarray:
        """Different random row numbers."""
        pool = np.arange(self.size) if among is None else among
        return np.sort(self.rng.choice(pool, size=min(pool.size, self.many(share)), replace=False))

    def spoil(self, kind: str, rows: np.ndarray, column: str, values: Any) -> None:
        """Change a column in place; the row stays clean."""
        texts = self.base[column].to_numpy(dtype=object, copy=True)
        texts[rows] = values
        self.base[column] = pd.Series(texts, dtype="str")
        self.counts[kind] = self.counts.get(kind, 0) + rows.size

    def add(self, kind: str, share: float, place: float | None = None, **changed: Any) -> None:
        """Add copies of random rows with some columns replaced: `place` rows from their original, or
        anywhere.
        """
        rows = self.rows(share)
        copies = self.base.iloc[rows].copy()
        for column, values in changed.items():
            copies[column] = values(copies) if callable(values) else values
        self.extra.append(copies)
        self.place.append(self.rng.uniform(0, self.size, rows.size) if place is None else rows + place)
        self.counts[kind] = rows.size

    def choice(self, values: tuple[str, ...], size: int) -> np.ndarray:
        return np.array(values, dtype=object)[self.rng.integers(0, len(values), size)]

    def finish(self) -> tuple[pd.DataFrame, dict[str, int]]:
        whole = pd.concat([self.base, *self.extra], ignore_index=True)
        order = np.argsort(np.concatenate([np.arange(self.size), *self.place]), kind="stable")
        return whole.iloc[order].reset_index(drop=True), {
            "rows": len(whole),
            "clean": self.size,
            **self.counts,
        }


def _fresh_ids(prefix: str) -> Callable[[pd.DataFrame], list[str]]:
    return lambda copies: [f"{prefix}-{i:05d}" for i in range(len(copies))]


def _shout(text: pd.Series) -> pd.Series:
    """Every second in capitals, the others in small letters."""
    upper = np.arange(len(text)) % 2 == 0
    return text.str.upper().where(upper, text.str.lower())


def _messy_alerts(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, int]]:
    frame = world.alerts[list(_ALERT_COLUMNS)].copy()
    for column in _EXTRA_COLUMNS:
        frame[column] = world.facts[column]
    # Only what means nothing stays in the JSON column, so that a row whose JSON is broken loses nothing of
    # worth.
    facts = world.facts
    frame["attributes"] = '{"collector": "' + facts["collector"] + '", "bucket": ' + facts["bucket"] + "}"
    frame["raised_at"] = _clock_texts(frame["raised_at"], rng)
    for column in ("value", "threshold"):
        frame[column] = _numbers(frame[column])

    mess = _Mess(frame, rng)
    for column in ("rule", "team", "severity"):
        rows = mess.rows(0.01)
        mess.spoil("letter_case", rows, column, _shout(mess.base[column].iloc[rows]).to_numpy())
        rows = mess.rows(0.01)
        mess.spoil("blanks", rows, column, ("  " + mess.base[column].iloc[rows] + " ").to_numpy())
    for column in ("entity", "team", "severity", "value", "title", "country"):
        rows = mess.rows(0.004, np.flatnonzero(mess.base[column].notna()))
        mess.spoil("nulls", rows, column, None)
    rows = mess.rows(0.0005)
    mess.spoil("broken_attributes", rows, "attributes", mess.choice(_BROKEN_JSON, rows.size))

    mess.add("identical_duplicate", 0.01, place=0.5)
    mess.add("changed_duplicate", 0.005, place=0.6, title="Closed: the text was changed later", value="1")
    mess.add("empty_id", 0.001, alert_id=lambda c: [None if i % 2 else "  " for i in range(len(c))])
    mess.add("empty_rule", 0.0005, alert_id=_fresh_ids("no-rule"), rule=None)
    mess.add(
        "unreadable_time",
        0.001,
        alert_id=_fresh_ids("no-time"),
        raised_at=lambda c: mess.choice(_NO_TIMES, len(c)),
    )
    mess.add("future_time", 0.0005, alert_id=_fresh_ids("future"), raised_at="2099-01-01T00:00:00Z")
    return mess.finish()


def _messy_actions(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, int]]:
    actions = world.actions
    raised = world.alerts.set_index("alert_id")["raised_at"].loc[actions["alert_id"]].reset_index(drop=True)
    time = actions["acted_at"].copy()
    mess = _Mess(actions[list(_ACTION_COLUMNS)], rng)
    # Only the first decisive action is skewed, and only where it came soon: what it decides stays the same.
    decisive = actions["meaning"] != "neutral"
    first = decisive & ~actions["alert_id"].where(decisive).duplicated()
    soon = np.flatnonzero(first & (time - raised < pd.Timedelta(hours=1)))
    if soon.size:
        rows = mess.rows(0.004, soon)
        early = rng.integers(1, MAX_CLOCK_SKEW_SECONDS + 1, rows.size)
        time.iloc[rows] = (raised.iloc[rows] - pd.to_timedelta(early, unit="s")).dt.as_unit("us")
        mess.counts["clock_skew"] = rows.size
    if not mess.size:
        return mess.finish()
    mess.base["acted_at"] = _clock_texts(time, rng)
    rows = mess.rows(0.02)
    mess.spoil("letter_case", rows, "action_type", _shout(mess.base["action_type"].iloc[rows]).to_numpy())
    rows = mess.rows(0.01)
    mess.spoil("blanks", rows, "action_type", (" " + mess.base["action_type"].iloc[rows] + "  ").to_numpy())
    rows = mess.rows(0.01)
    mess.spoil("nulls", rows, "actor", None)

    mess.add("identical_duplicate", 0.01, place=0.5)
    mess.add("changed_duplicate", 0.005, place=-0.5, actor="somebody-else")
    mess.add("empty_id", 0.001, action_id=lambda c: [None if i % 2 else " " for i in range(len(c))])
    mess.add("empty_type", 0.0005, action_id=_fresh_ids("no-type"), action_type=None)
    mess.add("orphan", 0.003, action_id=_fresh_ids("orphan"), alert_id=_fresh_ids("gone"))
    mess.add(
        "unreadable_time",
        0.001,
        action_id=_fresh_ids("no-time"),
        acted_at=lambda c: mess.choice(_NO_TIMES, len(c)),
    )
    mess.add("future_time", 0.0005, action_id=_fresh_ids("future"), acted_at="2099-01-01 00:00:00+00:00")
    mess.add(
        "before_alert",
        0.001,
        action_id=_fresh_ids("early"),
        acted_at=lambda c: _clock_texts(
            (raised.iloc[c.index] - pd.to_timedelta(rng.integers(1, 20, len(c)), unit="D")).dt.as_unit("us"),
            rng,
        ),
    )
    mess.add(
        "unknown_type",
        0.002,
        action_id=_fresh_ids("odd"),
        action_type=lambda c: mess.choice(_UNKNOWN_TYPES, len(c)),
    )
    frame, counts = mess.finish()
    counts["clean"] += counts["unknown_type"]
    return frame, counts


def _messy_rules(world: World, rng: np.random.Generator) -> tuple[pd.DataFrame, dict[str, int]]:
    frame = world.rules[["rule", "title", "team", "declared_visibility_only"]].copy()
    frame["declared_visibility_only"] = np.where(frame["declared_visibility_only"], "true", "false")
    frame["created_at"] = _clock_texts(world.rules["created_at"], rng)
    mess = _Mess(frame, rng)
    rows = mess.rows(0.05)
    mess.spoil("blanks", rows, "rule", (" " + mess.base["rule"].iloc[rows] + " ").to_numpy())
    mess.add("identical_duplicate", 0.05, place=0.5)
    mess.add("empty_id", 0.02, rule=None)
    return mess.finish()


def _clock_texts(times: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """(N,) text of each moment, in a mix of offsets, with a fraction where there is one and sometimes where
    not.
    """
    moments = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    texts = np.empty(moments.size, dtype=object)
    style = rng.choice(len(_CLOCKS), moments.size, p=_CLOCK_SHARES)
    whole = (moments.astype(np.int64) % 1_000_000 == 0) & (rng.random(moments.size) < 0.9)
    for code, (between, suffix, minutes) in enumerate(_CLOCKS):
        for bare in (True, False):
            rows = np.flatnonzero((style == code) & (whole == bare))
            if rows.size:
                unit: Literal["s", "us"] = "s" if bare else "us"
                text = np.datetime_as_string(moments[rows] + np.timedelta64(minutes, "m"), unit=unit)
                text = text.astype(object) + suffix
                texts[rows] = text if between == "T" else [t.replace("T", between, 1) for t in text]
    return texts


def _numbers(values: pd.Series) -> pd.Series:
    """Decimal text of money and counts, two places; null stays null."""
    text = pa.compute.cast(pa.array(values, from_pandas=True), pa.string())
    return text.to_pandas()


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    """CSV with a header; gzip where the name says so, without the time of writing in it."""
    table = pa.Table.from_pandas(frame.astype("str"), preserve_index=False)
    options = pa.csv.WriteOptions(quoting_style="needed")
    if path.suffix == ".gz":
        with open(path, "wb") as raw, gzip.GzipFile("", "wb", 4, raw, mtime=0) as packed:
            pa.csv.write_csv(table, packed, options)
    else:
        pa.csv.write_csv(table, path, options)
