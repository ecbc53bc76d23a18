"""Gradient-boosted trees: everything that knows LightGBM.

Belongs here: binned data shared by many fits, one deterministic fit, the text of a fit, and joining several
fits into one text.
Does not belong here: which fits are made and why (`learning/tree_blend.py`), calibrated forecasts
(`learning/model.py`), and scores and contributions of trained trees (`trees/`).

LightGBM is imported inside the functions: it takes seconds to load, and most commands never need it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dagster_project.errors import HeedError

# Common to every fit; candidates override what they need. Extremely randomised trees (Geurts et al. 2006: the
# threshold of a split is drawn, not searched) forecast later alerts better than searched ones: on simulated worlds
# of 100,000 alerts they reached 0.01 to 0.02 more of the reachable skill, on the real alerts 0.01 more skill.
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "metric": "none",
    "learning_rate": 0.05,
    "num_leaves": 8,
    "extra_trees": True,
    "min_data_in_leaf": 20,
    "lambda_l2": 5.0,
    "feature_fraction": 0.35,  # of 300 columns as many as 0.5 of 200: it was 0.5 before long histories came in
    "cat_smooth": 20.0,
    "cat_l2": 20.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
BINNING: dict[str, Any] = {"max_bin": 127, "feature_pre_filter": False, "verbosity": -1}

# Below this many alerts one thread is as fast as two on an idle machine and several times faster on a busy
# one, where threads wait for each other. The trees are the same with any number of threads.
THREADING_MINIMUM = 20_000


@dataclass(frozen=True)
class Fit:
    """One fit, to be made outside this process.

    matrix : float32 [alerts, columns]. acted, weight : one number per alert. names, categorical : of columns, the
    latter by position. parameters : all of them, but for threads. trees : how many.
    """

    matrix: np.ndarray
    acted: np.ndarray
    weight: np.ndarray
    names: tuple[str, ...]
    categorical: tuple[int, ...]
    parameters: dict[str, Any]
    trees: int


class Binned:
    """Alerts binned once; folds and candidates are views of them.

    matrix : float32 [alerts, columns]. acted : 0.0 or 1.0. names : safe for LightGBM (see `safe_names`).
    categorical : positions of columns that hold codes.

    Bin limits come from all alerts given, so give only those of the past. The matrix itself is not kept.
    """

    def __init__(
        self,
        matrix: np.ndarray,
        acted: np.ndarray,
        names: Sequence[str],
        categorical: Sequence[int],
        seed: int,
        threads: int,
    ) -> None:
        import lightgbm as lgb

        self.alerts, self.columns = matrix.shape
        self.names = tuple(names)
        self.categorical = tuple(categorical)
        self.threads = threads if self.alerts >= THREADING_MINIMUM else 1
        self.common = {**PARAMETERS, **BINNING, "seed": seed, "num_threads": self.threads}
        self._data = lgb.Dataset(
            matrix,
            acted,
            feature_name=list(names),
            categorical_feature=[names[i] for i in categorical],
            params=self.common,
        )
        self._data.construct()

    def fit(
        self, rows: np.ndarray, weight: np.ndarray, parameters: Mapping[str, Any], columns: Sequence[int], trees: int
    ) -> Any:
        """A booster of `trees` trees, fitted on `rows` (sorted positions) with `columns` only."""
        import lightgbm as lgb

        chosen = {**self.common, **parameters}
        if len(columns) < self.columns:
            chosen["interaction_constraints"] = [list(columns)]
        data = self._data if len(rows) == self.alerts else self._data.subset(rows.tolist(), params=chosen)
        # A weight that is set before a subset is constructed is silently lost.
        data.construct().set_weight(weight)
        return lgb.train(chosen, data, trees)

    def fit_elsewhere(
        self,
        matrix: np.ndarray,
        acted: np.ndarray,
        weight: np.ndarray,
        parameters: Mapping[str, Any],
        columns: Sequence[int],
        trees: int,
        elsewhere: Callable[[Fit], str],
    ) -> Any:
        """Like `fit`, but made by `elsewhere` instead of this process. `matrix` holds the rows, and is changed."""
        # A constraint ends the process in distributed training (LightGBM issue 5680, open with 4.7). A column that
        # holds one number is never split either.
        matrix[:, np.setdiff1d(np.arange(matrix.shape[1]), columns)] = 0
        chosen = {**self.common, **parameters}
        chosen.pop("num_threads")
        return load_trees(elsewhere(Fit(matrix, acted, weight, self.names, self.categorical, chosen, trees)))


def log_odds(booster: Any, matrix: np.ndarray, trees: int | None, threads: int) -> np.ndarray:
    """Raw scores of the first `trees` trees (all when None, or when there are fewer): float64 log-odds."""
    raw = booster.predict(matrix, raw_score=True, num_iteration=-1 if trees is None else trees, num_threads=threads)
    return np.asarray(raw, dtype=np.float64)


def safe_names(names: Sequence[str]) -> list[str]:
    """Names LightGBM accepts (no JSON characters, no blanks), unique by their position."""
    return [
        f"{i}_" + "".join(ch if ch.isascii() and (ch.isalnum() or ch in "_-.@+") else "_" for ch in name)[:60]
        for i, name in enumerate(names)
    ]


def load_trees(text: str) -> Any:
    """A booster from its text; `HeedError` when the text is not one."""
    import lightgbm as lgb

    try:
        return lgb.Booster(model_str=text)
    except lgb.basic.LightGBMError as error:
        raise HeedError(f"the stored trees cannot be read ({str(error)[:100]})", "train again") from error


def joined_text(boosters: Sequence[Any]) -> str:
    """One text with the trees of all boosters, whose raw score is the sum of theirs.

    The boosters were fitted on the same columns. Importances and parameters are left out: parameters name the
    threads, and forecasts need neither.
    """
    heads, trees = [], []
    for booster in boosters:
        head, _, rest = booster.model_to_string().partition("\nTree=")
        heads.append(head)
        body = ("\nTree=" + rest).partition("\nend of trees")[0]
        trees += [block.partition("\n")[2] for block in body.split("\nTree=")[1:]]
    blocks = [f"Tree={i}\n{block.rstrip()}\n\n\n" for i, block in enumerate(trees)]
    lines = [line for line in heads[0].split("\n") if not line.startswith("tree_sizes=")]
    sizes = " ".join(str(len(block.encode())) for block in blocks)
    head = "\n".join(lines).rstrip("\n")
    return f"{head}\ntree_sizes={sizes}\n\n{''.join(blocks)}end of trees\n\nfeature_importances:\n"
