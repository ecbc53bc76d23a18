"""A Dask cluster of two worker processes on loopback gives the same features, and trees as good."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dagster_project.errors import HeedError
from dagster_project.resources import cluster as module
from dagster_project.resources.cluster import Cluster
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.history import history_features
from dagster_project.triage.features.history.parts import compute_part, in_parts
from dagster_project.triage.features.keys import key_values
from dagster_project.triage.learning.boosting import Binned, Fit, joined_text
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.learning.training import train
from tests.triage.learning_world import START, facts

pytestmark = pytest.mark.slow

SETTINGS = FeatureSettings()
DEEP = ("all facts and names, deep", "few facts and names, deep")  # the two that score where much is known
WANTED = history_features_for(SETTINGS)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as standing:
        yield standing.scheduler_address


@pytest.fixture(scope="module")
def alerts() -> pd.DataFrame:
    return facts(24_000, 300, seed=5)


@pytest.fixture(scope="module")
def streams(alerts: pd.DataFrame) -> pd.DataFrame:
    made = pd.concat([key_values(alerts, SETTINGS.keys), alerts[["raised_at", "known_at", "acted"]]], axis=1)
    # Some values are missing, some alerts are out of every history for a while, some for ever.
    made.loc[made.index % 50 == 7, "entity"] = None
    made["excluded_from"] = made["raised_at"].where(made.index % 11 == 3)
    made["excluded_until"] = (made["excluded_from"] + pd.Timedelta(days=9)).where(made.index % 2 == 0)
    return made


def test_features_are_the_same_bytes(address: str, streams: pd.DataFrame) -> None:
    at = streams[streams["raised_at"] >= START + pd.Timedelta(days=60)]
    here = history_features(streams, at, WANTED, SETTINGS.lookback)
    there = Cluster(address, worth=0).history_features(streams, at, WANTED, SETTINGS.lookback)
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    assert there.to_numpy().tobytes() == here.to_numpy().tobytes()


@pytest.mark.parametrize("most_parts", [1, 3, 40])
def test_the_answer_does_not_depend_on_the_number_of_parts(streams: pd.DataFrame, most_parts: int) -> None:
    seen: list[int] = []

    def backwards(parts: Any) -> Any:
        made = [(part, compute_part(part)) for part in parts]
        seen.append(len(made))
        return reversed(made)

    some = streams.iloc[::8]
    at = some.iloc[400:].sample(frac=1, random_state=1)
    made = in_parts(some, at, WANTED, SETTINGS.lookback, backwards, most_parts, least=1)
    assert made.to_numpy().tobytes() == history_features(some, at, WANTED, SETTINGS.lookback).to_numpy().tobytes()
    # As many parts of each key as it has values, at most.
    assert seen == [sum(min(most_parts, some[key].nunique()) for key in SETTINGS.keys)]


def test_trees_are_as_good(address: str, alerts: pd.DataFrame, streams: pd.DataFrame) -> None:
    """Cross-entropy against the world's own probabilities, on alerts later than all that was learned from."""
    clean = streams.drop(columns=["excluded_from", "excluded_until"])
    frame = pd.concat([alerts, history_features(clean, clean, WANTED, SETTINGS.lookback)], axis=1)
    cut = START + pd.Timedelta(days=200)
    settings = LearningSettings(
        tree_recipes=tuple(replace(c, minimum_alerts=0, trees=200) for c in TREE_RECIPES if c.name in DEEP),
        many_alerts=0,
        folds_of_many=1,
        tuning_alerts=2_000,
        replicates=20,
        threads=1,
    )
    asked: list[Fit] = []

    def fit(one: Fit) -> str:
        asked.append(one)
        return Cluster(address).fit(one)

    past, later = frame[frame["known_at"] <= cut], frame[frame["raised_at"] >= cut]
    here = train(past, cut.to_pydatetime(), settings)
    there = train(past, cut.to_pydatetime(), replace(settings, fit_elsewhere=fit))
    assert (here.kind, there.kind, there.members) == ("mixture", "mixture", here.members)
    assert len(asked) == there.members, "the cluster makes the final fits, and only them"
    truth = later["truth"].to_numpy()
    losses = [
        -np.mean(truth * np.log(p) + (1 - truth) * np.log1p(-p)) for p in (m.predict(later) for m in (here, there))
    ]
    assert abs(losses[1] / losses[0] - 1) < 0.005


def test_one_worker_makes_the_trees_of_one_machine(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every parameter arrives: one worker has all alerts, and then nothing may differ."""
    import distributed

    with distributed.Client(address) as client:
        one = sorted(client.nthreads())[:1]
    monkeypatch.setattr(module, "_workers", lambda client: one)
    random = np.random.default_rng(3)
    matrix = random.normal(size=(4_000, 6)).astype(np.float32)
    matrix[:, 0] = random.integers(0, 9, len(matrix))
    acted = (random.random(len(matrix)) < 1 / (1 + np.exp(-matrix[:, 1] - matrix[:, 0] % 3))).astype(np.float64)
    binned = Binned(matrix, acted, [f"column{i}" for i in range(6)], [0], seed=9, threads=1)
    rows, weight = np.arange(0, len(matrix)), random.uniform(0.5, 1.5, len(matrix))
    asked = (weight, {"num_leaves": 12, "lambda_l2": 20.0}, range(6), 30)
    there = binned.fit_elsewhere(matrix.copy(), acted, *asked, Cluster(address).fit)
    assert joined_text([there]) == joined_text([binned.fit(rows, *asked)])


@pytest.mark.parametrize("what", ["nobody answers", "other versions", "no extra"])
def test_what_stands_in_the_way_is_one_line(
    address: str, streams: pd.DataFrame, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_TO_CONNECT", 1)
    if what == "nobody answers":
        address, said = "tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"
    elif what == "other versions":
        here = module.versions_here()
        # In this process only: the workers are others.
        monkeypatch.setattr(module, "version", lambda name: "2.0.0" if name == "pandas" else here[name])
        said = f"has pandas {here['pandas']}, where this machine has 2.0.0"
    else:
        import sys

        monkeypatch.setitem(sys.modules, "distributed", None)
        said = 'install heed with its extra: pip install "heed\\[cluster\\]"'
    with pytest.raises(HeedError, match=f"(?i){said}") as raised:
        Cluster(address, worth=0).history_features(streams, streams, WANTED, timedelta(days=180))
    assert "\n" not in str(raised.value)


def test_little_work_asks_nobody(streams: pd.DataFrame) -> None:
    few = streams.head(100)
    made = Cluster("tcp://127.0.0.1:9").history_features(few, few, WANTED, SETTINGS.lookback)
    pd.testing.assert_frame_equal(made, history_features(few, few, WANTED, SETTINGS.lookback), check_exact=True)
    assert not Cluster()
