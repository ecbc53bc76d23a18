"""The chance now: its laws, what it must not know, and that it is right at every age where the truth is known."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.learning.time_to_decision import (
    EVERYWHERE,
    GROUP_MINIMUM,
    Curves,
    chance_now,
    fit_curves,
    no_curves,
    steps,
)

HORIZON = timedelta(days=14)
START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = 86_400.0


def past(alerts: int, seed: int = 0, days: float = 90.0, teams: int = 3) -> pd.DataFrame:
    """Alerts with known delays. Acted: log-normal around 2 h in the first team, slower in each further one. Of the
    others, half are dismissed around a day and half never answered."""
    rng = np.random.default_rng(seed)
    raised = rng.uniform(0, days, alerts) * DAY
    team = rng.integers(0, teams, alerts)
    log_odds = rng.normal(-1, 1.5, alerts)
    acted = rng.random(alerts) < metrics.expit(log_odds)
    quick = np.exp(rng.normal(np.log(2.0 * 3.0**team), 1.0)) * 3_600
    slow = np.where(rng.random(alerts) < 0.5, np.exp(rng.normal(np.log(24.0), 1.0, alerts)) * 3_600, np.inf)
    lag = np.minimum(np.where(acted, np.minimum(quick, 13 * DAY), slow), 14 * DAY)
    return pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(alerts)],
            "raised_at": times(raised),
            "known_at": times(raised + lag),
            "acted": acted.astype(float),
            "probability": metrics.expit(log_odds),
            "team": [f"team {t}" for t in team],
            "rule": [f"rule {r}" for r in rng.integers(0, 4, alerts)],
        }
    )


def times(seconds: np.ndarray) -> pd.Series:
    return pd.Series(pd.Timestamp(START) + pd.to_timedelta(seconds.round(), unit="s")).astype("datetime64[us, UTC]")


def at(day: float) -> datetime:
    return START + timedelta(days=day)


HISTORY = past(6_000)
FITTED = fit_curves(HISTORY, at(90), HORIZON)
GROUPS = sorted(FITTED.coefficients)
chances = st.floats(0.0, 1.0, allow_subnormal=False)
ages = st.floats(-DAY, 20 * DAY)


@given(chances, chances, ages, st.sampled_from([*GROUPS, "a group that nobody knows"]))
def test_the_chance_now_stays_in_bounds_and_keeps_the_order(p: float, q: float, age: float, group: str) -> None:
    low, high = FITTED.now(np.array(sorted((p, q))), np.array([group, group], dtype=object), np.array([age, age]))
    assert 0 <= low <= 1
    assert 0 <= high <= 1
    assert low <= high + 1e-15


@given(chances, st.sampled_from(GROUPS), ages)
def test_at_the_raise_it_is_the_chance_at_the_raise_and_certainty_stays(p: float, group: str, age: float) -> None:
    one = np.array([group], dtype=object)
    assert FITTED.now(np.array([p]), one, np.array([0.0]))[0] == p
    for certain in (0.0, 1.0):
        assert FITTED.now(np.array([certain]), one, np.array([age]))[0] == certain


@given(st.integers(0, 50), st.integers(0, 400), st.floats(0.0, 90.0))
def test_what_is_known_later_and_the_order_of_rows_change_nothing(seed: int, alerts: int, cut: float) -> None:
    history = past(alerts, seed)
    fitted = fit_curves(history, at(cut), HORIZON)
    later = (history["raised_at"] + HORIZON > pd.Timestamp(at(cut))).to_numpy()
    changed = history.copy()
    changed.loc[later, "acted"] = 1 - changed.loc[later, "acted"]
    changed.loc[later, "known_at"] = pd.Timestamp(at(cut)) + pd.Timedelta(days=1)
    unknown = history.copy()
    unknown["acted"], unknown["known_at"] = unknown["acted"].mask(later), unknown["known_at"].mask(later)
    shuffled = history.sample(frac=1, random_state=seed)
    for other in (changed, unknown, shuffled, history[~later]):
        assert fit_curves(other, at(cut), HORIZON).to_document() == fitted.to_document()


def test_the_cut_is_a_moment_and_not_all_of_the_past() -> None:
    """A cut read in the wrong unit makes every alert ripe."""
    ripe = int((HISTORY["raised_at"] + HORIZON <= pd.Timestamp(at(60))).sum())
    assert 0 < ripe < len(HISTORY)
    assert fit_curves(HISTORY, at(60), HORIZON).alerts == ripe


def test_with_nothing_known_every_chance_stays() -> None:
    p = np.linspace(0.001, 0.999, 50)
    for curves in (
        no_curves(at(0), HORIZON),
        fit_curves(HISTORY, at(14), HORIZON),
        fit_curves(past(49), at(200), HORIZON),
    ):
        group = np.full(50, EVERYWHERE, dtype=object)
        assert np.array_equal(curves.now(p, group, np.linspace(0, 14 * DAY, 50)), p)


def test_few_alerts_of_a_group_use_the_curve_of_all() -> None:
    few = HISTORY.assign(team=np.where(np.arange(len(HISTORY)) < GROUP_MINIMUM - 1, "small", HISTORY["team"]))
    curves = fit_curves(few, at(200), HORIZON)
    small, team, rule = curves.groups(["small", "team 0", "team 0"], ["rule 0", "new rule", "rule 1"])
    assert small == EVERYWHERE
    assert team == "team:team 0"
    assert rule == "rule:6:team 0:rule 1"


def test_names_of_groups_do_not_collide() -> None:
    curves = no_curves(at(0), HORIZON)
    nothing = curves.coefficients[EVERYWHERE]
    wide = replace(curves, coefficients={EVERYWHERE: nothing, "rule:1:a:b:c": nothing, "rule:3:a:b:c": nothing})
    assert list(wide.groups(["a", "a:b"], ["b:c", "c"])) == ["rule:1:a:b:c", "rule:3:a:b:c"]
    assert list(wide.groups([None], [None])) == [EVERYWHERE]


def test_it_is_right_at_every_age() -> None:
    """Known truth: other alerts than those learned from, by age."""
    curves = fit_curves(past(20_000, 1), at(200), HORIZON)
    later = past(20_000, 2)
    lag = (later["known_at"] - later["raised_at"]).dt.total_seconds().to_numpy()
    group = curves.groups(later["team"], later["rule"])
    for age in (0.75 * 3_600, 6 * 3_600, DAY, 2 * DAY, 5 * DAY, 9 * DAY):
        still = lag > age
        now = curves.now(later["probability"].to_numpy()[still], group[still], np.full(still.sum(), age))
        acted = later["acted"].to_numpy()[still]
        assert abs(now.mean() - acted.mean()) < 0.02
        before = later["probability"].to_numpy()[still]
        assert metrics.log_loss(now, acted) < metrics.log_loss(before, acted)
        for team in ("team 0", "team 2"):
            mine = (later["team"] == team).to_numpy()[still]
            assert abs(now[mine].mean() - acted[mine].mean()) < 0.03


def test_the_view_gives_the_same_number_to_the_last_bit(warehouse: Warehouse) -> None:
    """The formula in SQL, on every step of a curve, on steps that bend, and on chances over their whole range."""
    rng = np.random.default_rng(3)
    # Curves of earlier releases have a and c; those learned today do not.
    tried = np.concatenate([FITTED.coefficients[EVERYWHERE], rng.exponential(size=(60, 3))])
    p = np.concatenate([rng.random(400), [0.0, 1.0, 1e-6, 1 - 1e-6, 0.5]])
    cases = pd.DataFrame({"p": np.tile(p, len(tried))})
    for place, name in enumerate("abc"):
        cases[name] = np.repeat(tried[:, place], len(p))
    expected = chance_now(*(cases[name].to_numpy() for name in ("p", "a", "b", "c")))
    sql = """
        select case when p >= 1 then 1 else odds / (odds + (1 - p)) end
        from cases,
        lateral (select a * sqrt(p * (1 - p)) + b * p
            + c * p * sqrt(p * (1 - p)) / case when p >= 1 then 1 else 1 - p end as odds) as o
        order by n"""
    with warehouse.transaction() as cursor:
        cursor.adbc_ingest("cases", pa.Table.from_pandas(cases.rename_axis("n").reset_index()), temporary=True)
        cursor.execute(sql)
        read = cursor.fetch_arrow_table().column(0).to_numpy()
    assert np.array_equal(read, expected)


def test_a_step_holds_from_its_age_to_the_next() -> None:
    for group, values in FITTED.coefficients.items():
        for age in (0, 299, 300, 7_200, 7_201, 1_000_000):
            row = values[[step for step, first in enumerate(FITTED.ages) if first <= age][-1]]
            now = FITTED.now(np.array([0.3]), np.array([group], dtype=object), np.array([age]))
            assert chance_now(np.array([0.3]), *row)[0] == now[0]


def test_the_document_keeps_every_digit_and_refuses_what_is_no_curve() -> None:
    text = json.dumps(FITTED.to_document(), allow_nan=False)
    again = Curves.from_document(json.loads(text))
    assert json.dumps(again.to_document()) == text
    damages: list[Callable[[dict[str, Any]], object]] = [
        lambda d: d.pop("ages"),
        lambda d: d["coefficients"].pop(EVERYWHERE),
        lambda d: d["coefficients"][EVERYWHERE][3].__setitem__(1, -1.0),
        lambda d: d["coefficients"][EVERYWHERE][3].__setitem__(1, float("nan")),
        lambda d: d["coefficients"][EVERYWHERE].pop(),
        lambda d: d.__setitem__("format", 2),
    ]
    for damage in damages:
        document = json.loads(text)
        damage(document)
        with pytest.raises(HeedError, match="malformed"):
            Curves.from_document(document)


@given(st.floats(1.0, 365.0))
def test_steps_cover_the_horizon(days: float) -> None:
    made = steps(timedelta(days=days))
    assert made[0] == 0
    assert (np.diff(made) > 0).all()
    assert made[-1] < days * DAY <= made[-1] + DAY
