"""The whole road on a simulated company: what comes out is complete, honest and repeatable."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from upath import UPath

from benchmarks.worlds import clean_rows, duplicate_rows, history_of
from dagster_project.assets import features, scoring
from dagster_project.definitions import build_defs
from dagster_project.errors import HeedError
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.triage.features.contract import contract
from dagster_project.triage.learning.model import Model
from tests.conftest import PROJECT, Company


def test_every_raw_row_is_clean_a_duplicate_or_rejected(company: Company) -> None:
    found = company.warehouse.read("SELECT * FROM marts.load_reconciliation").set_index("source")
    for table in ("alerts", "actions"):
        row = found.loc[table]
        assert row["raw_rows"] == row["clean_rows"] + row["duplicate_rows"] + row["rejected_rows"]
        assert row["raw_rows"] == company.put_in.counts[table]["rows"]
        assert row["clean_rows"] == clean_rows(company.put_in, table)
        assert row["duplicate_rows"] == duplicate_rows(company.put_in, table)


def test_outcomes_are_those_of_the_world(company: Company) -> None:
    """Python's own definition of the outcome, in the simulator, against SQL's, on what both kept."""
    truth = history_of(company.world, horizon_days=14).set_index("alert_id")
    seen = read_history(company.warehouse, company.end).set_index("alert_id")
    common = truth.index.intersection(seen.index)
    assert len(common) == len(seen)
    known = truth.loc[common, "known_at"] <= company.end
    expected = truth.loc[common, "acted"].where(known)
    # The export loses a few actions (unreadable times, empty ids): an alert may then have lost its decision.
    differing = (expected.fillna(-1) != seen.loc[common, "acted"].fillna(-1)).mean()
    assert differing < 0.01


def test_every_open_alert_has_a_score(company: Company) -> None:
    open_alerts = company.warehouse.value(
        "SELECT count(*) FROM marts.alert_outcomes WHERE outcome IS NULL AND raised_at < $1 AND horizon_ends_at > $1",
        (company.end,),
    )
    scored = company.warehouse.read("SELECT * FROM reporting.alert_scores_latest WHERE is_open")
    assert open_alerts > 20
    assert len(scored) == open_alerts
    shown = scored[scored["status"] != "holdout"]
    assert shown["probability"].between(0, 1, inclusive="neither").all()
    assert scored.loc[scored["status"] == "holdout", "probability"].isna().all()
    reasons = [json.loads(text) for text in scored["reasons"]]
    # Three of the raise, and before them what the clock says.
    assert all(1 <= len(these) - these[0].startswith("nobody has decided it for") <= 3 for these in reasons)


def test_scores_tell_good_from_bad(company: Company) -> None:
    """On open alerts nobody decided before, the champion ranks by the world's own probability."""
    scored = company.warehouse.read("SELECT alert_id, probability FROM scoring.alert_scores")
    both = scored.merge(company.world.truth, on="alert_id", suffixes=("", "_true"))
    both = both[~both["is_flood"]]
    assert both["probability"].corr(both["probability_true"], method="spearman") > 0.3


def test_the_model_stands_beside_every_baseline(company: Company) -> None:
    evaluation = company.warehouse.read("SELECT * FROM training.model_evaluations")
    assert {"model", "always_no_action", "constant_rate", "rate_per_rule", "repeat_last_per_rule"} <= set(
        evaluation["contender"]
    )
    loss = evaluation[(evaluation["metric"] == "log_loss") & (evaluation["slice"] == "unflagged")]
    assert loss["alerts"].nunique() == 1, "contenders were measured on different alerts"


def test_the_candidate_was_audited_and_no_leak_found(company: Company) -> None:
    findings = company.warehouse.read("SELECT * FROM training.audit_findings")
    assert {"future removed", "features by definition", "shuffled outcomes"} <= set(findings["check_name"])
    accusing = findings[findings["verdict"].isin(["leak", "suspicious"])]
    assert accusing.empty, accusing["finding"].to_list()
    assert findings["check_name"].str.startswith("shortcut").sum() == 1
    teams = company.warehouse.read("SELECT * FROM training.team_scorecards")
    assert set(teams["status"]) <= {"predictable", "partly", "unpredictable", "too few"}
    assert len(teams) > 1


def test_floods_are_flagged_and_incidents_are_not(company: Company) -> None:
    from dagster_project.triage.flags.exclusion import flag_alerts

    history = read_history(company.warehouse, company.end)
    flags = flag_alerts(history, *read_flags(company.warehouse), as_of=company.end)
    truth = company.world.truth.set_index("alert_id").loc[history["alert_id"]]
    flood, incident = truth["is_flood"].to_numpy(), truth["is_incident"].to_numpy()
    assert flags["flood"].to_numpy()[flood].mean() > 0.8
    assert flags["flood"].to_numpy()[incident].mean() < 0.1


@pytest.mark.slow
def test_parts_give_the_features_and_scores_of_the_whole(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 alerts come at once, derived, checked, scored and published by 70; taken as a whole they say nothing new."""
    store = FeatureStore(UPath(company.home) / "features", contract(company.settings.feature_settings())["hash"])
    today = (company.end - timedelta(milliseconds=1)).date()
    spill = company.home / "spill"
    with company.warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO raw.alerts (alert_id, raised_at, rule, loaded_at) SELECT 'at once ' || n, "
            "($1::timestamptz - n * interval '1 second')::text, (SELECT min(rule) FROM marts.alerts), now() "
            "FROM generate_series(1, 150) AS n",
            parameters=(company.end,),
        )
    try:
        with monkeypatch.context() as patch:
            for assets in (features, scoring):
                patch.setattr(assets, "ALERTS_AT_ONCE", 70)
            outcome = company.run("refresh_scores", company.end)
            made = store.read(today, today)
        assert outcome.metadata["scoring/alert_scores"]["new scores"] == 150
        assert len(made) > 150
        assert pq.ParquetFile(str(store.path(today))).num_row_groups > 2
        assert not list(spill.rglob("*.arrow"))
        outcome = company.run("refresh_scores", company.end)
        assert outcome.metadata["scoring/alert_scores"]["new scores"] == 0
        pd.testing.assert_frame_equal(store.read(today, today), made)
        pd.testing.assert_frame_equal(pd.concat(store.read_parts(today, today, 40), ignore_index=True), made)
    finally:
        with company.warehouse.transaction() as cursor:
            cursor.execute("DELETE FROM raw.alerts WHERE alert_id LIKE 'at once %'")
        # They go in a run that meets a file that it cannot read: features are derived again, in parts as well.
        earlier = store.path(today - timedelta(days=3))
        intact = earlier.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(scoring, "ALERTS_AT_ONCE", 20)
            earlier.write_bytes(intact[:200])
            outcome = company.run("refresh_scores", company.end)
            earlier.write_bytes(intact)
    assert outcome.metadata["scoring/alert_scores"]["new scores"] == 0


def test_what_happens_later_does_not_change_an_earlier_moment(company: Company) -> None:
    """A run at an earlier as-of sees neither later alerts nor later outcomes: its history is the later one, cut."""
    earlier = company.end - timedelta(days=20)
    later = read_history(company.warehouse, company.end)
    cut = later[later["raised_at"] < earlier].reset_index(drop=True)
    unknown = ~(cut["known_at"] <= earlier)
    cut.loc[unknown, "acted"] = np.nan
    cut.loc[unknown, "known_at"] = pd.NaT
    pd.testing.assert_frame_equal(read_history(company.warehouse, earlier), cut)


@pytest.mark.slow
def test_an_earlier_as_of_uses_no_later_model(company: Company) -> None:
    store = ModelStore(company.warehouse)
    assert store.champion(company.end) is not None
    assert store.champion(company.end - timedelta(days=1)) is None


class ForgetfulModel:
    """A champion whose forecasts are missing: what a damaged model would say."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __getattr__(self, name: str) -> object:
        return getattr(self._model, name)

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        forecast = self._model.predict(frame)
        forecast[:2] = np.nan
        return forecast


class ForgetfulStore(ModelStore):
    def load(self, model_version: str) -> Model:
        return ForgetfulModel(super().load(model_version))  # type: ignore[return-value]


@pytest.mark.slow
def test_a_failing_check_stops_publication_and_says_which_rows(company: Company) -> None:
    before = company.warehouse.value("SELECT count(*) FROM scoring.alert_scores")
    job = build_defs(
        settings=company.settings, warehouse=company.warehouse, models=ForgetfulStore(company.warehouse)
    ).resolve_job_def("refresh_scores")
    moment = company.end + timedelta(minutes=1)
    result = job.execute_in_process(
        instance=company.instance, tags={AS_OF_TAG: moment.isoformat()}, raise_on_error=False
    )
    assert not result.success
    failed = [
        event.asset_check_evaluation_data
        for event in result.all_events
        if event.event_type_value == "ASSET_CHECK_EVALUATION" and not event.asset_check_evaluation_data.passed
    ]
    critical = [check for check in failed if check.severity.value == "ERROR"]
    assert critical
    open_alerts = set(company.warehouse.read("SELECT alert_id FROM reporting.alert_scores_latest")["alert_id"])
    assert any(alert in (check.description or "") for check in critical for alert in open_alerts), "no row is named"
    assert not any(
        event.event_type_value == "STEP_START" and event.step_key == "reporting" for event in result.all_events
    )
    assert company.warehouse.value("SELECT count(*) FROM scoring.alert_scores") == before


@pytest.mark.slow
def test_a_damaged_model_is_refused_in_one_line(company: Company) -> None:
    before = company.warehouse.value("SELECT count(*) FROM scoring.alert_scores")
    version = company.warehouse.value("SELECT model_version FROM training.champion_decisions LIMIT 1")
    query = "UPDATE training.model_versions SET document = jsonb_set(document, '{kind}', $1::text::jsonb)"
    kind = json.dumps(company.warehouse.value("SELECT document->>'kind' FROM training.model_versions LIMIT 1"))
    with company.warehouse.transaction() as cursor:
        cursor.execute(query, parameters=('"other"',))
    try:
        with pytest.raises(HeedError) as raised:
            company.run("refresh_scores", company.end + timedelta(minutes=1))
    finally:
        with company.warehouse.transaction() as cursor:
            cursor.execute(query, parameters=(kind,))
    assert "stored model" in str(raised.value)
    assert version in str(raised.value)
    assert "\n" not in str(raised.value)
    assert company.warehouse.value("SELECT count(*) FROM scoring.alert_scores") == before


def test_what_a_contract_forbids_to_be_null_the_warehouse_itself_forbids(company: Company) -> None:
    """No query asks for it in each run: the tables refuse."""
    told = yaml.safe_load((PROJECT / "dbt_project" / "models" / "marts" / "_marts.yml").read_text(encoding="utf-8"))
    wanted = {
        (model["name"], column["name"])
        for model in told["models"]
        for column in model["columns"]
        if {"type": "not_null"} in column.get("constraints", [])
    }
    held = company.warehouse.read_arrow(
        "SELECT c.relname::text AS name, a.attname::text AS column FROM pg_attribute AS a "
        "JOIN pg_class AS c ON c.oid = a.attrelid WHERE c.relnamespace = 'marts'::regnamespace AND a.attnotnull"
    ).to_pylist()
    assert len(wanted) > 20
    assert wanted <= {(row["name"], row["column"]) for row in held}
