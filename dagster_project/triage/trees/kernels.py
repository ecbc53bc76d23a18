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

I1, I4, I8 = read_only(types.int8), read_only(types.int32), read_only(types.int64)
U1, U4, U8 = read_only(types.uint8), read_only(types.uint32), read_only(types.uint64)
F4, F8 = read_only(types.float32), read_only(types.float64)
MATRIX = read_only(types.float32, 2)
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


@compiled(types.void(U4, types.int64, U1, types.uint8, types.uint32, types.uint32[::1]))
def follow(above, n, left, to_left, clears, below):
    """The bits of a path below an edge: alerts that do not take the edge lose the bits outside `clears`."""
    everything = np.uint32(0xFFFFFFFF)
    for r in range(n):
        below[r] = above[r] & (everything if left[r] == to_left else clears)


@compiled(types.void(U4, types.int64, types.uint32, F8, types.int64, types.float64[:, ::1], types.int64, types.int64))
def look_up(bits, n, mask, table, at, out, column, start):
    """Add table[at + the bits of `mask`] to out[column, start + r]."""
    row, cases = out[column, start : start + n], table[at:]
    for r in range(n):
        row[r] += cases[bits[r] & mask]


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


@compiled(types.void(F8, types.float64, F8, F8, types.float64[::1], types.float64[::1], types.int64))
def tabulate(share, value, points, weights, product, table, at):
    """What each feature of a path adds in each case: table[at + (feature << length) + case].

    The Shapley value of a product of terms, each 1 or 0 where its feature is known and its share where it is not, is
    the integral of the derivative along the diagonal of the multilinear extension (Owen 1972): a polynomial of degree
    length - 1, which Gauss-Legendre points integrate without error. All terms are positive: nothing cancels.
    """
    length = len(share)
    for k in range(at, at + (length << length)):
        table[k] = 0.0
    for q in range(len(points)):
        t = points[q]
        product[0] = weights[q]
        for i in range(length):
            against, towards = share[i] * (1.0 - t), share[i] * (1.0 - t) + t
            for c in range(1 << i):
                product[(1 << i) + c] = product[c] * towards
            for c in range(1 << i):
                product[c] *= against
        for i in range(length):
            against, towards = share[i] * (1.0 - t), share[i] * (1.0 - t) + t
            less, more = -share[i] * value / against, (1.0 - share[i]) * value / towards
            first = at + (i << length)
            for c0 in range(0, 1 << length, 2 << i):
                for c in range(c0, c0 + (1 << i)):
                    table[first + c] += product[c] * less
                for c in range(c0 + (1 << i), c0 + (2 << i)):
                    table[first + c] += product[c] * more


@compiled(types.float64(F8, types.int64, types.int64, types.uint32, types.int64, F8, F8))
def _share_of_one(share, path, length, bits, position, points, weights):
    """What the feature at `position` of a path adds to an alert with these bits, per unit of the leaf's value.

    The same as in `tabulate`, for one case and one feature.
    """
    total = 0.0
    for q in range(len(points)):
        t = points[q]
        product = weights[q]
        for i in range(length):
            if i != position:
                term = share[path + i] * (1.0 - t)
                product *= term + t if (bits >> np.uint32(i)) & np.uint32(1) else term
        total += product
    known = 1.0 if (bits >> np.uint32(position)) & np.uint32(1) else 0.0
    return total * (known - share[path + position])


@compiled(
    types.void(
        MATRIX,
        types.int64,
        types.int64,
        I8,
        I8,
        *SPLITS,
        F8,
        I4,
        I4,
        U1,
        U4,
        I4,
        I8,
        I4,
        F8,
        types.int64,
        types.int64,
        types.int64,
        F8,
        F8,
        I8,
        types.float64[:, ::1],
    )
)
def contributions(
    matrix, first, last, tree_splits, tree_leaves, feature, kind, threshold, members, members_start, value, edge_split,
    edge_depth, edge_left, edge_clears, edge_leaf, path_start, path_feature, path_share, deepest, most_splits,
    most_tabled, points, weights, rule_start, out,
):  # fmt: skip
    """Add the contributions of each column to the raw scores of the alerts [first, last) to out[column, alert].

    What a leaf contributes depends on nothing but which of the different features on its path lead the alert towards
    it: 2 ** length cases, and most paths have 3 to 8 features. So each leaf's cases are worked out once per call (for
    paths of at most `most_tabled` features; longer ones are worked out alert by alert), and looked up for each alert.

    Which features do is one bit each, kept for the whole path while the tree is walked depth first: an edge that an
    alert does not take clears the bit of its feature, and a feature that stands twice on a path keeps its bit only if
    it leads the alert the right way twice.

    points, weights : Gauss-Legendre on [0, 1]; those for a path of d features stand at
        rule_start[d] to rule_start[d + 1].
    """
    x = np.empty((matrix.shape[1], BLOCK), np.float32)
    left = np.empty((most_splits, BLOCK), np.uint8)
    bits = np.empty((deepest + 1, BLOCK), np.uint32)
    tables, product = np.empty(0, np.float64), np.empty(1 << most_tabled, np.float64)
    everything = np.uint32(0xFFFFFFFF)
    for tree in range(len(tree_splits) - 1):
        s0, s1 = tree_splits[tree], tree_splits[tree + 1]
        l0, l1 = tree_leaves[tree], tree_leaves[tree + 1]
        # The tables of this tree, one after the other.
        size = 0
        for leaf in range(l0, l1):
            length = path_start[leaf + 1] - path_start[leaf]
            if length <= most_tabled:
                size += length << length
        if size > len(tables):
            tables = np.empty(size, np.float64)
        at = 0
        for leaf in range(l0, l1):
            path = path_start[leaf]
            length = path_start[leaf + 1] - path
            if length > most_tabled:
                continue
            r0, r1 = rule_start[length], rule_start[length + 1]
            tabulate(path_share[path : path + length], value[leaf], points[r0:r1], weights[r0:r1], product, tables, at)
            at += length << length
        for start in range(first, last, BLOCK):
            n = min(BLOCK, last - start)
            columns_of(matrix, start, start + n, x)
            for split in range(s0, s1):
                left_of_split(
                    x[feature[split]], n, feature, kind, threshold, members, members_start, split, left[split - s0]
                )
            for r in range(n):
                bits[0, r] = everything
            at = 0
            for edge in range(2 * s0, 2 * s1):
                below = bits[edge_depth[edge] + 1]
                follow(bits[edge_depth[edge]], n, left[edge_split[edge]], edge_left[edge], edge_clears[edge], below)
                if edge_leaf[edge] < 0:
                    continue
                leaf = l0 + edge_leaf[edge]
                path = path_start[leaf]
                length = path_start[leaf + 1] - path
                if length <= most_tabled:
                    mask = np.uint32((1 << length) - 1)
                    for i in range(length):
                        look_up(below, n, mask, tables, at + (i << length), out, path_feature[path + i], start)
                    at += length << length
                else:
                    r0, r1 = rule_start[length], rule_start[length + 1]
                    for i in range(length):
                        column = out[path_feature[path + i]]
                        for r in range(n):
                            share = _share_of_one(path_share, path, length, below[r], i, points[r0:r1], weights[r0:r1])
                            column[start + r] += value[leaf] * share
