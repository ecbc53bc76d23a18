"""History of words: equal to counting by hand, and blind to what was not known yet."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.learning.sparse import character_grams, sparse_facts, words
from dagster_project.triage.learning.words import STRENGTH, word_history
from dagster_project.triage.metrics import logit

LONG = timedelta(days=36_500)


def _alerts(n: int = 200, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    raised = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.sort(rng.integers(0, 40 * 86_400, n)), unit="s")
    pick = rng.integers(0, 6, (n, 2))
    vocabulary = np.array(["disk", "full", "Deadlock", "login", "slow", "queue"])
    title = [None if i % 17 == 0 else f"{vocabulary[a]} {vocabulary[b]}!" for i, (a, b) in enumerate(pick)]
    known = raised + pd.to_timedelta(rng.integers(0, 14 * 86_400, n), unit="s")
    return pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(n)],
            "raised_at": raised.as_unit("us"),
            "known_at": known.as_unit("us"),
            "acted": (rng.random(n) < 0.4).astype(float),
            "title": pd.Series(title, dtype=object),
            "rule": "r",
        }
    )


def test_words_are_read_once_in_lower_case_with_their_neighbours() -> None:
    assert words("Disk FULL: disk /var") == ["disk", "full", "var", "disk full", "full disk", "disk var"]
    assert words("") == []
    assert words("—") == []
    assert character_grams("Go abcde") == ["^go$", "^abc", "abcd", "bcde", "cde$"]


def test_the_history_of_words_is_what_counting_by_hand_gives() -> None:
    alerts = _alerts()
    made = word_history(alerts, alerts, ["title"], LONG)
    for i in (0, 17, 60, 120, 199):
        at = alerts.iloc[i]
        before = alerts[alerts["known_at"] < at["raised_at"]]
        rate = (before["acted"].sum() + 0.5) / (len(before) + 1)
        if at["title"] is None:
            assert made.iloc[i].isna().all()
            continue
        odds, known = [], []
        for word in words(at["title"]):
            same = before[[t is not None and word in words(t) for t in before["title"]]]
            share = (same["acted"].sum() + STRENGTH * rate) / (len(same) + STRENGTH)
            odds.append(float(logit(np.array(share)) - logit(np.array(rate))))
            known.append(len(same))
        assert np.allclose(made.iloc[i], [np.mean(odds), max(odds), min(odds), max(known)], atol=1e-5)


def test_no_outcome_reaches_a_word_before_it_is_known() -> None:
    alerts = _alerts(seed=3)
    moment = alerts["raised_at"].iloc[120]
    other = alerts.assign(acted=np.where(alerts["known_at"] >= moment, 1 - alerts["acted"], alerts["acted"]))
    before = (alerts["raised_at"] <= moment).to_numpy()
    once, again = (word_history(a, a, ["title"], LONG)[before] for a in (alerts, other))
    pd.testing.assert_frame_equal(once, again)


def test_rows_asked_apart_from_the_events_get_the_same_answer() -> None:
    alerts = _alerts(seed=5)
    whole = word_history(alerts, alerts, ["title"], LONG)
    later = alerts.iloc[150:]
    part = word_history(alerts, later.drop(columns=["acted", "known_at"]), ["title"], LONG)
    pd.testing.assert_frame_equal(part, whole.iloc[150:])


def test_frames_without_text_have_no_words() -> None:
    alerts = _alerts(20).assign(title=None)
    assert word_history(alerts, alerts, ["title", "@message"], LONG).isna().all(axis=None)


def test_sparse_facts_name_every_column_and_leave_out_what_is_missing() -> None:
    frame = pd.DataFrame(
        {
            "rule": ["a", "b", None],
            "team": ["x", None, "x"],
            "raised_at": pd.to_datetime(["2024-01-01 05:00", "2024-01-02 00:00", "2024-01-07 23:59"], utc=True),
            "attributes": ['{"region": 7}', None, '{"region": "7"}'],
        }
    )
    kinds = ("rule", "rule+team", "@region", "hour", "weekday", "words of title", "@nothing")
    facts = {f.name: f for f in sparse_facts(frame, kinds)}
    assert facts["rule"].matrix.toarray().tolist() == [[1, 0], [0, 1], [0, 0]]
    assert facts["rule+team"].values.tolist() == ["a\x1fx"]
    assert facts["rule+team"].matrix.toarray().sum() == 1
    assert facts["@region"].values.tolist() == ["7"]
    assert facts["@region"].matrix.toarray()[:, 0].tolist() == [1, 0, 1]
    assert facts["hour"].matrix[0, 5] == 1
    assert facts["weekday"].matrix[2, 6] == 1
    assert facts["words of title"].matrix.shape == (3, 0)
    assert facts["@nothing"].matrix.shape == (3, 0)
