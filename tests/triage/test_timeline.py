"""History features: equal to their definition, and the laws that make them safe to compute in parts."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.features.history import HistoryFeature, history_features, span_name
from tests.triage.brute_force import brute_force

EPOCH = pd.Timestamp("2024-03-01", tz="UTC")
TICK = timedelta(microseconds=250_000)  # small whole numbers of ticks make ties and borders common
LOOKBACK = 12 * TICK
KEYS = ("rule", "rule+entity")


def ticks(n: int) -> timedelta:
    return n * TICK


def every_feature(lookback: timedelta = LOOKBACK) -> list[HistoryFeature]:
    made = []
    for key in KEYS:
        for window in (TICK, 5 * TICK, lookback, None):
            made += [HistoryFeature(key, s, window=window) for s in ("raised_count", "known_count", "acted_count")]
        made += [HistoryFeature(key, s) for s in ("last_outcome", "seconds_since_raised", "seconds_since_acted")]
        made += [HistoryFeature(key, "decayed_acted_rate", half_life=h) for h in (TICK / 5, 3 * TICK)]
    return made


def times(values: list[int | None]) -> pd.Series:
    return pd.Series([pd.NaT if v is None else EPOCH + ticks(v) for v in values], dtype="datetime64[us, UTC]")


def frame(rows: list[tuple]) -> pd.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 7
    raised, known, acted, rule, pair, away_from, away_until = (list(c) for c in columns)
    return pd.DataFrame(
        {
            "rule": pd.Series(rule, dtype="str"),
            "rule+entity": pd.Series(pair, dtype=object),
            "raised_at": times(raised),
            "known_at": times(known),
            "acted": pd.Series(acted, dtype="float64"),
            "excluded_from": times(away_from),
            "excluded_until": times(away_until),
        }
    )


moments = st.integers(0, 40)
maybe = st.none() | st.integers(0, 60)
events_of = st.lists(
    st.tuples(
        moments,
        maybe,
        st.sampled_from([None, 0.0, 1.0]),
        st.sampled_from(["a", "a", "b", None]),
        st.sampled_from(["a|x", "b|y", None]),
        st.none() | st.integers(0, 60),
        maybe,
    ),
    max_size=25,
).map(frame)
events_without_exclusion = events_of.map(lambda e: e.drop(columns=["excluded_from", "excluded_until"]))
any_events = st.one_of(events_without_exclusion, events_of)


def assert_equal(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found.columns) == list(expected.columns)
    assert found.index.equals(expected.index)
    # float32 holds a number to 6e-8 of itself.
    np.testing.assert_allclose(found.to_numpy(), expected.to_numpy(), rtol=1.2e-7, atol=0)


@settings(max_examples=150)
@given(any_events, any_events)
def test_equals_the_definition(events: pd.DataFrame, at: pd.DataFrame) -> None:
    found = history_features(events, at, every_feature(), LOOKBACK)
    assert_equal(found, brute_force(events, at, every_feature(), LOOKBACK))


@given(any_events)
def test_equals_the_definition_at_the_events_themselves(events: pd.DataFrame) -> None:
    found = history_features(events, events, every_feature(), LOOKBACK)
    assert_equal(found, brute_force(events, events, every_feature(), LOOKBACK))


@given(any_events, st.lists(st.integers(1, 60), max_size=4), st.data())
def test_any_chunking_gives_the_same_bytes(events: pd.DataFrame, cuts: list[int], data: st.DataObject) -> None:
    whole = history_features(events, events, every_feature(), LOOKBACK)
    borders = [EPOCH + ticks(c) for c in sorted({0, *cuts, 61})]
    parts = []
    for start, stop in pairwise(borders):
        at = events[(events["raised_at"] >= start) & (events["raised_at"] < stop)]
        far = start - LOOKBACK
        past = events[
            ((events["raised_at"] >= far) & (events["raised_at"] < stop))
            | ((events["known_at"] >= far) & (events["known_at"] < stop))
        ]
        parts.append(history_features(past, at, every_feature(), LOOKBACK))
    together = pd.concat(parts).reindex(events.index)
    assert together.to_numpy().tobytes() == whole.to_numpy().tobytes()


@given(any_events, any_events, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(events: pd.DataFrame, at: pd.DataFrame, random) -> None:
    found = history_features(events, at, every_feature(), LOOKBACK)
    shuffled = events.sample(frac=1, random_state=random.randrange(2**32))
    other = at.sample(frac=1, random_state=random.randrange(2**32))
    again = history_features(shuffled, other, every_feature(), LOOKBACK)
    assert again.index.equals(other.index)
    assert again.loc[at.index].to_numpy().tobytes() == found.to_numpy().tobytes()


@given(any_events, moments)
def test_removing_the_future_changes_nothing(events: pd.DataFrame, moment: int) -> None:
    t = EPOCH + ticks(moment)
    at = events[events["raised_at"] <= t]
    found = history_features(events, at, every_feature(), LOOKBACK)

    past = events[events["raised_at"] < t].copy()
    later = past["known_at"] >= t
    past.loc[later, "known_at"] = pd.NaT
    past.loc[later, "acted"] = np.nan
    # An outcome may have been known before its alert was raised in a messy export; it is of the past all the same.
    early = events[(events["raised_at"] >= t) & (events["known_at"] < t)]
    if "excluded_from" in past:
        past.loc[past["excluded_from"] >= t, ["excluded_from", "excluded_until"]] = pd.NaT
        past.loc[past["excluded_until"] >= t, "excluded_until"] = pd.NaT
    past = pd.concat([past, early])
    # The alerts of before see the same past, and so do those raised at t itself.
    assert history_features(past, at, every_feature(), LOOKBACK).equals(found)


@pytest.mark.parametrize("with_exclusions", [False, True])
def test_a_long_history_in_chunks_and_threads_and_by_definition(with_exclusions: bool) -> None:
    rng = np.random.default_rng(5)
    n = 60_000
    raised = pd.Timestamp("2023-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 365 * 86_400_000_000, n), "us")
    delay = pd.to_timedelta(rng.exponential(3 * 86_400_000_000, n).astype(np.int64), "us")
    events = pd.DataFrame(
        {
            "rule": pd.Categorical.from_codes(
                (rng.pareto(0.6, n) * 3).astype(int) % 400, [f"r{i}" for i in range(400)]
            ),
            "rule+entity": rng.integers(0, 5000, n),
            "raised_at": raised,
            "known_at": (raised + delay).where(rng.random(n) < 0.85),
            "acted": (rng.random(n) < 0.2).astype("float32"),
        }
    )
    if with_exclusions:
        # Five flood days; each becomes known at the next midnight, two are cleared a fortnight later.
        events["excluded_from"] = events["excluded_until"] = pd.Series(pd.NaT, events.index, raised.dtype)
        for day, cleared in ((40, False), (90, True), (91, False), (200, True), (300, False)):
            start = pd.Timestamp("2023-01-01", tz="UTC") + pd.Timedelta(days=day)
            flood = (events["raised_at"] >= start) & (events["raised_at"] < start + pd.Timedelta(days=1))
            flood &= events["rule"].isin(["r0", "r1", "r2", "r3", "r4"])
            assert flood.any()
            events.loc[flood, "excluded_from"] = start + pd.Timedelta(days=1)
            events.loc[flood, "excluded_until"] = start + pd.Timedelta(days=15) if cleared else pd.NaT
    lookback = timedelta(days=90)
    features = [
        HistoryFeature(
            f.key, f.statistic, f.window and timedelta(days=f.window / TICK), f.half_life and timedelta(days=7)
        )
        for f in every_feature(90 * TICK)
        if f.half_life != TICK / 5
    ]
    found = history_features(events, events, features, lookback, threads=1)
    for threads in (2, 3):
        again = history_features(events, events, features, lookback, threads=threads)
        assert again.to_numpy().tobytes() == found.to_numpy().tobytes()

    for start, stop in (("2023-01-20", "2023-03-03"), ("2023-09-01", "2023-10-20")):
        first, last = pd.Timestamp(start, tz="UTC"), pd.Timestamp(stop, tz="UTC")
        at = events[(events["raised_at"] >= first) & (events["raised_at"] < last)]
        far = first - lookback
        past = events[(events["raised_at"] >= far) | (events["known_at"] >= far)]
        part = history_features(past, at, features, lookback)
        assert part.to_numpy().tobytes() == found.loc[at.index].to_numpy().tobytes()

    some = events.sample(25, random_state=1)
    narrow = events[events["rule"].isin(some["rule"]) | events["rule+entity"].isin(some["rule+entity"])]
    assert_equal(found.loc[some.index], brute_force(narrow, some, features, lookback))


def test_a_decayed_rate_survives_millions_of_old_events() -> None:
    """Sums that add and take away would keep the rounding of what has left; nothing is ever taken away here."""
    n = 1_000_000
    day = 86_400_000_000
    old = pd.DataFrame({"rule": 1, "t": np.arange(n), "acted": 1.0})
    young = pd.DataFrame({"rule": 1, "t": 95 * day + np.arange(3), "acted": [0.0, 1.0, 0.0]})
    events = pd.concat([old, young], ignore_index=True)
    events["raised_at"] = events["known_at"] = EPOCH + pd.to_timedelta(events.pop("t"), "us")
    at = pd.DataFrame({"rule": 1, "raised_at": [EPOCH + timedelta(days=d) for d in (1, 89, 99, 184, 186)]})
    feature = HistoryFeature("rule", "decayed_acted_rate", half_life=timedelta(hours=1))
    found = history_features(events, at, [feature], timedelta(days=90))
    assert_equal(
        found.iloc[2:],
        brute_force(
            young.join(events[["raised_at", "known_at"]].iloc[n:].reset_index(drop=True)),
            at.iloc[2:],
            [feature],
            timedelta(days=90),
        ),
    )
    assert found[feature.name].iloc[:2].tolist() == [1.0, 1.0]


def test_many_alerts_of_one_key_at_one_moment_see_the_same_past() -> None:
    events = frame([(0, 1, 1.0, "a", "p", None, None), *[(5, 6, 0.0, "a", "p", None, None)] * 4])
    found = history_features(events, events, every_feature(), LOOKBACK)
    assert found["rule_raised_count"].tolist() == [0, 1, 1, 1, 1]
    assert found["rule_last_outcome"].iloc[1:].tolist() == [1.0] * 4
    assert len(found.iloc[1:].drop_duplicates()) == 1


def test_tied_outcomes_count_with_their_mean() -> None:
    events = frame([(0, 5, o, "a", "p", None, None) for o in (1.0, 0.0, 0.0, 1.0, 1.0)])
    at = frame([(6, None, None, "a", "p", None, None)])
    found = history_features(events, at, [HistoryFeature("rule", "last_outcome")], LOOKBACK)
    assert found["rule_last_outcome"].tolist() == [np.float32(0.6)]


def test_an_excluded_event_counts_until_the_flag_was_known_and_again_once_cleared() -> None:
    events = frame([(0, 2, 1.0, "a", "p", 4, 8), (1, 2, 0.0, "a", "p", None, None)])
    at = frame([(t, None, None, "a", "p", None, None) for t in (3, 4, 5, 8, 9)])
    features = [HistoryFeature("rule", "raised_count"), HistoryFeature("rule", "acted_count")]
    found = history_features(events, at, features, LOOKBACK)
    assert found["rule_raised_count"].tolist() == [2, 2, 1, 1, 2]
    assert found["rule_acted_count"].tolist() == [1, 1, 0, 0, 1]


def test_keys_of_every_type_give_the_same() -> None:
    base = frame([(i % 7, i % 11, float(i % 2), "abc"[i % 3], "p", None, None) for i in range(40)])
    base.loc[5, "rule"] = None
    expected = history_features(base, base, every_feature(), LOOKBACK)
    number = {"a": 3, "b": 1, "c": 2}
    for rule in (
        base["rule"].astype(object),
        base["rule"].astype("category"),
        base["rule"].map(number).astype("Int64"),
        base["rule"].map(number).astype("float64"),
    ):
        assert history_features(base.assign(rule=rule), base.assign(rule=rule), every_feature(), LOOKBACK).equals(
            expected
        )
    # Categories of the two frames may differ in order and in number.
    other = base["rule"].astype(pd.CategoricalDtype(["c", "zzz", "b", "a"]))
    mixed = history_features(
        base.assign(rule=other), base.assign(rule=base["rule"].astype("category")), every_feature(), LOOKBACK
    )
    assert mixed.equals(expected)


def test_times_of_any_unit_and_zone_give_the_same() -> None:
    base = frame([(i % 7, i % 11, float(i % 2), "a", "p", None, None) for i in range(30)])
    expected = history_features(base, base, every_feature(), LOOKBACK)
    local = base.assign(
        raised_at=base["raised_at"].dt.tz_convert("Asia/Kolkata").dt.as_unit("ns"),
        known_at=base["known_at"].dt.tz_localize(None).dt.as_unit("ms"),
    )
    assert history_features(local, local, every_feature(), LOOKBACK).equals(expected)


@pytest.mark.parametrize(("n_events", "n_at"), [(0, 0), (0, 3), (3, 0)])
def test_empty_frames(n_events: int, n_at: int) -> None:
    row = (3, 4, 1.0, "a", "p", None, None)
    found = history_features(frame([row] * n_events), frame([row] * n_at), every_feature(), LOOKBACK)
    assert found.shape == (n_at, len(every_feature()))
    assert (found.dtypes == "float32").all()
    assert (found["rule_raised_count"] == 0).all()
    assert found["rule_last_outcome"].isna().all()


def test_no_outcome_is_known_yet() -> None:
    events = frame([(i, None, None, "a", "p", None, None) for i in range(5)])
    events["known_at"] = None  # an all-null column has no type to speak of
    events["acted"] = None
    found = history_features(events, events, every_feature(), LOOKBACK)
    assert (found["rule_known_count"] == 0).all()
    assert found["rule_decayed_acted_rate_hl750ms"].isna().all()
    assert found["rule_raised_count"].tolist() == [0, 1, 2, 3, 4]


def test_names() -> None:
    day = timedelta(days=1)
    assert HistoryFeature("rule", "raised_count", window=7 * day).name == "rule_raised_count_7d"
    assert HistoryFeature("rule", "last_outcome").name == "rule_last_outcome"
    assert HistoryFeature("rule", "decayed_acted_rate", half_life=7 * day).name == "rule_decayed_acted_rate_hl7d"
    spans = [timedelta(hours=36), timedelta(minutes=90), timedelta(seconds=5), timedelta(microseconds=7)]
    assert [span_name(s) for s in spans] == ["36h", "90min", "5s", "7us"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: HistoryFeature("rule", "mean_count"), "unknown"),  # type: ignore[arg-type]
        (lambda: HistoryFeature("rule", "last_outcome", window=TICK), "takes none"),
        (lambda: HistoryFeature("rule", "raised_count", half_life=TICK), "takes none"),
        (lambda: HistoryFeature("rule", "decayed_acted_rate"), "no half-life"),
        (lambda: HistoryFeature("rule", "raised_count", window=-TICK), "above zero"),
    ],
)
def test_a_feature_that_makes_no_sense_is_refused(make, says: str) -> None:
    with pytest.raises(HeedError, match=says):
        make()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: e.drop(columns="rule"), "lacks the column 'rule'"),
        (lambda e: e.drop(columns="known_at"), "lacks the column 'known_at'"),
        (lambda e: e.drop(columns=["known_at", "acted"]), "lacks the column 'known_at' and 1 more"),
        (lambda e: e.assign(raised_at="yesterday"), "holds str, not times"),
        (lambda e: e.assign(raised_at=e["raised_at"].where(e.index > 0)), "is null in 1 rows"),
        (lambda e: e.assign(acted=0.5), "holds 0.5"),
        (lambda e: e.assign(acted="yes"), "not a number"),
        (lambda e: e.assign(rule=[["a"]] * len(e)), "cannot be compared"),
        (lambda e: pd.concat([e, e[["rule"]]], axis=1), "twice"),
    ],
)
def test_a_frame_that_makes_no_sense_is_refused(change, says: str) -> None:
    events = frame([(1, 2, 1.0, "a", "p", None, None), (2, 3, 0.0, "a", "p", None, None)])
    with pytest.raises(HeedError, match=says):
        history_features(change(events), events, every_feature(), LOOKBACK)


def test_a_window_beyond_the_lookback_is_refused() -> None:
    events = frame([(1, 2, 1.0, "a", "p", None, None)])
    features = [HistoryFeature("rule", "raised_count", window=LOOKBACK + TICK)]
    with pytest.raises(HeedError, match="longer than the lookback"):
        history_features(events, events, features, LOOKBACK)
    with pytest.raises(HeedError, match="declared twice"):
        history_features(events, events, [HistoryFeature("rule", "last_outcome")] * 2, LOOKBACK)


def test_a_loop_that_nothing_can_cache_is_compiled_all_the_same() -> None:
    # A function without a file has no place for its cache, as a package in a read-only image without a home.
    from numba import types

    from dagster_project.triage.compiled import compiled

    names: dict = {}
    exec("def twice(x):\n    return 2 * x", names)
    assert compiled(types.int64(types.int64))(names["twice"])(21) == 42
