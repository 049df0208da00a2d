"""Orders of a pool in one pass, before any label is known: coverage, other methods, and two random baselines.

Functions take vectors and ids and give rows. None sees labels but `class_balanced`, the oracle.
"""

import numpy as np

from wtl_core.benchmark.budgets import share_count
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.identity import content_keys, shuffled
from wtl_core.selection.ranking import rank

VERSION = 1
SEEDED = frozenset({"stratified-random"})
"""Strategies with a stored order that draw; the others with one give the same order whatever the seed."""
TRACED = ("stratified-random", "k-center", "typicality")
"""Strategies whose seconds include what `rank` says of an order beside making it: see `order_by_strategy`."""
WITHOUT_VECTORS = frozenset({"random", "class-balanced-random"})
"""Strategies that look at no vector; their orders are not stored but drawn when they are needed."""
LIMITED = frozenset({"mundig"})
"""Strategies whose time grows with the picks asked for; the others order the whole pool."""
_RANDOM_PURPOSE, _ORACLE_PURPOSE, _SHARE_PURPOSE = 100, 101, 102


def order_by_strategy(
    strategy: str,
    vectors: np.ndarray,
    sample_ids: list[str],
    *,
    count: int,
    seed: int,
    device: str,
    near_copy_distance: float | None = None,
) -> np.ndarray:
    """The first `count` rows (or more) in the strategy's order, (>= count,) int64.

    `near_copy_distance` is the encoder's, as the pipeline has it; None where it was not measured.

    Time: for the orders in `TRACED`, `rank` also computes what they cover, from kernel values of all pairs of rows,
    twice. Choosing alone does not need that, so measured seconds of these strategies are more than the least they cost.

    `mundig` needs its package, see `params.check_installed`.
    """
    if strategy == "random":
        return random_order(sample_ids, seed=seed)
    if strategy == "mundig":
        return _mundig(vectors, count)
    params = SelectionParams.model_validate(
        {"objective": strategy, "seed": seed, "budget": count, "near_duplicate_distance": near_copy_distance}
    )
    return rank(vectors, params, sample_ids=sample_ids, device=device).rows


def members(sample_ids: list[str], *, share: float, seed: int) -> np.ndarray:
    """The rows that a seed's pool holds, ascending: all, or a share drawn by id and seed."""
    if share >= 1.0:
        return np.arange(len(sample_ids))
    order = shuffled(content_keys(sample_ids), seed, _SHARE_PURPOSE)
    return np.asarray(np.sort(order[: share_count(len(order), share)]))


def random_order(sample_ids: list[str], *, seed: int) -> np.ndarray:
    """All rows, uniformly at random, by ids and seed alone."""
    return shuffled(content_keys(sample_ids), seed, _RANDOM_PURPOSE)


def class_balanced(labels: np.ndarray, sample_ids: list[str], *, seed: int) -> np.ndarray:
    """The oracle: classes in turn, at random within each, until a class runs out. It reads every label beforehand."""
    order = shuffled(content_keys(sample_ids), seed, _ORACLE_PURPOSE)
    turn = np.empty(len(order), np.int64)
    for number in np.unique(labels):
        rows = order[labels[order] == number]
        turn[rows] = np.arange(len(rows)) if number >= 0 else len(order)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return np.lexsort((place, turn))


def _mundig(vectors: np.ndarray, count: int) -> np.ndarray:
    """Diversity as `lightly-mundig` does it: farthest first, from the first row it is given."""
    from lightly_mundig import Selection

    unit = vectors.astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    selection = Selection()
    selection.add_diversifying_strategy(unit, 1.0)
    return np.asarray(selection.run_selection([], len(unit), min(count, len(unit))), np.int64)
