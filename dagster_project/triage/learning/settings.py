"""How to learn: the recipes of trees, and the settings of learning.

Belongs here: what is fitted, and the numbers that say how.
Does not belong here: learning itself (`training.py`), and what a user sets (`dagster_project/settings.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.learning import boosting

# Age is weighed instead of cut off: an alert of a year ago counts half. A judgement that the linear model shares.
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class TreeRecipe:
    """One way to grow trees; those for the number of alerts at hand are blended.

    history : which history columns take part: "all" or "few" (one long share, the last outcome, one decayed share, the
        gap).
    names : whether names (rule, entity, ...) take part in addition to what is known about them.
    half_life : the weight of an alert halves with this age.
    minimum_alerts, maximum_alerts : it takes part from so many mature alerts on, and below so many.
    trees : how many. parameters : over the common LightGBM parameters.
    """

    name: str
    history: str = "all"
    names: bool = False
    half_life: timedelta = YEAR
    minimum_alerts: int = 0
    maximum_alerts: int | None = None
    trees: int = 250
    parameters: tuple[tuple[str, Any], ...] = ()


# Two that differ in what they know or can express. Where little is known, small trees without names are best (real
# alerts: 0.29 skill over repeat-last against 0.26 of deep trees with names); where much is, deep trees with names
# (simulated worlds of 100,000 alerts: 0.895 of the reachable skill against 0.856), and then a second view with few
# history columns adds 0.002 to 0.003.
#
# Nothing is chosen in the past. A competition between these and further recipes (newest alerts first, without history,
# with bursts, gaps and trends), between numbers of trees, and between calibration maps, decided on the inner cuts, had
# a log-loss of 0.518 on package alerts, where this blend has 0.454, and of 0.562 on the service desk, where it has
# 0.561: an inner cut knows less than production will, and a level that moves makes maps wrong.
#
# With fewer than 20,000 alerts deep trees split only where it saves half a nat (`min_gain_to_split` is twice that); a
# round that finds no such split adds no tree. Without this bound they grow on noise. The log-loss of the blend without
# and with it: service desk 0.564 and 0.559, package alerts 0.393 and 0.404 (0.470 and 0.466 if each of the 22 windows
# counts the same: one of them holds 3,582 of 10,536 alerts), simulated weak signals 0.616 and 0.609 (constant 0.619),
# fan-outs 0.571 and 0.568, a change of policy 0.634 and 0.627, noise 0.659 and 0.636, heed's own simulator with 10,000
# alerts 0.335 and 0.332. With 25,000 and more the bound costs what many small effects give together (0.339 and 0.340).
TREE_RECIPES = (
    TreeRecipe("all facts", maximum_alerts=20_000, parameters=(("lambda_l2", 20.0),)),
    TreeRecipe(
        "all facts and names, deep, no small gains",
        names=True,
        maximum_alerts=20_000,
        trees=300,
        parameters=(("num_leaves", 31), ("min_gain_to_split", 1.0)),
    ),
    TreeRecipe(
        "all facts and names, deep", names=True, minimum_alerts=20_000, trees=300, parameters=(("num_leaves", 31),)
    ),
    TreeRecipe(
        "few facts and names, deep",
        history="few",
        names=True,
        minimum_alerts=20_000,
        trees=300,
        parameters=(("num_leaves", 31),),
    ),
)

# The columns of history "few".
FEW = ("last_outcome", "_hl7d", "seconds_since_raised")


@dataclass(frozen=True)
class LearningSettings:
    """How to learn.

    features : the history features of the frame. horizon : how long an action counts after an alert.
    minimum_acted, minimum_not_acted : with fewer known outcomes of either kind there are no trees in the mixture.
    prior : pseudo-counts (acted, not acted) of a rate about which nothing is known. Jeffreys' (0.5, 0.5):
        with no outcome at all every alert scores 0.5, which claims nothing either way, and ten answers
        outweigh it.
    folds : inner cuts; `folds_of_many` from `many_alerts` mature alerts on, where three inner cuts hold evidence
        enough and each costs seconds.
    tested_share : of the mature past that they forecast. A third leaves enough before them
        to learn nearly what production learns.
    tuning_alerts : at most so many alerts take part in tuning (every n-th in time order); the final fit takes
        all. With 30,000 of 66,000 the final skill was 0.01 lower in one simulated world and the same in another, at
        half the time; the evidence is then that of a recipe which has seen less than production.
    replicates : of the block bootstrap intervals of the evidence.
    threads : CPU threads; the result does not depend on them.
    withheld : facts ("severity", "@attribute") that nothing learns from, histories kept about them included.
    known_at_raise : columns and attributes of which a person says that they are known at the raise:
        `audit/withholding.py` checks them and keeps them.
    fit_elsewhere : makes the final fits instead of this process, and returns their texts. The inner cuts stay here:
        they use only a part of the alerts.
    """

    features: FeatureSettings = field(default_factory=FeatureSettings)
    horizon: timedelta = timedelta(days=14)
    minimum_acted: int = 50
    minimum_not_acted: int = 50
    prior: tuple[float, float] = (0.5, 0.5)
    folds: int = 6
    folds_of_many: int = 3
    many_alerts: int = 20_000
    tested_share: float = 1 / 3
    tuning_alerts: int = 30_000
    tree_recipes: tuple[TreeRecipe, ...] = TREE_RECIPES
    replicates: int = 300
    seed: int = 20_250_101
    threads: int = 2
    withheld: tuple[str, ...] = ()
    known_at_raise: tuple[str, ...] = ()
    fit_elsewhere: Callable[[boosting.Fit], str] | None = field(default=None, compare=False)
