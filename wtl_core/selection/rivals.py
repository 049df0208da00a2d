"""Other selection methods: typicality and stratified random. Each order is nested: prefixes are choices.

Labelled images and frozen rows count as earlier picks of their clusters.
"""

import numpy as np

from wtl_core.selection.identity import Purpose, draw
from wtl_core.selection.kmeans_cells import assign, train_cells
from wtl_core.selection.neighbours import level_distances
from wtl_core.selection.problem import Problem

TYPICAL_OF = 20  # neighbours that typicality is measured by, as in TypiClust
_LEAST_CLUSTER = 5  # rows; smaller clusters come last, as in TypiClust


def stratified_random(problem: Problem) -> np.ndarray:
    """Random within k-means clusters, each prefix proportional to the clusters' sizes: all rows but the frozen."""
    labels, held = _clusters(problem, problem.params.clusters)
    drawn = draw(problem.keys, problem.params.seed, Purpose.STRATA)
    sizes = np.bincount(labels, minlength=len(held)) + held
    held = held + np.bincount(labels[problem.frozen], minlength=len(held))
    order = np.lexsort((problem.keys, drawn, labels))
    order = order[~np.isin(order, problem.frozen)]
    starts = np.searchsorted(labels[order], labels[order], side="left")
    turn = np.arange(len(order)) - starts + held[labels[order]]
    place = (turn + (drawn[order] % np.uint64(1 << 32)) / 2.0**32) / sizes[labels[order]]
    return order[np.lexsort((problem.keys[order], place))].astype(np.int64)


def typical_first(problem: Problem, levels: np.ndarray) -> np.ndarray:
    """TypiClust, nested: rounds at doubling budgets, each with that many clusters (at most `clusters`).

    A round takes the most typical row (least mean distance to its 20 neighbours) of the largest clusters that hold the
    fewest picks so far. `levels` (N, K) are each row's nearest distances, itself first. Source: arXiv 2202.02794.
    """
    count = len(levels)
    nearest = level_distances()[levels[:, 1 : 1 + TYPICAL_OF]] if levels.shape[1] > 1 else np.zeros((count, 1))
    by_typicality = np.lexsort((np.arange(count), nearest.mean(1)))
    picked = problem.frozen.astype(np.int64)
    budget = 0
    while budget < min(problem.params.clusters, count):
        budget = min(max(16, 2 * budget), problem.params.clusters, count)
        labels, held = _clusters(problem, budget)
        ranked = _by_cluster(labels, by_typicality, picked, held)
        picked = np.concatenate([picked, ranked[: max(0, budget - len(picked))]])
    return np.concatenate([picked, _by_cluster(labels, by_typicality, picked, held)])


def _clusters(problem: Problem, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row's cluster, (N,) int32, and how many labelled images each cluster holds, (clusters,) int64."""
    centroids = train_cells(problem.points, problem.keys, count)
    given = np.zeros(0, np.int32) if problem.labelled is None else assign(problem.labelled, centroids)
    return assign(problem.points, centroids), np.bincount(given, minlength=len(centroids))


def _by_cluster(labels: np.ndarray, by_typicality: np.ndarray, picked: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Rows that are left: clusters with fewest picks first, then the largest; the most typical row of each in turn."""
    clusters = int(labels.max()) + 1
    sizes = np.bincount(labels, minlength=clusters)
    held = np.bincount(labels[picked], minlength=clusters) + held[:clusters]
    left = by_typicality[~np.isin(by_typicality, picked)]
    grouped = left[np.argsort(labels[left], kind="stable")]
    starts = np.searchsorted(labels[grouped], labels[grouped], side="left")
    turn = np.arange(len(grouped)) - starts + held[labels[grouped]]
    is_small = sizes[labels[grouped]] < _LEAST_CLUSTER
    return grouped[np.lexsort((grouped, labels[grouped], -sizes[labels[grouped]], turn, is_small))]
