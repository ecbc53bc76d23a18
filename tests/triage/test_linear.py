"""The linear contender: forecasts from the first outcomes on, the same bytes always, and nothing from after its cut."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import log_loss
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.history import history_features
from dagster_project.triage.features.keys import key_values
from dagster_project.triage.learning.mixture import linear
from dagster_project.triage.learning.mixture.facts import plan_facts
from dagster_project.triage.learning.mixture.linear import (
    LINEAR,
    MEAN_OF_RATES,
    RECIPES,
    Linear,
    encode,
    fit_linear,
)
from dagster_project.triage.learning.mixture.quotes import (
    claims_of_words,
    count_words,
    counts_from_document,
    counts_to_document,
)
from dagster_project.triage.learning.reasons.claims import convincing
from tests.triage.learning_world import facts

SETTINGS = FeatureSettings(half_lives=(timedelta(days=28),), lifelong=True, lookback=timedelta(days=3650))
WORDS = np.array(["disk", "queue", "login", "deadlock", "latency", "quota"])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    alerts = facts(900, 90, 4)
    rng = np.random.default_rng(4)
    pick = rng.integers(0, 6, (len(alerts), 2))
    alerts["title"] = [f"{WORDS[a]} of {WORDS[b]}" for a, b in pick]
    # "deadlock" is acted on, "quota" is not, whatever the rule says.
    pull = 3.0 * (pick == 3).any(axis=1) - 3.0 * (pick == 5).any(axis=1)
    truth = 1 / (1 + np.exp(-(np.log(alerts["truth"] / (1 - alerts["truth"])) + pull)))
    alerts["acted"] = (rng.random(len(alerts)) < truth).astype(float)
    streams = pd.concat([key_values(alerts, SETTINGS.keys), alerts[["raised_at", "known_at", "acted"]]], axis=1)
    history = history_features(streams, streams, history_features_for(SETTINGS), SETTINGS.lookback)
    return pd.concat([alerts.assign(truth=truth), history], axis=1)


def _fit(frame: pd.DataFrame, n: int) -> dict[str, Linear]:
    encoded = encode(frame, SETTINGS, plan_facts(frame.iloc[:n]))
    acted = frame["acted"].to_numpy()[:n]
    return fit_linear(encoded, np.arange(n), acted, frame["raised_at"].iloc[n - 1])


def test_it_reads_titles_where_they_decide(frame: pd.DataFrame) -> None:
    later, models = frame.iloc[700:], _fit(frame, 700)
    acted = later["acted"].to_numpy()
    loss = {name: log_loss(model.predict(later), acted) for name, model in models.items()}
    assert set(loss) == {r.name for r in RECIPES}
    truth = log_loss(later["truth"].to_numpy(), acted)
    rates = loss[MEAN_OF_RATES]
    assert loss[LINEAR] < rates - 0.5 * (rates - truth), (loss, truth)
    told = models[LINEAR].facts["words of title"]
    assert max(told, key=lambda word: told[word]) == "deadlock"
    assert min(told, key=lambda word: told[word]) == "quota"


def test_kinds_that_decide_speak_and_the_others_are_silent(
    frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words move the log-odds by 3 each way, which the first spread of 0.5 hardly allows; entities say nothing."""
    frame = frame.assign(entity=[f"host-{i % 40}" for i in range(len(frame))])
    later, estimated = frame.iloc[700:], _fit(frame, 700)[LINEAR]
    monkeypatch.setattr(linear, "SPREAD_STEPS", 0)
    fixed = _fit(frame, 700)[LINEAR]
    assert estimated.facts["words of title"]["deadlock"] > 1.5 * fixed.facts["words of title"]["deadlock"]
    of_hosts = [sum(abs(b) for b in m.facts.get("entity", {}).values()) for m in (fixed, estimated)]
    assert of_hosts[1] < 0.7 * of_hosts[0], of_hosts
    acted = later["acted"].to_numpy()
    assert log_loss(estimated.predict(later), acted) < log_loss(fixed.predict(later), acted)


def test_reasons_quote_words_with_counts_that_are_true(frame: pd.DataFrame) -> None:
    before, later, model = frame.iloc[:700], frame.iloc[700:], _fit(frame, 700)[LINEAR]
    encoded = encode(frame, SETTINGS, plan_facts(before))
    counted = count_words([(model, 0.5)], encoded.facts, np.arange(700), before["acted"].to_numpy())
    with_it = before["title"].str.contains("deadlock")
    assert counted["words of title"]["deadlock"] == (with_it.sum(), before["acted"][with_it].sum())
    assert counts_from_document(json.loads(json.dumps(counts_to_document(counted)))) == counted
    usual = float(before["acted"].mean())
    told = convincing(claims_of_words(later, [(model, 0.5)], counted, usual), usual, np.full(len(later), 0.9), 3)
    quoting = [reasons for reasons, title in zip(told, later["title"], strict=True) if "deadlock" in title and reasons]
    assert quoting
    assert any('"deadlock" in the title' in reason.text for reasons in quoting for reason in reasons)
    assert claims_of_words(later.drop(columns="title"), [(model, 0.5)], counted, usual)[0].push.any() == 0


@pytest.mark.parametrize("n", [1, 2, 10, 50])
def test_few_outcomes_are_enough_to_say_something(frame: pd.DataFrame, n: int) -> None:
    later = frame.iloc[700:]
    for model in _fit(frame, n).values():
        p = model.predict(later)
        assert np.isfinite(p).all()
        assert (p > 0).all()
        assert (p < 1).all()
        if n == 1:
            assert np.ptp(p) < 0.99, "one outcome is no reason to be certain"


def test_without_an_outcome_the_prior_speaks(frame: pd.DataFrame) -> None:
    encoded = encode(frame, SETTINGS, plan_facts(frame))
    nothing = np.zeros(0, dtype=np.int64)
    for model in fit_linear(encoded, nothing, np.zeros(0), frame["raised_at"].iloc[0]).values():
        assert model.predict(frame.iloc[:1])[0] == pytest.approx(0.5, abs=0.01)


def test_the_same_alerts_give_the_same_bytes_and_storage_changes_no_forecast(frame: pd.DataFrame) -> None:
    later = frame.iloc[700:]
    for name, model in _fit(frame, 300).items():
        text = json.dumps(model.to_document(), sort_keys=True, allow_nan=False)
        again = _fit(frame.sample(frac=1, random_state=1).sort_values(["raised_at", "alert_id"]), 300)[name]
        assert json.dumps(again.to_document(), sort_keys=True, allow_nan=False) == text
        stored = Linear.from_document(json.loads(text), SETTINGS)
        assert np.array_equal(stored.predict(later), model.predict(later))


def test_forecasts_do_not_depend_on_their_company(frame: pd.DataFrame) -> None:
    later = frame.iloc[700:]
    for model in _fit(frame, 300).values():
        whole = model.predict(later)
        alone = np.concatenate([model.predict(later.iloc[i : i + 1]) for i in range(0, 200, 40)])
        assert np.allclose(alone, whole[::40], rtol=0, atol=1e-12)


def test_outcomes_after_the_cut_change_nothing(frame: pd.DataFrame) -> None:
    other = frame.copy()
    other.loc[other.index[300:], "acted"] = 1 - other["acted"].iloc[300:]
    for once, again in zip(_fit(frame, 300).values(), _fit(other, 300).values(), strict=True):
        assert once.to_document() == again.to_document()


def test_what_training_never_saw_moves_nothing_out_of_bounds(frame: pd.DataFrame) -> None:
    strange = frame.iloc[700:710].assign(
        rule="never", entity="seen", team=None, title="\x00 ''", severity="??", attributes="no json", value=1e300
    )
    for model in _fit(frame, 300).values():
        p = model.predict(strange)
        assert np.isfinite(p).all()
        assert (p > 1e-4).all()
        assert (p < 1 - 1e-4).all()


def test_damage_is_named(frame: pd.DataFrame) -> None:
    document = next(iter(_fit(frame, 50).values())).to_document()
    for wrong in (None, {}, document | {"rate": 2.0}, document | {"columns": []}, document | {"mean": ["x"]}):
        with pytest.raises(HeedError, match="malformed"):
            Linear.from_document(wrong, SETTINGS)
    with pytest.raises(HeedError, match="malformed"):
        Linear.from_document(document, replace(SETTINGS, keys=("rule",)))
    model = Linear.from_document(document, SETTINGS)
    with pytest.raises(HeedError, match="is missing"):
        model.predict(frame.iloc[:2].drop(columns=["rule_known_count_28d"]))


def test_facts_are_planned_without_looking_at_outcomes(frame: pd.DataFrame) -> None:
    kinds = plan_facts(frame)
    assert {"rule", "rule+entity", "@kind", "rule+@kind", "words of title", "hour"} <= set(kinds)
    assert "@ticket" not in kinds, "an id names nothing that recurs"
    assert plan_facts(frame.drop(columns=["acted", "known_at"])) == kinds
    assert plan_facts(frame[["raised_at", "rule"]].iloc[:0]) == ("hour", "weekday")
