"""LightGBM's text format, and its trees as flat arrays.

Belongs here: what the text says, checked, and laid out for loops that walk over many alerts at a time.
Does not belong here: the loops (`kernels.py`).

The format is that of LightGBM 4 (version=v4 in its first lines): one block per tree with its splits, the bits of its
categorical splits, its leaf values and how many training alerts came to each node.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from dagster_project.errors import HeedError

# Which leaf an alert reaches is found in the bits of one word (see `kernels.raw_scores`).
MOST_LEAVES = 64

# What a split does: `x <= threshold` with missing to the right or to the left; the same where zero counts as missing;
# or a set of categories.
RIGHT, LEFT, ZERO_RIGHT, ZERO_LEFT, CATEGORIES = range(5)
_KINDS_OF_MISSING = ("none", "zero", "nan")


@dataclass(frozen=True)
class Trees:
    """All trees of one text as arrays. Splits and leaves of a tree are adjacent, trees in their order.

    names : of the columns, in order.
    tree_splits, tree_leaves : int64 [trees + 1]; where the splits and leaves of each tree begin.
    feature, kind, threshold : of each split. int32, int8 (see `RIGHT`), float32: the largest float32 that is not above
        LightGBM's own, which decides every float32 as LightGBM does.
    members, members_start : of categorical splits: uint8, whether category c goes left is at members_start + c;
        members_start is int64 [splits + 1].
    keeps : uint64; the leaves (bit i: the tree's i-th, from left to right) that can still be reached once the split
        sends an alert to the right.
    value : float64; of each leaf, from left to right.
    edge_split, edge_depth, edge_left, edge_leaf : of the two edges below each split, depth first, so that edges
        2 * tree_splits[t] to 2 * tree_splits[t + 1] are those of tree t. The split (int32), the depth of the split
        (int32), whether it is the left edge (uint8), and the leaf it leads to (int32, -1: none).
    edge_again : int32; the depth of the last edge above with the same feature; -1: there is none.
    edge_before, edge_after : float64; the share of training alerts that all splits on this feature let through, from
        the root to before and to after this edge.
    tree_widest : int64; the most different features above a leaf of each tree.
    deepest : the most splits above a leaf.
    """

    names: list[str]
    tree_splits: np.ndarray
    tree_leaves: np.ndarray
    feature: np.ndarray
    kind: np.ndarray
    threshold: np.ndarray
    members: np.ndarray
    members_start: np.ndarray
    keeps: np.ndarray
    value: np.ndarray
    edge_split: np.ndarray
    edge_depth: np.ndarray
    edge_left: np.ndarray
    edge_leaf: np.ndarray
    edge_again: np.ndarray
    edge_before: np.ndarray
    edge_after: np.ndarray
    tree_widest: np.ndarray
    deepest: int


class Unsupported(Exception):
    """The trees are sound, but not of the kind that the loops can walk (too many leaves, linear leaves)."""


class _Growing:
    """The arrays of `Trees`, one tree after the other."""

    def __init__(self) -> None:
        self.lists: dict[str, list[Any]] = {f.name: [] for f in fields(Trees)}
        self.members: list[np.ndarray] = []
        self.members_end = 0
        self.deepest = 0

    def add(self, block: dict[str, str]) -> None:
        lists = self.lists
        lists["tree_splits"].append(len(lists["feature"]))
        lists["tree_leaves"].append(len(lists["value"]))
        leaves = int(block["num_leaves"])
        value = _numbers(block, "leaf_value", leaves, float)
        if leaves > MOST_LEAVES or block.get("is_linear", "0").strip() != "0":
            raise Unsupported
        if leaves == 1:
            lists["value"].append(value[0])
            lists["tree_widest"].append(0)
            return
        n = leaves - 1
        feature = _numbers(block, "split_feature", n, int)
        decision = _numbers(block, "decision_type", n, int)
        threshold = _numbers(block, "threshold", n, float)
        children = list(zip(_numbers(block, "left_child", n, int), _numbers(block, "right_child", n, int), strict=True))
        counts = _numbers(block, "internal_count", n, int), _numbers(block, "leaf_count", leaves, int)
        boundaries = [int(v) for v in block.get("cat_boundaries", "").split()]
        words = np.array([int(v) for v in block.get("cat_threshold", "").split()], dtype="<u4")

        place: dict[int, int] = {}  # a split's number in the text -> its place among this tree's, depth first
        edges: list[tuple[int | float, ...]] = []
        leaf = widest = 0

        def walk(node: int, depth: int, path: dict[int, tuple[int, float]]) -> None:
            """Lay out what is below a split. path : of each feature above, where it stood last, and its share."""
            nonlocal leaf, widest
            if node in place or not 0 <= node < n or depth >= leaves:
                raise ValueError("the splits of a tree are not a tree")
            mine = place[node] = len(place)
            self._split(feature[node], decision[node], threshold[node], boundaries, words)
            again, before = path.get(feature[node], (-1, 1.0))
            above = counts[0][node]
            first = middle = leaf
            for left, child in ((1, children[node][0]), (0, children[node][1])):
                below = counts[1][~child] if child < 0 else counts[0][child]
                # Never 0: the loops divide by it, and what no training alert did weighs nothing either way.
                after = max(before * (below / above if above else 0.0), 1e-30)
                taken = {**path, feature[node]: (depth, after)}
                edges.append((mine, depth, left, leaf if child < 0 else -1, again, before, after))
                if child < 0:
                    lists["value"].append(value[~child])
                    self.deepest, widest = max(self.deepest, depth + 1), max(widest, len(taken))
                    leaf += 1
                else:
                    walk(child, depth + 1, taken)
                if left:
                    middle = leaf
            gone = ((1 << middle) - 1) ^ ((1 << first) - 1)
            lists["keeps"][lists["tree_splits"][-1] + mine] = 0xFFFFFFFFFFFFFFFF ^ gone

        walk(0, 0, {})
        if leaf != leaves:
            raise ValueError("a tree has leaves that no split leads to")
        lists["tree_widest"].append(widest)
        names = ("split", "depth", "left", "leaf", "again", "before", "after")
        for name, column in zip(names, zip(*edges, strict=True), strict=True):
            lists[f"edge_{name}"] += column

    def _split(self, feature: int, decision: int, threshold: float, boundaries: list[int], words: np.ndarray) -> None:
        lists = self.lists
        lists["feature"].append(feature)
        lists["members_start"].append(self.members_end)
        lists["keeps"].append(0)
        if decision & 1:
            number = int(threshold)
            chosen = words[boundaries[number] : boundaries[number + 1]]
            bits = np.unpackbits(chosen.view(np.uint8), bitorder="little")
            self.members.append(bits)
            self.members_end += len(bits)
            lists["kind"].append(CATEGORIES)
            lists["threshold"].append(np.nan)
            return
        missing, to_left = _KINDS_OF_MISSING[(decision >> 2) & 3], bool(decision & 2)
        if missing == "zero":
            lists["kind"].append(ZERO_LEFT if to_left else ZERO_RIGHT)
        else:
            # Where no value was missing in training, LightGBM takes a missing one for zero.
            lists["kind"].append(LEFT if (to_left if missing == "nan" else threshold >= 0.0) else RIGHT)
        lists["threshold"].append(threshold)

    def trees(self, names: list[str]) -> Trees:
        lists = self.lists
        with np.errstate(over="ignore"):
            wanted = np.array(lists["threshold"], dtype=np.float64)
            threshold = wanted.astype(np.float32)
        above = threshold.astype(np.float64) > wanted
        threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
        if lists["feature"] and not 0 <= min(lists["feature"]) <= max(lists["feature"]) < len(names):
            raise ValueError("a split names a column that there is not")

        def array(name: str, dtype: Any, *end: int) -> np.ndarray:
            return np.array([*lists[name], *end], dtype=dtype)

        return Trees(
            names=names,
            tree_splits=array("tree_splits", np.int64, len(lists["feature"])),
            tree_leaves=array("tree_leaves", np.int64, len(lists["value"])),
            feature=array("feature", np.int32),
            kind=array("kind", np.int8),
            threshold=threshold,
            members=np.concatenate([*self.members, np.zeros(0, np.uint8)]),
            members_start=array("members_start", np.int64, self.members_end),
            keeps=array("keeps", np.uint64),
            value=array("value", np.float64),
            edge_split=array("edge_split", np.int32),
            edge_depth=array("edge_depth", np.int32),
            edge_left=array("edge_left", np.uint8),
            edge_leaf=array("edge_leaf", np.int32),
            edge_again=array("edge_again", np.int32),
            edge_before=array("edge_before", np.float64),
            edge_after=array("edge_after", np.float64),
            tree_widest=array("tree_widest", np.int64),
            deepest=self.deepest,
        )


def read_trees(text: str) -> Trees:
    """The trees of a text.

    Raises HeedError: the text is not a whole model. Unsupported : the trees cannot be walked by `kernels`.
    """
    head, *blocks = text.partition("\nend of trees")[0].split("\nTree=")
    growing = _Growing()
    try:
        entries = _lines(head)
        if "\nend of trees" not in text or entries.get("num_class", "1") != "1" or not blocks:
            raise ValueError("it does not hold the trees of one class to their end")
        for block in blocks:
            growing.add(_lines(block))
        return growing.trees(entries["feature_names"].split())
    except (KeyError, ValueError, IndexError, OverflowError) as error:
        raise HeedError(f"the stored trees cannot be read ({str(error)[:100]})", "train again") from error


def _lines(block: str) -> dict[str, str]:
    return {name: value for name, equals, value in (line.partition("=") for line in block.split("\n")) if equals}


def _numbers(block: dict[str, str], name: str, number: int, kind: Callable[[str], Any]) -> list[Any]:
    numbers = [kind(word) for word in block[name].split()]
    if len(numbers) != number:
        raise ValueError(f"{name} has {len(numbers)} numbers, not {number}")
    return numbers
