"""The untidy export: every fault is counted, and a plain cleaner gets the world back."""

import gzip
import json

import pandas as pd
import pytest

from benchmarks.worlds import clean_rows, duplicate_rows, history_of, rejected_rows
from dagster_project.simulator import (
    ACTION_TYPES,
    MAX_CLOCK_SKEW_SECONDS,
    WorldConfig,
    export_messy,
    simulate,
)

WORLD = simulate(WorldConfig(seed=1, alerts=6_000))


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    return export_messy(WORLD, tmp_path_factory.mktemp("export"), seed=4)


def read(path):
    return pd.read_csv(path, dtype="str", keep_default_na=False, na_values=[""])


def moments(texts):
    return pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce").dt.as_unit("us")


def blank(texts):
    return texts.isna() | (texts.str.strip() == "")


def test_clean_duplicates_and_rejects_add_up_to_the_rows_of_each_file(messy):
    for table, path in (("alerts", messy.alerts), ("actions", messy.actions), ("rules", messy.rules)):
        rows = len(pd.read_csv(path, dtype="str", skip_blank_lines=False))
        assert rows == messy.counts[table]["rows"]
        assert rows == clean_rows(messy, table) + duplicate_rows(messy, table) + rejected_rows(messy, table)
        assert duplicate_rows(messy, table) > 0
        assert rejected_rows(messy, table) > 0
    assert all(count > 0 for table in messy.counts.values() for count in table.values())


def test_each_fault_of_the_alerts_is_there_as_often_as_counted(messy):
    frame, counts = read(messy.alerts), messy.counts["alerts"]
    time = moments(frame["raised_at"])
    future = time > pd.Timestamp(WORLD.config.end)
    rejected = blank(frame["alert_id"]) | frame["rule"].isna() | time.isna() | future
    assert blank(frame["alert_id"]).sum() == counts["empty_id"]
    assert frame["rule"].isna().sum() == counts["empty_rule"]
    assert time.isna().sum() == counts["unreadable_time"]
    assert future.sum() == counts["future_time"]
    assert rejected.sum() == rejected_rows(messy, "alerts")
    kept = frame[~rejected]
    assert kept.duplicated().sum() == counts["identical_duplicate"]
    assert kept["alert_id"].duplicated().sum() == duplicate_rows(messy, "alerts")
    broken = kept["attributes"].map(lambda text: _object(text) is None)
    assert broken[~kept["alert_id"].duplicated()].sum() >= counts["broken_attributes"]


def _object(text):
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def test_a_plain_cleaner_gets_the_alerts_back(messy):
    frame = read(messy.alerts)
    frame["raised_at"] = moments(frame["raised_at"])
    frame = frame[~blank(frame["alert_id"]) & frame["rule"].notna()]
    frame = frame[frame["raised_at"] <= pd.Timestamp(WORLD.config.end)]
    clean = frame.drop_duplicates("alert_id", keep="first").sort_values("alert_id").reset_index(drop=True)
    truth = WORLD.alerts
    assert clean["alert_id"].tolist() == truth["alert_id"].tolist()
    assert clean["raised_at"].tolist() == truth["raised_at"].tolist()
    for column in ("rule", "team", "severity"):
        given = clean[column].str.strip().str.lower()
        assert (given.isna() | (given == truth[column].str.lower())).all()
        assert given.notna().mean() > 0.95
    value = clean["value"].astype(float)
    assert (value.isna() | (value == truth["value"])).all()
    assert value.isna().sum() > truth["value"].isna().sum()
    assert (clean["platform"] == WORLD.facts["platform"]).all()


def test_the_commonest_spelling_of_a_rule_is_its_own(messy):
    frame = read(messy.alerts).dropna(subset=["rule"])
    spelling = frame["rule"].str.strip()
    busiest = spelling.groupby(spelling.str.lower()).agg(lambda s: s.value_counts().index[0])
    assert set(busiest) <= set(WORLD.rules["rule"])


def test_a_plain_cleaner_gets_the_outcomes_back(messy):
    frame, counts = read(messy.actions), messy.counts["actions"]
    frame["acted_at"] = moments(frame["acted_at"])
    raised = WORLD.alerts.set_index("alert_id")["raised_at"].dt.as_unit("us")
    frame["raised_at"] = frame["alert_id"].map(raised)
    end = pd.Timestamp(WORLD.config.end)
    skew = frame["raised_at"] - frame["acted_at"]
    too_early = skew > pd.Timedelta(seconds=MAX_CLOCK_SKEW_SECONDS)
    faults = {
        "empty_id": blank(frame["action_id"]),
        "unreadable_time": frame["acted_at"].isna(),
        "future_time": frame["acted_at"] > end,
        "orphan": frame["raised_at"].isna(),
        "empty_type": frame["action_type"].isna(),
        "before_alert": too_early,
    }
    for kind, rows in faults.items():
        # A faulty copy may be of a skewed row, never of another faulty one.
        assert rows.sum() == counts[kind], kind
    clean = frame[~pd.concat(faults, axis=1).any(axis=1)].drop_duplicates("action_id", keep="last")
    assert len(clean) == clean_rows(messy, "actions")
    skewed = clean["acted_at"] < clean["raised_at"]
    own = clean["action_id"].str.startswith("ac-")
    assert (skewed & own).sum() == counts["clock_skew"]
    meaning = clean["action_type"].str.strip().str.lower().map(ACTION_TYPES)
    assert meaning.isna().sum() == counts["unknown_type"]

    clean = clean.assign(meaning=meaning.fillna("neutral"), at=clean[["acted_at", "raised_at"]].max(axis=1))
    decisive = clean[(clean["meaning"] != "neutral") & (clean["at"] <= clean["raised_at"] + pd.Timedelta(days=14))]
    first = decisive.sort_values("at", kind="stable").drop_duplicates("alert_id").set_index("alert_id")["meaning"]
    history = history_of(WORLD, as_of=end)
    known = history.dropna(subset=["acted"])
    assert ((known["alert_id"].map(first) == "acted") == (known["acted"] == 1)).all()
    # And nothing is known from the files that the world does not know at the export.
    assert set(first.index) <= set(known["alert_id"])


def test_the_same_world_and_seed_give_the_same_bytes(messy, tmp_path):
    again, other = export_messy(WORLD, tmp_path / "a", seed=4), export_messy(WORLD, tmp_path / "b", seed=5)
    for name in ("alerts", "actions", "rules", "action_types"):
        assert getattr(messy, name).read_bytes() == getattr(again, name).read_bytes()
    assert messy.alerts.read_bytes() != other.alerts.read_bytes()
    assert again.counts == messy.counts


def test_offsets_and_fractions_are_mixed(messy):
    with gzip.open(messy.alerts, "rt") as lines:
        text = lines.read()
    for piece in ("Z,", "+02:00,", "-0500,", "+0530,"):
        assert piece in text.replace('"', "")
    times = read(messy.alerts)["raised_at"].dropna()
    fraction = times.str.contains(".", regex=False).mean()
    assert 0.2 < fraction < 0.95
    assert times.str.contains("T").mean() < 0.9


def test_a_tiny_world_exports_too(tmp_path):
    messy = export_messy(simulate(WorldConfig(alerts=1, days=1)), tmp_path)
    assert clean_rows(messy, "alerts") == 1
