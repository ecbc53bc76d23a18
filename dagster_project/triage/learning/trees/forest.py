"""A forest of trained trees: raw scores and exact contributions of many alerts.

Belongs here: how work is shared among threads, and when LightGBM itself answers instead.
Does not belong here: the text format (`text.py`), the loops (`kernels.py`), probabilities (`triage/learning/model.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np

from dagster_project.errors import HeedError
from dagster_project.triage.learning.boosting import load_trees
from dagster_project.triage.learning.trees.text import Trees, Unsupported, read_trees

# Alerts that one task takes: at 150 columns 600 KB. What a task works out once for all its alerts costs as much as the
# contributions of some ten.
TASK = 1_024
# With fewer alerts for each, a second thread does not pay.
LEAST = 32


class Forest:
    """The trees of one text in LightGBM's format.

    Scores are those of LightGBM, bit for bit; contributions are those of `predict(pred_contrib=True)` but for the order
    in which they are added up (differences of 1e-12). Trees that the loops cannot walk (more than 64 leaves, linear
    leaves) are left to LightGBM, as slow as it is.

    Raises `HeedError` when the text does not hold whole trees.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._lightgbm: Any = None
        self._trees: Trees | None = None
        try:
            self._trees = read_trees(text)
            self.names = self._trees.names
        except Unsupported:
            self.names = list(self._booster().feature_name())

    def raw_scores(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        """Log-odds before calibration: float64 [alerts]. `matrix` is float32 [alerts, columns], nan where missing."""
        matrix = self._checked(matrix)
        trees = self._trees
        if trees is None:
            return np.asarray(self._booster().predict(matrix, raw_score=True, num_threads=threads), dtype=np.float64)
        from dagster_project.triage.learning.trees.kernels import raw_scores

        out = np.empty(len(matrix))
        arrays = (trees.tree_splits, trees.tree_leaves, *_splits(trees), trees.keeps, trees.value, out)
        number = len(trees.tree_splits) - 1
        _share(len(matrix), threads, lambda first, last: raw_scores(matrix, first, last, number, *arrays))
        return out

    def contributions(self, matrix: np.ndarray, threads: int = 1) -> np.ndarray:
        """Exact Shapley contributions to the raw score: float64 [alerts, columns]; the expected value is left out.

        Path-dependent TreeSHAP (Lundberg et al. 2020, Nature Machine Intelligence 2, algorithm 2): where a feature is
        not known, an alert takes both ways, in the shares in which training alerts took them.
        """
        matrix = self._checked(matrix)
        trees = self._trees
        if trees is None:
            contributed = self._booster().predict(matrix, pred_contrib=True, num_threads=threads)
            return np.asarray(contributed, dtype=np.float64)[:, :-1]
        from dagster_project.triage.learning.trees.kernels import contributions

        out = np.zeros((matrix.shape[1], len(matrix)))
        edges = (trees.edge_split, trees.edge_depth, trees.edge_left, trees.edge_leaf)
        terms = (trees.edge_again, trees.edge_before, trees.edge_after)
        most_splits = int(np.diff(trees.tree_splits).max(initial=0))
        arrays = (
            *(trees.tree_splits, trees.tree_leaves, *_splits(trees), trees.value, *edges, *terms, trees.tree_widest),
            *(trees.deepest, most_splits, *_gauss_legendre(int(trees.tree_widest.max(initial=0))), out),
        )
        _share(len(matrix), threads, lambda first, last: contributions(matrix, first, last, *arrays))
        return out.T

    def _checked(self, matrix: np.ndarray) -> np.ndarray:
        if matrix.ndim != 2 or matrix.shape[1] != len(self.names):
            raise HeedError(
                f"the alerts have {matrix.shape[-1]} columns, the trees were trained with {len(self.names)}",
                "compute the features with the settings the model was trained with",
            )
        return np.ascontiguousarray(matrix, dtype=np.float32)

    def _booster(self) -> Any:
        if self._lightgbm is None:
            self._lightgbm = load_trees(self._text)
        return self._lightgbm


def _splits(trees: Trees) -> tuple[np.ndarray, ...]:
    return trees.feature, trees.kind, trees.threshold, trees.members, trees.members_start


def _gauss_legendre(widest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points and weights on [0, 1] that integrate a polynomial of degree d - 1, for d = 0 ... widest, and where those
    of each d begin."""
    points, weights, start = [np.zeros(0)], [np.zeros(0)], [0, 0]
    for d in range(1, widest + 1):
        x, w = np.polynomial.legendre.leggauss((d + 1) // 2)
        points.append((x + 1) / 2)
        weights.append(w / 2)
        start.append(start[-1] + len(x))
    return np.concatenate(points), np.concatenate(weights), np.array(start, dtype=np.int64)


def _share(alerts: int, threads: int, task: Callable[[int, int], None]) -> None:
    """Call `task(first, last)` for all alerts in parts of `TASK`, on so many threads."""
    # Parts of equal size: a last part of a few alerts would leave all threads but one idle.
    tasks = max(-(-alerts // TASK), min(threads, alerts // LEAST), 1)
    tasks += -tasks % threads if tasks > 1 else 0
    bounds = np.linspace(0, alerts, tasks + 1).astype(np.int64).tolist()
    parts = [(a, b) for a, b in pairwise(bounds) if a < b]
    if threads <= 1 or len(parts) < 2:
        for first, last in parts:
            task(first, last)
        return
    with ThreadPoolExecutor(threads, "trees") as pool:
        for future in [pool.submit(task, first, last) for first, last in parts]:
            future.result()
