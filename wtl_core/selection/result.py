"""The finished ranking: every row once, in the caller's rows, with what is known about its place."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wtl_core.selection.accuracy import Goal
from wtl_core.selection.kernels import ONE, WEIGHT_ONE
from wtl_core.selection.label_weights import LabelSay
from wtl_core.selection.neighbours import exact_distances
from wtl_core.selection.problem import PickOrder, Problem
from wtl_core.selection.quotas import QuotaOutcome
from wtl_core.selection.sorted_rows import SortedRows
from wtl_core.selection.stopping import NOTHING_LEFT, Stop, find_stop

NOTHING_NEAR = 2.0  # the radius of a first pick: as far apart as unit vectors can be
FAR_ROWS, EARLIER_ROWS = 256, 8192  # shape of a product in float64: 16 MB


@dataclass(frozen=True)
class Ranking:
    """Every row once, best first. Arrays are in rank order, (N,), unless said otherwise.

    Attributes:
        rows: int64, the row in the caller's arrays.
        gain: float64, what the pick adds to `coverage`. For the objective `coverage` without quotas what counts of it
            for the order, see `selection.coverage`, never rises from rank `frozen` on in a pool that is ranked at once.
        coverage: float64, pool coverage by all picks up to this one: an image covers itself here, as it does not in
            the ladder's coverage.
        radius: float64, the distance to the nearest earlier pick or labelled image, 2 where there is none.
        duplicate_of: int64, the row that this one is pixel- or vector-identical to, or -1; such rows come last.
        stands_for: int64, samples within the kernel's reach that are closer to this one than to any earlier pick.
        nearest_earlier: int64, the row of the nearest earlier pick; -1 for none or a labelled image.
        weights: float64, how much it matters that this sample is covered.
        exact_until: The rank after which a cheaper way of ordering is used.
        traced_until: The rank after which gain, radius and nearest_earlier are unknown (0, NaN, -1).
        frozen: How many rows came first because they were exported.
        scale: The kernel's, before `scale_factor`; the first ranking of an encoder fixes it.
        near_duplicate_distance: Up to this distance samples are near-duplicates.
        numeric_path: How products were computed, for the record.
        stop: How many are picked, and why there.
        quotas_until: Quotas hold up to this rank.
        quota_cost: The coverage at the budget that quotas cost.
        quota_advice: Which quota does not hold up to the budget; empty if all do.
        optimum_bound: (100,) float64, no choice of p % of the rows covers the pool better; NaN where none is known.
        goal: The labels that the accuracy goal takes; None without one.
        labels: What the labels' classes say; None where none are known, or nothing asked for them.
        label_rows: int64, the row of each sample in the arrays of `labels`, -1 for those that were set aside.
    """

    rows: np.ndarray
    gain: np.ndarray
    coverage: np.ndarray
    radius: np.ndarray
    duplicate_of: np.ndarray
    stands_for: np.ndarray
    nearest_earlier: np.ndarray
    weights: np.ndarray
    exact_until: int
    traced_until: int
    frozen: int
    scale: float
    near_duplicate_distance: float
    numeric_path: str
    stop: Stop
    quotas_until: int
    quota_cost: float
    quota_advice: str
    optimum_bound: np.ndarray
    goal: Goal | None
    labels: LabelSay | None
    label_rows: np.ndarray

    @property
    def picks(self) -> int:
        """How many rows, from the first on, are picked."""
        return self.stop.picks

    @property
    def replaced_by(self) -> np.ndarray:
        """By rank, the row of the earlier pick that this sample is a near-duplicate or twin of, or -1; (N,) int64."""
        is_near = np.nan_to_num(self.radius, nan=np.inf) <= self.near_duplicate_distance
        return np.where(is_near, self.nearest_earlier, -1)


def empty_ranking() -> Ranking:
    """The ranking of a pool in which nothing is left to label: no rows, and no scale (NaN), which needs some."""
    rows, values = np.zeros(0, np.int64), np.zeros(0)
    return Ranking(
        rows=rows,
        gain=values,
        coverage=values,
        radius=values,
        duplicate_of=rows,
        stands_for=rows,
        nearest_earlier=rows,
        weights=values,
        exact_until=0,
        traced_until=0,
        frozen=0,
        scale=np.nan,
        near_duplicate_distance=0.0,
        numeric_path="",
        stop=Stop(0, NOTHING_LEFT),
        quotas_until=0,
        quota_cost=0.0,
        quota_advice="",
        optimum_bound=np.ones(100),
        goal=None,
        labels=None,
        label_rows=rows,
    )


def assemble(
    problem: Problem,
    ordered: PickOrder,
    samples: SortedRows,
    inside: np.ndarray,
    *,
    near: float,
    labelled: np.ndarray | None,
    quotas: QuotaOutcome,
    say: LabelSay | None,
    goal: Goal | None,
) -> Ranking:
    """Append the rows that were set aside, and translate all into the caller's rows.

    `inside` is the sorted row of each of the problem's rows, `near` the distance up to which samples count as
    near-duplicates, `labelled` the vectors that `PickOrder.state.earlier` may refer to by -2 - l.
    """
    state, kept = ordered.state, len(inside)
    behind = _behind(samples, inside)
    order = np.concatenate([inside[state.order], behind])
    twins = samples.twin_of[behind]
    whole = max(1, ONE * int(ordered.weights.sum(dtype=np.int64)))
    covered = int((problem.best.astype(np.int64) * ordered.weights).sum())
    coverage = (covered + np.cumsum(state.gains)) / whole
    nearest, radius = _nearest_earlier(ordered, samples, inside, labelled)
    twin_rows = np.where(twins >= 0, samples.caller_rows[twins], -1)
    gain = np.concatenate([state.gains / whole, np.zeros(len(behind))])
    coverage = np.concatenate([coverage, np.full(len(behind), coverage[-1])])
    radius = np.concatenate([radius, np.where(twins >= 0, 0.0, np.nan)])
    stop = find_stop(
        problem.params,
        kept=kept,
        gain=gain,
        coverage=coverage,
        radius=radius,
        frozen=len(problem.frozen),
        quotas=quotas,
        goal=goal,
    )
    return Ranking(
        rows=samples.caller_rows[order],
        gain=gain,
        coverage=coverage,
        radius=radius,
        duplicate_of=np.concatenate([np.full(kept, -1), twin_rows]),
        stands_for=np.concatenate([state.stands_for, np.zeros(len(behind))]).astype(np.int64),
        nearest_earlier=np.concatenate([nearest, twin_rows]),
        weights=np.concatenate([ordered.weights[state.order] / WEIGHT_ONE, np.zeros(len(behind))]),
        exact_until=ordered.exact_until,
        traced_until=ordered.traced_until,
        frozen=len(problem.frozen),
        scale=problem.scale,
        near_duplicate_distance=near,
        numeric_path=problem.points.numeric_path,
        stop=stop,
        quotas_until=quotas.until,
        quota_cost=quotas.cost,
        quota_advice=quotas.advice,
        optimum_bound=ordered.bounds / whole,
        goal=goal,
        labels=say,
        label_rows=np.concatenate([state.order, np.full(len(behind), -1)]).astype(np.int64),
    )


def _behind(samples: SortedRows, inside: np.ndarray) -> np.ndarray:
    """Sorted rows that were not ordered: those without weight first, twins last of all."""
    is_behind = np.ones(len(samples.caller_rows), bool)
    is_behind[inside] = False
    rows = np.flatnonzero(is_behind)
    return rows[np.argsort(samples.twin_of[rows] >= 0, kind="stable")]


def _nearest_earlier(
    ordered: PickOrder, samples: SortedRows, inside: np.ndarray, labelled: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest earlier pick in the caller's rows, and the distance to it or to the nearest labelled image."""
    own = inside[ordered.state.order]
    earlier = with_the_far(ordered, samples.vectors, own, labelled)
    radius = np.full(len(own), NOTHING_NEAR)
    picked = np.flatnonzero(earlier >= 0)
    radius[picked] = exact_distances(samples.vectors, own[picked], own[earlier[picked]], samples.vectors)
    if labelled is not None:
        given = np.flatnonzero(earlier <= -2)
        radius[given] = exact_distances(samples.vectors, own[given], -2 - earlier[given], labelled)
    radius[ordered.traced_until :] = np.nan
    nearest = np.full(len(own), -1, np.int64)
    nearest[picked] = samples.caller_rows[own[earlier[picked]]]
    return nearest, radius


def with_the_far(ordered: PickOrder, vectors: np.ndarray, own: np.ndarray, labelled: np.ndarray | None) -> np.ndarray:
    """By rank, that of the nearest earlier pick, -2 - l for labelled image l, -1 for none; (N,) int64.

    Picking follows kernel values, which are zero beyond the kernel's reach. The few picks with nothing within it, the
    first of a pool's clusters, are compared here with all that went before. Of equals the earliest.
    """
    rank_of = np.empty(len(own), np.int64)
    rank_of[ordered.state.order] = np.arange(len(own))
    earlier = ordered.state.earlier.astype(np.int64)
    earlier = np.where(earlier >= 0, rank_of[np.maximum(earlier, 0)], earlier)
    far = np.flatnonzero(earlier[: ordered.traced_until] == -1)
    for start in range(0, len(far), FAR_ROWS):
        ranks = far[start : start + FAR_ROWS]
        left, best = vectors[own[ranks]].astype(np.float64), np.full(len(ranks), -np.inf)
        for codes, right in _candidates(vectors, own[: ranks[-1]], labelled):
            cosines = np.where(codes < ranks[:, None], left @ right.T, -np.inf)
            place = cosines.argmax(1)
            cosine = cosines[np.arange(len(ranks)), place]
            is_nearer = cosine > best
            earlier[ranks[is_nearer]], best[is_nearer] = codes[place[is_nearer]], cosine[is_nearer]
    return earlier


def _candidates(
    vectors: np.ndarray, own: np.ndarray, labelled: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Labelled images as -2 - l, then picks by rank, each with its vectors in float64, some thousands at a time."""
    given = vectors[:0] if labelled is None else labelled
    for start in range(0, len(given), EARLIER_ROWS):
        rows = np.arange(start, min(start + EARLIER_ROWS, len(given)))
        yield -2 - rows, given[rows].astype(np.float64)
    for start in range(0, len(own), EARLIER_ROWS):
        ranks = np.arange(start, min(start + EARLIER_ROWS, len(own)))
        yield ranks, vectors[own[ranks]].astype(np.float64)
