"""The compiled loops over trees: raw scores and exact contributions.

Belongs here: loops over arrays that numba compiles, without checks of input.
Does not belong here: reading models (`text.py`), threads and memory (`forest.py`).

Both loops take a block of alerts, one tree after the other: what is known of one tree stays in the nearest cache, and
each step is the same for all alerts of the block, so that it is done for 8 or 16 of them at once. These steps are
functions of their own: inside the big loops the compiler did them one alert at a time, which took 20 times as long.
Each number depends on nothing but its alert: blocks, batches and threads change no bit of it.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dagster_project.triage.compiled import compiled, read_only

# Alerts in a block: at 150 columns 256 alerts are 150 KB, which a core's second cache holds with all else.
BLOCK = 256
# The same where contributions are found: at 10 points and 20 splits above a leaf their numbers take 100 KB.
FEW = 32

I1, I4, I8 = read_only(types.int8), read_only(types.int32), read_only(types.int64)
U1, U8 = read_only(types.uint8), read_only(types.uint64)
F4, F8 = read_only(types.float32), read_only(types.float64)
MATRIX, DOWN = read_only(types.float32, 2), read_only(types.float64, 2)
SPLITS = (I4, I1, F4, U1, I8)  # feature, kind, threshold, members, members_start


@intrinsic
def _lowest_bit(typing_context, word):
    """The number of the lowest bit that is set in a uint64 which is not 0."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@compiled(types.void(MATRIX, types.int64, types.int64, types.float32[:, ::1]))
def columns_of(matrix, first, last, x):
    """Turn the alerts [first, last) into columns: x[column, alert - first]."""
    for c0 in range(0, matrix.shape[1], 16):
        c1 = min(c0 + 16, matrix.shape[1])
        for r in range(last - first):
            for c in range(c0, c1):
                x[c, r] = matrix[first + r, c]


@compiled(types.void(types.float32[::1], types.int64, *SPLITS, types.int64, types.uint8[::1]))
def left_of_split(x, n, feature, kind, threshold, members, members_start, split, left):
    """left[r]: 1 where split `split` sends an alert with the value x[r] to the left, else 0."""
    what, limit = kind[split], threshold[split]
    if what == 0:
        for r in range(n):
            left[r] = x[r] <= limit
    elif what == 1:
        for r in range(n):
            left[r] = not (x[r] > limit)
    elif what == 4:
        start = members_start[split]
        size = members_start[split + 1] - start
        for r in range(n):
            value = x[r]
            # A value beyond every category, also a missing one, goes to the right.
            there = value > np.float32(-1.0) and value < np.float32(size)
            left[r] = members[start + np.int64(value)] if there else np.uint8(0)
    else:
        tiny, absent = np.float32(1e-35), np.uint8(what == 3)
        for r in range(n):
            value = x[r]
            left[r] = np.uint8(value <= limit) if abs(value) > tiny else absent


@compiled(types.void(types.float32[::1], types.int64, types.float32, types.boolean, types.uint64, types.uint64[::1]))
def strike_out(x, n, limit, missing_left, keep, can):
    """Where a split on `x <= limit` sends an alert to the right, only the leaves `keep` remain within reach."""
    everything = np.uint64(0xFFFFFFFFFFFFFFFF)
    if missing_left:
        for r in range(n):
            can[r] &= keep if x[r] > limit else everything
    else:
        for r in range(n):
            can[r] &= everything if x[r] <= limit else keep


@compiled(types.void(U1, types.int64, types.uint64, types.uint64[::1]))
def strike_out_others(left, n, keep, can):
    """The same where it is known already which alerts go to the left."""
    everything = np.uint64(0xFFFFFFFFFFFFFFFF)
    for r in range(n):
        can[r] &= everything if left[r] else keep


@compiled(types.void(U8, types.int64, F8, types.int64, types.float64[::1]))
def add_leaves(can, n, value, first, total):
    """Add the value of the leftmost leaf within reach."""
    for r in range(n):
        total[r] += value[first + _lowest_bit(can[r])]


@compiled(types.void(MATRIX, types.int64, types.int64, types.int64, I8, I8, *SPLITS, U8, F8, types.float64[::1]))
def raw_scores(
    matrix, first, last, trees, tree_splits, tree_leaves, feature, kind, threshold, members, members_start, keeps,
    value, out,
):  # fmt: skip
    """Write the raw scores of the alerts [first, last): the sums of the first `trees` trees, in their order.

    A split that sends an alert to the right strikes the leaves on its left from the list of those that the alert can
    reach; the leftmost that remains is the alert's (QuickScorer: Lucchese et al., SIGIR 2015). All splits of a tree are
    asked, 30 instead of 5 to 8, but for many alerts at once and without a branch.
    """
    x = np.empty((matrix.shape[1], BLOCK), np.float32)
    left = np.empty(BLOCK, np.uint8)
    can = np.empty(BLOCK, np.uint64)
    total = np.empty(BLOCK, np.float64)
    everything = np.uint64(0xFFFFFFFFFFFFFFFF)
    for start in range(first, last, BLOCK):
        n = min(BLOCK, last - start)
        columns_of(matrix, start, start + n, x)
        for r in range(n):
            total[r] = 0.0
        for tree in range(trees):
            for r in range(n):
                can[r] = everything
            for split in range(tree_splits[tree], tree_splits[tree + 1]):
                column, keep = x[feature[split]], keeps[split]
                if kind[split] <= 1:
                    strike_out(column, n, threshold[split], kind[split] == 1, keep, can)
                else:
                    left_of_split(column, n, feature, kind, threshold, members, members_start, split, left)
                    strike_out_others(left, n, keep, can)
            add_leaves(can, n, value, tree_leaves[tree], total)
        for r in range(n):
            out[start + r] = total[r]


@compiled(types.void(F8, types.float64, types.float64, types.float64[:, ::1]))
def weigh(points, before, after, edge):
    """What an edge does at each point, for alerts of three kinds: edge[0:3] multiply on the way down, edge[3:5] are
    what the edge's feature is given on the way up.

    The kinds: the alert takes the edge, and took all edges of this feature above (0, 3); it took those above and not
    this one (1, 4); it left the feature's way above already (2; it is given nothing more).
    """
    for q in range(len(points)):
        t = points[q]
        old, new = before * (1.0 - t) + t, after * (1.0 - t) + t
        astray = after * (1.0 - t)
        edge[0, q], edge[1, q], edge[2, q] = new / old, astray / old, after / before
        edge[3, q] = (1.0 - after) / new - (1.0 - before) / old
        edge[4, q] = -1.0 / (1.0 - t) - (1.0 - before) / old


@compiled(types.void(F8, types.int64, U1, types.uint8, types.float64[::1]))
def follow(above, n, left, to_left, below):
    """Who is still on a feature's way below an edge: 1.0 or 0.0."""
    for r in range(n):
        below[r] = above[r] if left[r] == to_left else 0.0


@compiled(types.void(read_only(types.float64, 2), types.int64, types.int64, F8, F8, DOWN, types.float64[:, ::1]))
def go_down(above, points, n, was, still, edge, below):
    """The products of all features' terms below an edge, at each point."""
    for q in range(points):
        take, leave, gone = edge[0, q], edge[1, q], edge[2, q]
        high, low = above[q], below[q]
        for r in range(n):
            low[r] = high[r] * (take if still[r] > 0.5 else (leave if was[r] > 0.5 else gone))


@compiled(
    types.void(
        read_only(types.float64, 2), types.int64, types.int64, F8, F8, DOWN, types.float64, types.float64[:, ::1],
        types.float64[::1],
    )
)  # fmt: skip
def turn_at_leaf(above, points, n, was, still, edge, value, back, column):
    """`go_down`, a leaf's value, and `go_up`."""
    for q in range(points):
        take, leave, gone = edge[0, q], edge[1, q], edge[2, q]
        gain, loss = edge[3, q], edge[4, q]
        high, up = above[q], back[q]
        for r in range(n):
            there = value * high[r] * (take if still[r] > 0.5 else (leave if was[r] > 0.5 else gone))
            up[r] += there
            column[r] += there * (gain if still[r] > 0.5 else (loss if was[r] > 0.5 else 0.0))


@compiled(
    types.void(
        types.float64[:, ::1], types.int64, types.int64, F8, F8, DOWN, types.float64[:, ::1], types.float64[::1]
    )
)  # fmt: skip
def go_up(below, points, n, was, still, edge, back, column):
    """Bring the sum of what is below an edge above it, and give the edge's feature its part."""
    for q in range(points):
        gain, loss = edge[3, q], edge[4, q]
        low, up = below[q], back[q]
        for r in range(n):
            up[r] += low[r]
            column[r] += low[r] * (gain if still[r] > 0.5 else (loss if was[r] > 0.5 else 0.0))
            low[r] = 0.0


@compiled(
    types.void(
        MATRIX, types.int64, types.int64, I8, I8, *SPLITS, F8, I4, I4, U1, I4, I4, F8, F8, I8, types.int64, types.int64,
        F8, F8, I8, types.float64[:, ::1],
    )
)  # fmt: skip
def contributions(
    matrix, first, last, tree_splits, tree_leaves, feature, kind, threshold, members, members_start, value, edge_split,
    edge_depth, edge_left, edge_leaf, edge_again, edge_before, edge_after, tree_widest, deepest, most_splits, points,
    weights, rule_start, out,
):  # fmt: skip
    """Add the contributions of each column to the raw scores of the alerts [first, last) to out[column, alert].

    A leaf's worth is a product of terms, one for each different feature on its path: 1 or 0 where the feature is known,
    the share of training alerts where it is not. The Shapley value of a feature in it is the integral along the
    diagonal of the multilinear extension (Owen 1972) of a polynomial, whose degree is the number of the other features,
    which Gauss-Legendre points integrate without error. At one point t the terms are share * (1 - t), and t more where
    the feature leads the alert to the leaf.

    At each point the products of all leaves are made in one walk, depth first: down each edge by one multiplication,
    and up again as sums of what is below, of which each edge's feature takes its part (Linear TreeSHAP, Bifet et al.,
    NeurIPS 2022, walks in the same way with polynomials; here they are numbers at points). A feature that stands on a
    path again replaces its own term, and gives back its part above the edge. All terms are positive.

    points, weights : Gauss-Legendre on [0, 1]; those for d different features stand at rule_start[d] to
        rule_start[d + 1].
    """
    many = last - first
    x = np.empty((matrix.shape[1], many), np.float32)
    columns_of(matrix, first, last, x)
    most_points = len(points)
    left = np.empty((most_splits, FEW), np.uint8)
    on_way = np.ones((deepest + 2, FEW), np.float64)
    product = np.empty((deepest + 1, most_points, FEW), np.float64)
    back = np.zeros((deepest + 1, most_points, FEW), np.float64)
    edges = np.empty((2 * most_splits, 5, most_points), np.float64)
    open_edges = np.empty(deepest + 1, np.int64)
    for tree in range(len(tree_splits) - 1):
        s0, s1 = tree_splits[tree], tree_splits[tree + 1]
        l0 = tree_leaves[tree]
        r0, r1 = rule_start[tree_widest[tree]], rule_start[tree_widest[tree] + 1]
        number = r1 - r0
        for edge in range(2 * s0, 2 * s1):
            weigh(points[r0:r1], edge_before[edge], edge_after[edge], edges[edge - 2 * s0])
        for start in range(0, many, FEW):
            n = min(FEW, many - start)
            for split in range(s0, s1):
                left_of_split(
                    x[feature[split], start : start + n], n, feature, kind, threshold, members, members_start, split,
                    left[split - s0],
                )  # fmt: skip
            for q in range(number):
                product[0, q, :] = weights[r0 + q]
            depth = 0  # of the open edges, which are those above the next one
            for edge in range(2 * s0, 2 * s1 + 1):
                here = edge_depth[edge] if edge < 2 * s1 else 0
                while depth > here:
                    depth -= 1
                    done = open_edges[depth]
                    go_up(
                        back[depth + 1], number, n, on_way[edge_again[done] + 1], on_way[depth + 1],
                        edges[done - 2 * s0], back[depth],
                        out[feature[s0 + edge_split[done]], first + start : first + start + n],
                    )  # fmt: skip
                if edge == 2 * s1:
                    break
                was, still = on_way[edge_again[edge] + 1], on_way[here + 1]
                follow(was, n, left[edge_split[edge]], edge_left[edge], still)
                if edge_leaf[edge] >= 0:
                    turn_at_leaf(
                        product[here], number, n, was, still, edges[edge - 2 * s0], value[l0 + edge_leaf[edge]],
                        back[here], out[feature[s0 + edge_split[edge]], first + start : first + start + n],
                    )  # fmt: skip
                else:
                    go_down(product[here], number, n, was, still, edges[edge - 2 * s0], product[here + 1])
                    open_edges[here] = edge
                    depth = here + 1
