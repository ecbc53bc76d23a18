"""The simulated world: exact promises by equality, promises about randomness as intervals that a fault would leave."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from benchmarks.worlds import best_reachable_auc, history_of, teams_of, without_floods
from dagster_project.errors import HeedError
from dagster_project.simulator import ACTION_TYPES, WorldConfig, simulate

SEEDS = (0, 1, 2)
WORLDS = {seed: simulate(WorldConfig(seed=seed, alerts=40_000)) for seed in SEEDS}


@pytest.fixture(params=SEEDS)
def world(request):
    return WORLDS[request.param]


def brute_force_outcome(raised_at, actions, horizon):
    """The definition of DESIGN, read aloud, for one alert."""
    ends = raised_at + horizon
    decisive = [a for a in actions if a[1] != "neutral" and raised_at <= a[0] <= ends]
    if not decisive:
        return 0.0, ends
    first = min(decisive)
    return float(first[1] == "acted"), first[0]


def repeat_last(history):
    """(N,) the rule's last outcome known before each alert, nan when there is none."""
    outcomes = history[["rule", "known_at", "acted"]].sort_values("known_at", kind="stable")
    joined = pd.merge_asof(
        history[["rule", "raised_at"]],
        outcomes.rename(columns={"acted": "last"}),
        left_on="raised_at",
        right_on="known_at",
        by="rule",
        allow_exact_matches=False,
    )
    return joined["last"].to_numpy()


# --- what is exact ---------------------------------------------------------------------------------------------


def test_the_frames_keep_the_contract(world):
    alerts, actions = world.alerts, world.actions
    assert len(alerts) == 40_000
    assert list(alerts.columns) == [
        "alert_id", "raised_at", "rule", "entity", "team", "severity", "value", "threshold", "title", "attributes",
        "loaded_at",
    ]  # fmt: skip
    assert alerts["alert_id"].is_unique
    assert alerts["raised_at"].is_monotonic_increasing
    assert str(alerts["raised_at"].dtype) == str(actions["acted_at"].dtype) == "datetime64[us, UTC]"
    assert alerts["raised_at"].max() < world.config.end
    assert alerts["raised_at"].min() >= world.config.end - timedelta(days=200)
    assert actions["action_id"].is_unique
    assert actions["acted_at"].max() <= world.config.end < world.all_actions["acted_at"].max()
    assert actions["alert_id"].isin(alerts["alert_id"]).all()
    assert set(actions["action_type"]) == set(ACTION_TYPES)
    assert set(alerts["rule"]) <= set(world.rules["rule"])
    assert world.rules["rule"].is_unique
    facts = pd.json_normalize(alerts["attributes"].iloc[:500].map(json.loads).tolist()).astype(str)
    pd.testing.assert_frame_equal(facts, world.facts.iloc[:500], check_dtype=False)


def test_no_action_comes_before_its_alert(world):
    raised = world.alerts.set_index("alert_id")["raised_at"]
    assert (world.all_actions["acted_at"].to_numpy() > raised.loc[world.all_actions["alert_id"]].to_numpy()).all()


def test_the_same_configuration_gives_the_same_world_and_another_seed_another():
    config = WorldConfig(seed=5, alerts=3_000)
    first, again, other = simulate(config), simulate(config), simulate(replace(config, seed=6))
    for name in ("alerts", "all_actions", "rules", "truth", "rule_truth", "floods", "incidents", "teams"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(again, name))
    assert not first.alerts["raised_at"].equals(other.alerts["raised_at"])


def test_history_is_the_definition_of_the_outcome(world):
    actions: dict[str, list] = {}
    for alert, at, meaning in world.all_actions[["alert_id", "acted_at", "meaning"]].itertuples(index=False, name=None):
        actions.setdefault(alert, []).append((at, meaning))
    for horizon in (1, 14):
        history = history_of(world, horizon)
        for row in history.sample(400, random_state=1).itertuples():
            acted, known = brute_force_outcome(row.raised_at, actions.get(row.alert_id, []), timedelta(days=horizon))
            assert (row.acted, row.known_at) == (acted, known)


def test_history_at_the_horizon_of_the_world_is_the_truth(world):
    history = history_of(world)
    np.testing.assert_array_equal(history["acted"], world.truth["acted"])
    assert history["known_at"].equals(world.truth["known_at"])
    assert (history["known_at"] <= history["horizon_ends_at"]).all()


def test_history_as_of_a_moment_knows_no_more_than_that(world):
    cut = pd.Timestamp("2025-04-01 12:00", tz="UTC")
    full, then = history_of(world), history_of(world, as_of=cut)
    assert len(then) == (full["raised_at"] < cut).sum()
    full = full.iloc[: len(then)]
    known = full["known_at"] <= cut
    assert 0 < (~known).sum() < len(then)
    np.testing.assert_array_equal(then["acted"], full["acted"].where(known))
    assert then["known_at"].notna().equals(known)
    assert then["outcome"].notna().equals(known)


def test_a_world_without_its_floods_is_the_same_company(world):
    calm = without_floods(world)
    stays = ~world.truth["is_flood"]
    assert len(calm.alerts) == stays.sum() < len(world.alerts)
    pd.testing.assert_frame_equal(calm.alerts, world.alerts[stays].reset_index(drop=True))
    assert calm.floods.empty
    np.testing.assert_array_equal(history_of(calm)["acted"], history_of(world)["acted"][stays])


def test_floods_and_incidents_are_listed_where_they_are(world):
    truth, alerts = world.truth, world.alerts
    day = alerts["raised_at"].dt.floor("D")
    for flood in world.floods.itertuples():
        inside = (truth["flood_id"] == flood.flood_id) & (day == flood.day)
        assert inside.sum() == flood.alerts
        assert set(alerts["rule"][inside]) <= set(json.loads(flood.rules))
        if flood.kind == "source":
            assert set(world.facts["source"][inside]) == {flood.scope}
        elif flood.kind == "team":
            assert set(alerts["team"][inside]) == {flood.scope}
        else:
            assert set(alerts["rule"][inside]) == {flood.scope}
    assert truth["is_flood"].sum() == world.floods["alerts"].sum()
    assert truth["is_incident"].sum() == world.incidents["alerts"].sum()
    assert not (truth["is_flood"] & truth["is_incident"]).any()
    assert truth["flood_id"].notna().equals(truth["is_flood"])
    # The scope holds the bug's alerts and the genuine ones beside them.
    flooded = set(zip(alerts["rule"][truth["is_flood"]], day[truth["is_flood"]], strict=True))
    expected = [pair in flooded for pair in zip(alerts["rule"], day, strict=True)]
    assert truth["in_flood_scope"].tolist() == expected
    assert 0 < (truth["in_flood_scope"] & ~truth["is_flood"]).sum() < truth["is_flood"].sum()
    # The days of one flood follow each other.
    for _, days in world.floods.groupby("flood_id")["day"]:
        assert (days.diff().dropna() == timedelta(days=1)).all()


def test_nobody_acts_on_a_visibility_only_rule_and_some_are_declared(world):
    truth = world.truth
    only = truth["is_visibility_only"]
    assert set(world.alerts["rule"][only]) == set(world.rule_truth["rule"][world.rule_truth["is_visibility_only"]])
    assert not (history_of(world)["acted"][only] == 1).any()
    declared = set(world.rules["rule"][world.rules["declared_visibility_only"]])
    assert declared
    assert declared <= set(world.rule_truth["rule"][world.rule_truth["is_visibility_only"]])


def test_best_reachable_auc_is_what_many_draws_reach():
    rng = np.random.default_rng(3)
    p = rng.beta(0.5, 2, 3_000)
    drawn = np.mean([roc_auc_score(rng.random(p.size) < p, p) for _ in range(40)])
    assert best_reachable_auc(p) == pytest.approx(drawn, abs=0.004)
    assert best_reachable_auc(np.full(10, 0.3)) == 0.5
    assert np.isnan(best_reachable_auc(np.zeros(10)))


# --- what is random, in intervals ------------------------------------------------------------------------------


def test_the_truth_is_calibrated(world):
    truth = world.truth
    tenth = pd.qcut(truth["probability"], 10, labels=False, duplicates="drop")
    groups = truth.groupby(tenth)
    z = (groups["acted"].mean() - groups["probability"].mean()) / np.sqrt(
        groups["probability"].agg(lambda p: (p * (1 - p)).sum()) / groups.size() ** 2 + 1e-12
    )
    assert z.abs().max() < 4


def test_the_world_can_be_learned_but_not_by_repeating(world):
    truth = world.truth
    real = (~(truth["is_flood"] | truth["is_visibility_only"])).to_numpy()
    oracle = roc_auc_score(truth["acted"][real], truth["probability"][real])
    assert 0.85 <= oracle <= 0.93
    assert 0.15 <= truth["acted"].mean() <= 0.25
    last = repeat_last(history_of(world)[real].reset_index(drop=True))
    repeated = roc_auc_score(truth["acted"][real], np.nan_to_num(last, nan=0.2))
    assert 0.55 <= repeated <= oracle - 0.15


def test_teams_go_from_predictable_to_random(world):
    teams = teams_of(world).sort_values("predictability")
    assert 0.5 <= teams["best_reachable_auc"].iloc[0] <= 0.62
    assert teams["best_reachable_auc"].iloc[-1] >= 0.89
    assert teams["best_reachable_auc"].corr(teams["predictability"], method="spearman") > 0.8
    # What people did bears it out.
    truth, team = world.truth, world.alerts["team"]
    for row in teams.itertuples():
        inside = (team == row.name) & ~truth["is_flood"] & ~truth["is_visibility_only"]
        assert inside.sum() == row.alerts
        reached = roc_auc_score(truth["acted"][inside], truth["probability"][inside])
        assert reached == pytest.approx(row.best_reachable_auc, abs=0.05)


def test_floods_are_dismissed_or_ignored_and_incidents_are_acted_on():
    truth = pd.concat(w.truth for w in WORLDS.values())
    floods = pd.concat(w.floods for w in WORLDS.values())
    incidents = pd.concat(w.incidents for w in WORLDS.values())
    assert truth["acted"][truth["is_flood"]].mean() < 0.03
    assert 0.6 < truth["acted"][truth["is_incident"]].mean() < 0.9
    assert floods["factor"].between(3, 50).all()
    assert incidents["factor"].between(2, 10).all()
    assert set(floods["kind"]) == {"rule", "source", "team"}
    busy = (floods["alerts"] + floods["expected"]) / floods["expected"]
    assert busy.corr(floods["factor"]) > 0.95


def test_an_incident_is_visible_in_the_volume():
    for w in WORLDS.values():
        daily = w.alerts.groupby(["rule", w.alerts["raised_at"].dt.floor("D")]).size()
        for incident in w.incidents.itertuples():
            rules = json.loads(incident.rules)
            that_day = sum(daily.get((rule, incident.day), 0) for rule in rules)
            assert that_day == incident.alerts
            assert that_day > 1.3 * incident.expected


def test_dead_campaigns_are_dismissed(world):
    ended = (world.facts["campaign_status"] == "ended") & ~world.truth["is_incident"] & ~world.truth["is_flood"]
    assert ended.mean() > 0.01
    assert world.truth["acted"][ended].mean() < 0.02


def test_ordinary_rules_are_acted_on_often_enough_to_be_told_from_visibility_only():
    for w in WORLDS.values():
        truth = w.truth
        keep = ~(truth["is_flood"] | truth["is_visibility_only"] | truth["is_incident"])
        by_rule = truth[keep].groupby(w.alerts["rule"][keep])["probability"].agg(["mean", "size"])
        assert by_rule["mean"][by_rule["size"] >= 150].min() > 0.025


def test_habits_change_where_the_truth_says_so():
    # Weights of 3: the change must show above the rest.
    world = simulate(WorldConfig(seed=4, alerts=40_000, rules=60, habit_changes=3.0, predictability="predictable"))
    changed = world.rule_truth.dropna(subset=["habit_change_day"])
    frame = world.truth.assign(rule=world.alerts["rule"], raised_at=world.alerts["raised_at"])
    frame = frame[~(frame["is_flood"] | frame["is_incident"] | frame["is_visibility_only"])]
    moves = []
    for rule in changed.itertuples():
        mine = frame[frame["rule"] == rule.rule]
        after = mine["raised_at"] >= rule.habit_change_day
        if min(after.sum(), (~after).sum()) >= 60:
            move = mine["probability"][after].mean() - mine["probability"][~after].mean()
            moves.append(move if rule.habit_change == "begins" else -move)
    assert len(moves) >= 3
    assert min(moves) > 0
    none = simulate(WorldConfig(seed=4, alerts=2_000, habit_changes=False))
    assert none.rule_truth["habit_change_day"].isna().all()


def test_habit_pulls_the_next_decision_to_the_last():
    def gap(habit):
        world = simulate(WorldConfig(seed=2, alerts=15_000, habit=habit, predictability="predictable", teams=2, rules=2,
                                     habit_changes=0, visibility_only_rules=0, floods=0, incident_days=0))  # fmt: skip
        last = repeat_last(history_of(world))
        p = world.truth["probability"].to_numpy()
        return np.nanmean(p[last == 1]) - np.nanmean(p[last == 0])

    assert gap(1.0) > gap(0.0) + 0.05


def test_weekends_are_quiet_and_the_trend_is_as_asked():
    def thirds(trend):
        raised = simulate(WorldConfig(seed=3, alerts=10_000, trend=trend, floods=0, incident_days=0)).alerts[
            "raised_at"
        ]
        third = (raised - raised.min()) / (raised.max() - raised.min()) * 3
        return (third > 2).sum() / (third < 1).sum(), (raised.dt.weekday >= 5).mean()

    assert 1.6 < thirds("growing")[0] < 2.8
    assert 1.4 < 1 / thirds("shrinking")[0] < 2.8
    ratio, weekend = thirds("quiet")
    assert 0.8 < ratio < 1.25
    assert 0.1 < weekend < 0.2


def test_late_and_missing_answers_are_as_many_as_asked():
    world = simulate(WorldConfig(seed=1, alerts=10_000, predictability="noise", late_answers=0.1, missing_answers=0.5))
    history = history_of(world)
    not_acted = history["acted"] == 0
    decisive = world.all_actions[world.all_actions["meaning"] != "neutral"]
    first = history["alert_id"].map(decisive.groupby("alert_id")["acted_at"].min())
    assert (first.isna() & not_acted).sum() / not_acted.sum() == pytest.approx(0.5, abs=0.02)
    late = first > history["horizon_ends_at"]
    assert late.sum() / not_acted.sum() == pytest.approx(0.1, abs=0.015)
    # First decisive wins: some alerts are acted on after they were dismissed, and count as dismissed.
    both = decisive.groupby("alert_id")["meaning"].agg(list)
    changed_mind = [i for i, m in both.items() if m[:2] == ["dismissed", "acted"]]
    assert changed_mind
    assert (history.set_index("alert_id").loc[changed_mind, "acted"] == 0).all()


# --- modes -----------------------------------------------------------------------------------------------------


def test_noise_has_one_probability_and_nothing_else():
    world = simulate(WorldConfig(seed=1, alerts=20_000, predictability="noise"))
    assert world.truth["probability"].nunique() == 1
    assert world.truth["probability"].iloc[0] == pytest.approx(world.config.base_rate)
    assert not world.truth[["is_flood", "is_incident", "is_visibility_only"]].any().any()
    assert (teams_of(world)["best_reachable_auc"] == 0.5).all()
    by_rule = world.truth.groupby(world.alerts["rule"])["acted"].agg(["mean", "size"])
    z = (by_rule["mean"] - world.config.base_rate) / np.sqrt(0.22 * 0.78 / by_rule["size"])
    assert z.std() == pytest.approx(1, abs=0.35)


def test_in_a_copy_only_world_nothing_beats_the_last_outcome():
    world = simulate(WorldConfig(seed=1, alerts=20_000, predictability="copy_only"))
    last = repeat_last(history_of(world))
    seen = ~np.isnan(last)
    assert seen.mean() > 0.95
    # The truth is a function of the last outcome, and of nothing else.
    assert len(set(zip(last[seen], world.truth["probability"][seen], strict=True))) == 2
    assert 0.1 < world.truth["acted"].mean() < 0.3


def test_predictability_can_be_given_per_team():
    config = WorldConfig(
        seed=1, alerts=20_000, teams=("Red", "Blue", "Green"), predictability={"Red": 0.0, "Blue": 1.0}
    )
    teams = teams_of(simulate(config)).set_index("name")["best_reachable_auc"]
    assert teams["Red"] < 0.6 < 0.9 < teams["Blue"]


def test_without_floods_incidents_and_visibility_only_rules():
    world = simulate(WorldConfig(seed=1, alerts=2_000, floods=0, incident_days=0, visibility_only_rules=0))
    assert not world.truth[["is_flood", "is_incident", "is_visibility_only"]].any().any()
    assert world.floods.empty
    assert world.incidents.empty
    assert not world.rules["declared_visibility_only"].any()


def test_shown_scores_pull_decisions_by_the_share_that_follows_them():
    config = WorldConfig(seed=1, alerts=20_000, score_influence=0.3, habit=0)
    plain = simulate(config)
    scores = np.where(np.arange(20_000) % 2 == 0, 0.9, np.nan)
    shown = simulate(config, shown_scores=scores)
    pd.testing.assert_frame_equal(plain.alerts, shown.alerts)
    truth, told = shown.truth, ~np.isnan(scores)
    np.testing.assert_allclose(truth["probability"][told], 0.7 * truth["probability_without_score"][told] + 0.3 * 0.9)
    np.testing.assert_array_equal(truth["probability"][~told], plain.truth["probability"][~told])
    np.testing.assert_array_equal(truth["acted"][~told], plain.truth["acted"][~told])
    np.testing.assert_array_equal(history_of(shown)["acted"], truth["acted"])
    effect = truth["acted"][told].mean() - plain.truth["acted"][told].mean()
    assert effect == pytest.approx((truth["probability"] - plain.truth["probability"])[told].mean(), abs=0.02)


# --- any world -------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    alerts=st.integers(1, 800),
    days=st.integers(1, 90),
    rules=st.none() | st.integers(1, 60),
    minute=st.integers(0, 24 * 60),
    mode=st.sampled_from(["mixed", "predictable", "copy_only", "noise"]),
    trend=st.sampled_from(["quiet", "growing", "shrinking"]),
    floods=st.none() | st.integers(0, 5),
)
def test_every_world_keeps_its_promises(seed, alerts, days, rules, minute, mode, trend, floods):
    end = datetime(2025, 3, 31, tzinfo=UTC) + timedelta(minutes=minute)
    world = simulate(
        WorldConfig(
            seed=seed, alerts=alerts, days=days, end=end, rules=rules, predictability=mode, trend=trend, floods=floods
        )
    )
    assert len(world.alerts) == len(world.truth) == len(world.facts) == alerts
    assert world.alerts["raised_at"].max() < end
    assert world.truth["probability"].between(0, 1).all()
    assert world.truth["is_flood"].sum() == world.floods["alerts"].sum()
    history = history_of(world)
    np.testing.assert_array_equal(history["acted"], world.truth["acted"])
    assert history["known_at"].equals(world.truth["known_at"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"alerts": 0}, "alerts"),
        ({"days": 1.5}, "days"),
        ({"end": datetime(2025, 1, 1)}, "end"),
        ({"trend": "sideways"}, "trend"),
        ({"flood_factor": (0.5, 3)}, "flood_factor"),
        ({"predictability": "psychic"}, "predictability"),
        ({"predictability": {"Search": 2.0}}, "Search"),
        ({"predictability": {"Nobody": 0.5}}, "Nobody"),
        ({"base_rate": 0}, "base_rate"),
        ({"late_answers": 0.8}, "late_answers"),
        ({"teams": ("A", "A")}, "teams"),
        ({"teams": 9, "rules": 3}, "teams"),
        ({"visibility_only_rules": 5, "rules": 5}, "visibility_only_rules"),
        ({"score_influence": 1.2}, "score_influence"),
    ],
)
def test_impossible_worlds_are_refused_by_name(wrong, named):
    with pytest.raises(HeedError, match=named):
        simulate(WorldConfig(**{"alerts": 100, **wrong}))


def test_shown_scores_that_do_not_fit_are_refused():
    config = WorldConfig(alerts=100, score_influence=0.1)
    with pytest.raises(HeedError, match="shown scores"):
        simulate(config, shown_scores=np.zeros(99))
    with pytest.raises(HeedError, match="probabilities"):
        simulate(config, shown_scores=np.full(100, 1.5))
