"""The as-of law, and what the reporting views say, on random alerts with ties and ends of horizons."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from benchmarks import score_influence as influence
from dagster_project.triage.evaluation.workload import workload_curve

BEGIN = datetime(2025, 1, 6, tzinfo=UTC)
AS_OF = BEGIN + timedelta(days=30)
ALL_KNOWN = BEGIN + timedelta(days=200)
ALERTS = 900


BUILD = [
    *("build", "--select", "tag:clean", "tag:reporting", "--exclude-resource-type", "unit_test"),
    *("--vars", json.dumps({"horizon_days": 7})),
]


@pytest.fixture(scope="module")
def scored(lasting_dbt_database):
    """Alerts over 60 days on a grid of hours, so that actions, ends of horizons and the as-of meet."""
    random = np.random.default_rng(7)
    hours = random.integers(0, 60 * 24, ALERTS)
    alerts = [
        {
            "alert_id": f"a{i}",
            "raised_at": (BEGIN + timedelta(hours=int(hour))).isoformat(),
            "rule": f"rule {random.integers(5)}",
            "team": None if i % 10 == 0 else "small" if i % 45 == 1 else f"team {i % 2}",
            "loaded_at": ALL_KNOWN,
        }
        for i, hour in enumerate(hours)
    ]
    actions = []
    for k in range(3 * ALERTS):
        i = int(random.integers(ALERTS))
        actions.append(
            {
                "action_id": f"x{k}",
                "alert_id": f"a{i}",
                "acted_at": (BEGIN + timedelta(hours=int(hours[i]) + 6 * int(random.integers(0, 40)))).isoformat(),
                "action_type": str(random.choice(["fixed", "dismissed", "commented"], p=[0.2, 0.2, 0.6])),
                "loaded_at": ALL_KNOWN,
            }
        )
    made = lasting_dbt_database()
    made.fill("raw.alerts", made.ALERT, alerts)
    made.fill("raw.actions", made.ACTION, actions)
    first = random.uniform(0, 1, ALERTS).round(2).tolist()
    scores = "alert_id raised_at as_of scored_at model_version probability status flood visibility_only reasons"
    rows = []
    for i, row in enumerate(alerts):
        raised = datetime.fromisoformat(row["raised_at"])
        common = {**row, "model_version": "m", "status": "model", "visibility_only": False, "flood": i % 7 == 0}
        rows.append({**common, "as_of": raised, "scored_at": raised, "probability": first[i], "reasons": {"first": i}})
        if i % 3 == 0:
            later = raised + timedelta(days=1)
            rows.append({**common, "as_of": later, "scored_at": later, "probability": 0.5, "reasons": {"later": i}})
    random.shuffle(rows)
    made.fill("scoring.alert_scores", scores, rows)
    arms = [
        {"alert_id": f"a{i}", "assigned_at": BEGIN, "share": (i % 2 + 1) / 10, "arm": arm(i)} for i in range(10, ALERTS)
    ]
    made.fill("scoring.holdout", "alert_id assigned_at share arm", arms)
    made.first = pd.Series(first, index=[f"a{i}" for i in range(ALERTS)])
    publish = "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES (%s, now(), 0, 0)"
    made.sql(publish, (AS_OF,))
    made.run(*BUILD, as_of=AS_OF)
    made.early = outcomes(made)
    made.early_shown = made.sql(
        "SELECT alert_id, probability, status, reasons, is_open FROM reporting.alert_scores_latest"
    )
    made.early_open = dict(made.sql("SELECT alert_id, is_open FROM reporting.alert_scores_latest"))
    made.sql(publish, (ALL_KNOWN,))
    made.run(*BUILD, as_of=ALL_KNOWN)
    made.late = outcomes(made)
    return made


def arm(i: int) -> str:
    """Many are held out, at two shares; the first ten were scored before anything was drawn."""
    return "held out" if (i // 2) % (2, 3)[i % 2] == 0 else "shown"


def outcomes(made) -> pd.DataFrame:
    columns = ["alert_id", "raised_at", "horizon_ends_at", "outcome", "known_at", "decided_by"]
    rows = made.sql(f"SELECT {', '.join(columns)} FROM marts.alert_outcomes ORDER BY alert_id")
    return pd.DataFrame(rows, columns=columns).set_index("alert_id")


def test_outcomes_at_a_moment_are_the_later_ones_known_by_then(scored):
    unknown = ~(scored.late["known_at"] <= AS_OF)
    expected = scored.late.copy()
    expected.loc[unknown, ["outcome", "decided_by"]] = None
    expected.loc[unknown, "known_at"] = pd.NaT
    pd.testing.assert_frame_equal(scored.early, expected, check_dtype=False)
    assert scored.late["outcome"].notna().all()
    # The law would hold emptily without these.
    assert (scored.late["known_at"] == AS_OF).sum() >= 1
    assert unknown.sum() > 50
    assert (~unknown).sum() > 50
    assert scored.late["decided_by"].isna().sum() > 20


def test_outcomes_equal_a_plain_reading_of_their_definition(scored):
    rows = scored.sql("SELECT action_id, alert_id, acted_at, meaning FROM marts.actions")
    by_alert: dict[str, list] = {}
    for action_id, alert_id, acted_at, meaning in rows:
        by_alert.setdefault(alert_id, []).append((acted_at, meaning != "acted", action_id, meaning))
    ties = 0
    for alert_id, row in scored.late.iterrows():
        decisive = sorted(
            a
            for a in by_alert.get(str(alert_id), [])
            if a[3] != "neutral" and row.raised_at <= a[0] <= row.raised_at + timedelta(days=7)
        )
        ties += len(decisive) > 1 and decisive[0][0] == decisive[1][0]
        if decisive:
            acted_at, _, action_id, meaning = decisive[0]
            expected = ("acted" if meaning == "acted" else "not_acted", acted_at, action_id)
        else:
            expected = ("not_acted", row.raised_at + timedelta(days=7), None)
        decided_by = row.decided_by if isinstance(row.decided_by, str) else None
        assert (row.outcome, row.known_at.to_pydatetime(), decided_by) == expected
    assert len(rows) == 3 * ALERTS
    assert ties > 0


def test_latest_score_is_shown_with_its_reasons_and_whether_the_alert_is_open(scored):
    rows = scored.sql("SELECT alert_id, probability, reasons, is_open FROM reporting.alert_scores_latest")
    assert len(rows) == ALERTS
    for alert_id, probability, reasons, is_open in rows:
        i = int(alert_id[1:])
        assert (probability, reasons) == ((0.5, {"later": i}) if i % 3 == 0 else (scored.first[alert_id], {"first": i}))
        assert is_open is False
    early = scored.early["outcome"].isna()
    assert scored.early_open == early.to_dict()


def test_the_score_of_a_held_out_alert_is_shown_once_its_outcome_is_known(scored):
    hidden = 0
    for alert_id, probability, status, reasons, is_open in scored.early_shown:
        i = int(alert_id[1:])
        if is_open and i >= 10 and arm(i) == "held out":
            hidden += 1
            assert (probability, status) == (None, "holdout")
            assert ["no score is shown" in reason for reason in reasons] == [True]
        else:
            assert probability == (0.5 if i % 3 == 0 else scored.first[alert_id])
            assert status == "model"
    assert hidden > 5


def facts(scored) -> pd.DataFrame:
    """Each alert with its first score, team, flag and outcome."""
    teams = dict(scored.sql("SELECT alert_id, team FROM marts.alerts"))
    frame = scored.late.copy()
    frame["probability"] = scored.first
    frame["team"] = pd.Series(teams)
    frame["flagged"] = [int(str(name)[1:]) % 7 == 0 for name in frame.index]
    frame["acted"] = (frame["outcome"] == "acted").astype(float)
    frame["clipped"] = frame["probability"].clip(1e-6, 1 - 1e-6)
    return frame


def test_weekly_quality_equals_scikit_learn(scored):
    frame = facts(scored)
    frame["week"] = (frame["raised_at"].dt.floor("D") - pd.to_timedelta(frame["raised_at"].dt.weekday, "D")).dt.date
    columns = "alerts flagged known acted mean_probability acted_share log_loss brier base_rate_log_loss log_loss_skill"
    found = {
        row[0]: dict(zip([*columns.split(), "with_flagged", "skill_with_flagged"], row[1:], strict=True))
        for row in scored.sql(
            f"SELECT week, {', '.join(columns.split())}, log_loss_with_flagged, log_loss_skill_with_flagged "
            "FROM reporting.score_quality_weekly"
        )
    }
    assert set(found) == set(frame["week"])
    judged = 0
    for week, all_rows in frame.groupby("week"):
        rows, row = all_rows[~all_rows["flagged"]], found[week]
        assert (row["alerts"], row["known"], row["acted"]) == (len(all_rows), len(rows), rows["acted"].sum())
        if len(all_rows) >= 50:
            assert row["with_flagged"] == pytest.approx(log_loss(all_rows["acted"], all_rows["clipped"]))
        if len(rows) < 50:
            assert row["log_loss"] is row["brier"] is row["mean_probability"] is row["log_loss_skill"] is None
            continue
        judged += 1
        share = rows["acted"].mean()
        base = log_loss(rows["acted"], np.full(len(rows), share))
        assert row["acted_share"] == pytest.approx(share)
        assert row["mean_probability"] == pytest.approx(rows["probability"].mean())
        assert row["log_loss"] == pytest.approx(log_loss(rows["acted"], rows["clipped"]))
        assert row["brier"] == pytest.approx(brier_score_loss(rows["acted"], rows["probability"]))
        assert row["base_rate_log_loss"] == pytest.approx(base)
        assert row["log_loss_skill"] == pytest.approx(1 - row["log_loss"] / base)
    assert judged > 0


def test_team_scorecard_equals_scikit_learn(scored):
    frame = facts(scored)
    found = {
        row[0]: row[1:]
        for row in scored.sql(
            "SELECT team, alerts, known, acted_share, log_loss_skill, auc, status FROM reporting.team_scorecard"
        )
    }
    assert {status for *_, status in found.values()} == {"enough", "too few"}
    assert set(found) == {None, "small", "team 0", "team 1"}
    for team, (alerts, known, share, skill, auc, status) in found.items():
        all_rows = frame[frame["team"].isna()] if team is None else frame[frame["team"] == team]
        rows = all_rows[~all_rows["flagged"]]
        assert (alerts, known) == (len(all_rows), len(rows))
        if len(rows) < 50:
            assert (share, skill, auc, status) == (None, None, None, "too few")
            continue
        base = log_loss(rows["acted"], np.full(len(rows), rows["acted"].mean()))
        assert share == pytest.approx(rows["acted"].mean())
        assert skill == pytest.approx(1 - log_loss(rows["acted"], rows["clipped"]) / base)
        assert auc == pytest.approx(roc_auc_score(rows["acted"], rows["probability"]))


def test_triage_workload_counts_what_a_threshold_saves_and_misses(scored):
    frame = facts(scored)
    rows = frame[~frame["flagged"]]
    found = scored.sql(
        "SELECT source, threshold, alerts, acted, alerts_below, acted_below, share_saved, share_missed "
        "FROM reporting.triage_workload ORDER BY threshold"
    )
    curve = workload_curve(rows["probability"].to_numpy(), rows["acted"].to_numpy())
    assert [tuple(row[1:6]) for row in found] == [tuple(row) for row in curve.itertuples(index=False)]
    assert {row[0] for row in found} == {"scores"}
    for _, threshold, _, _, below, acted_below, saved, missed in found:
        under = rows[rows["probability"] < threshold]
        assert (below, acted_below) == (len(under), under["acted"].sum())
        assert saved == pytest.approx(len(under) / len(rows))
        assert missed == pytest.approx(under["acted"].sum() / rows["acted"].sum())


def test_revisions_end_at_the_quality_of_the_week_and_count_only_what_was_known(scored):
    frame = facts(scored)
    frame = frame[~frame["flagged"]]
    frame["week"] = (frame["raised_at"].dt.floor("D") - pd.to_timedelta(frame["raised_at"].dt.weekday, "D")).dt.date
    rows = scored.sql(
        "SELECT week, known_by, alerts, known, acted, log_loss FROM reporting.score_quality_revisions "
        "ORDER BY week, known_by"
    )
    final = dict(scored.sql("SELECT week, log_loss FROM reporting.score_quality_weekly"))
    last = {}
    grew = 0
    for week, known_by, alerts, known, acted, loss in rows:
        of_week = frame[frame["week"] == week]
        by_then = of_week[of_week["known_at"] <= known_by]
        assert (alerts, known, acted) == (len(of_week), len(by_then), by_then["acted"].sum())
        grew += week in last and known > last[week][0]
        last[week] = (known, loss)
    assert grew > 5
    assert {week: loss for week, (_, loss) in last.items()} == pytest.approx(final)


def test_what_showing_a_score_does_equals_the_same_in_python(scored):
    frame = facts(scored)
    number = pd.Series([int(str(name)[1:]) for name in frame.index], index=frame.index)
    frame = frame[~frame["flagged"] & (number >= 10)]
    number = number[frame.index]
    held_out, stratum = np.array([arm(i) == "held out" for i in number]), (number % 2).to_numpy()
    acted, band = frame["acted"].to_numpy(), influence.band_of(frame["probability"].to_numpy())
    hours = ((frame["known_at"] - frame["raised_at"]).dt.total_seconds() / 3600).to_numpy()
    columns = "shown_alerts, held_out_alerts, difference, low, high, verdict, people_act_differently"
    found = {row[:2]: row[2:] for row in scored.sql(f"SELECT measure, scope, {columns} FROM reporting.score_influence")}
    assert len(found) == 10
    scopes = ["0% to 10%", "10% to 25%", "25% to 50%", "50% to 100%"]
    joint = []
    for scope, mask in [("all alerts", band >= 0), *((name, band == at) for at, name in enumerate(scopes))]:
        shown, out = mask & ~held_out, mask & held_out
        by = [[part & (stratum == at) for at in (0, 1)] for part in (shown, out)]
        counted = [(np.array([acted[m].sum() for m in part]), np.array([m.sum() for m in part])) for part in by]
        expected = influence.difference_of_shares(*counted[0], *counted[1])
        row = found["acted share", scope]
        assert row[:2] == (shown.sum(), out.sum())
        if out.sum() < 50:
            assert row[2:6] == (None, None, None, "too few")
            continue
        joint += [expected.chi_square] if scope != "all alerts" else []
        assert row[2:5] == pytest.approx((expected.value, expected.low, expected.high))
        # One stratum is not the whole for hours: the view weighs strata as it does for shares.
        difference, low, high = found["hours to the first decision", scope][2:5]
        parts = [influence.difference_of_means(hours[a], hours[b]) for a, b in zip(*by, strict=True)]
        assert min(p.value for p in parts) <= difference <= max(p.value for p in parts)
        assert low < difference < high
    assert len(joint) > 1
    said = {True: "yes", False: "not seen"}[bool(influence.acts_differently(joint))]
    assert found["acted share", "all alerts"][6] == said
