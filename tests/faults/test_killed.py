"""kill -9 at each stage, of the process and all that it started: nothing half-done is seen, the next run recovers."""

import time

from tests.faults.conftest import Row
from tests.faults.soak import Soak


def test_killed_while_it_loads(soak: Soak, row: Row) -> None:
    part = soak.part()
    before = soak.value("SELECT count(*) FROM raw.alerts")
    with soak.writers_wait("raw.alerts"):
        soak.load(part, "killed").is_blocked_at("raw.alerts").kill()
    assert soak.value("SELECT count(*) FROM raw.alerts") == before
    soak.load(part, "killed").succeeds()
    row("killed while loading", "kill -9 before the commit", soak.recovers())


def test_killed_while_dbt_cleans(soak: Soak, row: Row) -> None:
    """Between two tables: alerts are new, their outcomes are old."""
    soak.bring()
    with soak.writers_wait("marts.alert_outcomes"):
        soak.run().is_blocked_at("marts.alert_outcomes").kill()
    finding = soak.doctor("runs")
    assert finding is not None
    assert finding.status == "look"
    assert "was cut off: its process ended without a word in the step clean" in finding.found
    row("killed in dbt", "kill -9 between two tables", soak.recovers(cut_off=True))


def test_killed_alone_while_dbt_cleans(soak: Soak, row: Row) -> None:
    """The run dies, dbt lives on for a moment: the next run must not meet it."""
    soak.bring()
    with soak.writers_wait("marts.alert_outcomes"):
        soak.run().is_blocked_at("marts.alert_outcomes").kill_alone()
        time.sleep(1)
    row("killed, dbt not", "kill -9 of the run alone", soak.recovers(cut_off=True))


def test_killed_while_features_are_derived(soak: Soak, row: Row) -> None:
    soak.bring()
    soak.run().reaches("features__alert_features").kill()
    row("killed in features", "kill -9 at the step's start", soak.recovers(cut_off=True))


def test_killed_while_it_learns(soak: Soak, row: Row) -> None:
    soak.bring()
    soak.run("--retrain").reaches("training__candidate_model").kill()
    row("killed while learning", "kill -9 at the step's start", soak.recovers(cut_off=True))


def test_killed_while_the_gate_decides(soak: Soak, row: Row) -> None:
    """A candidate stands, nothing was decided about it: the champion before scores."""
    soak.bring()
    champion = soak.value("SELECT model_version FROM training.champion_decisions ORDER BY decision_id DESC LIMIT 1")
    with soak.writers_wait("training.champion_decisions"):
        soak.run("--retrain").is_blocked_at("training.champion_decisions").kill()
    row("killed at the gate", "kill -9 before the decision", soak.recovers(cut_off=True))
    assert soak.value("SELECT count(*) FROM training.model_versions") == 2
    assert soak.value("SELECT model_version FROM scoring.publications ORDER BY as_of DESC LIMIT 1") == champion


def test_killed_while_it_publishes(soak: Soak, row: Row) -> None:
    """All scores are written, their publication is not yet: readers keep the scores of before, all of them."""
    soak.bring()
    before = soak.value("SELECT count(*) FROM scoring.alert_scores")
    with soak.writers_wait("scoring.publications"):
        soak.run().is_blocked_at("scoring.publications").kill()
    assert soak.value("SELECT count(*) FROM scoring.alert_scores") == before
    row("killed in publication", "kill -9 before the commit", soak.recovers(cut_off=True))
    assert soak.value("SELECT count(*) FROM scoring.alert_scores") > before


def test_killed_while_dbt_publishes(soak: Soak, row: Row) -> None:
    soak.bring()
    command = soak.run().reaches("reporting")
    time.sleep(1)  # views are being built
    command.kill()
    row("killed in reporting", "kill -9 while views are built", soak.recovers(cut_off=True))
