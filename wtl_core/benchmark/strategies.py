"""Orders of a pool before any label is known: coverage, other methods, two random baselines; and coverage with labels.

Functions take vectors and ids and give rows. None sees labels but two: `class_balanced`, the oracle, sees all, and
`order_with_labels` those of its earlier picks.
"""

import time
from collections.abc import Sequence

import numpy as np

from wtl_core.benchmark.budgets import share_count
from wtl_core.machine import Progress
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.identity import content_keys, shuffled
from wtl_core.selection.ranking import Steering, rank

VERSION = 1
SEEDED = frozenset({"stratified-random"})
"""Strategies with a stored order that draw; the others with one give the same order whatever the seed."""
TRACED = ("stratified-random", "k-center", "typicality")
"""Strategies whose seconds include what `rank` says of an order beside making it: see `order_by_strategy`."""
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
    on_progress: Progress | None = None,
) -> np.ndarray:
    """The first `count` rows (or more) in the strategy's order, (>= count,) int64.

    `near_copy_distance` is the encoder's, as the pipeline has it; None where it was not measured. `on_progress` is told
    how many rows of how many are compared with all.

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
    return rank(vectors, params, sample_ids=sample_ids, device=device, on_progress=on_progress).rows


def order_with_labels(
    vectors: np.ndarray,
    sample_ids: list[str],
    labels: np.ndarray,
    *,
    budgets: Sequence[int],
    device: str,
    near_copy_distance: float | None = None,
    on_progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage whose labels come back at each budget: the rest is ranked again by what they say, as a refresh does.

    Up to the first budget the picks are those of coverage in one pass. The kernel's scale stays that of its ranking.

    Args:
        vectors: (N, D) of the pool.
        sample_ids: N distinct ids.
        labels: (N,), below 0 for an image of no class: labelled as one that holds nothing of interest.
        budgets: Rising, the last at most N.
        device: `cpu` or a CUDA device.
        near_copy_distance: As in `order_by_strategy`.
        on_progress: The same, for each ranking.

    Returns:
        (last budget,) int64, the picks in their order, and (budgets,) float64, the seconds that choosing up to each
        budget took in all.
    """
    params = SelectionParams(budget=budgets[-1], near_duplicate_distance=near_copy_distance)
    rest, picks = np.arange(len(vectors)), np.zeros(0, np.int64)
    scale, seconds = None, []
    began = time.perf_counter()
    for budget in budgets:
        known = sorted(picks, key=sample_ids.__getitem__)  # as a workspace has them
        classes = [(str(label),) if label >= 0 else () for label in labels[known]]
        steering = Steering(labelled=vectors[known], labelled_classes=classes)
        ranking = rank(
            vectors[rest], params, sample_ids=[sample_ids[row] for row in rest], steering=steering, device=device,
            scale=scale, on_progress=on_progress,
        )  # fmt: skip
        scale = ranking.scale
        picks = np.concatenate([picks, rest[ranking.rows[: budget - len(picks)]]])
        rest = np.setdiff1d(rest, picks)
        seconds.append(time.perf_counter() - began)
    return picks, np.array(seconds)


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
