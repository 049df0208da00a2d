"""One ranking of a whole pool: up to its tail every prefix is as good a choice of its size as greedy picking finds.

`rank` reads downwards: check, set twins aside, measure the scale, let labelled images cover, weigh, order, assemble.
The ranking is a function of vectors, ids, params, labelled and frozen images: never of the rows' order, threads or
block sizes.
"""

import logging
from collections.abc import Sequence

import numpy as np

from wtl_core.errors import InputError
from wtl_core.machine import Progress
from wtl_core.recipe.operating_point import percents_of
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import orders
from wtl_core.selection.dense import cover_by
from wtl_core.selection.greedy import State, new_state
from wtl_core.selection.identity import Purpose, content_keys, shuffled
from wtl_core.selection.inputs import Pool, read_pool, unit_vectors
from wtl_core.selection.kernels import ONE, kernel_table, median_scale
from wtl_core.selection.neighbours import Points, level_of, prepare
from wtl_core.selection.problem import Problem
from wtl_core.selection.result import Ranking, assemble
from wtl_core.selection.steering import check_weights, similarity_weights

_log = logging.getLogger(__name__)
_NEAR_DUPLICATES = 0.25  # holds 99 % of near-copies by a ResNet-9's own features; others were not measured

__all__ = ["Ranking", "rank"]


def rank(
    vectors: np.ndarray,
    params: SelectionParams,
    *,
    sample_ids: Sequence[str],
    duplicate_of: np.ndarray | None = None,
    weights: np.ndarray | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
    labelled: np.ndarray | None = None,
    labelled_groups: Sequence[str] | np.ndarray = (),
    frozen: np.ndarray | None = None,
    similar: Sequence[tuple[np.ndarray, float]] = (),
    device: str = "cpu",
    scale: float | None = None,
    on_progress: Progress | None = None,
) -> Ranking:
    """Rank all rows.

    Args:
        vectors: (N, D) float16 or float32, one per sample; scaled to unit length where they are not.
        params: What the picks should be best at, and every steering that needs no arrays.
        sample_ids: N distinct ids; they order rows, settle ties and feed every draw.
        duplicate_of: (N,) the row that each row is pixel-identical to, -1 for none.
        weights: (N,) how much it matters that each sample is covered, from 0; a 0 goes to the end of the ranking. Of
            pixel-identical samples the kept one takes the largest.
        groups: (N,) each sample's group, for quotas and balance.
        labelled: (L, D) vectors of images that are labelled already; they shape the picks and are never picked.
        labelled_groups: the groups of the labelled images whose group is known, one each; they count towards minima.
        frozen: rows that keep their rank: the ranking begins with them, in this order.
        similar: vectors (Q, D) of given images with the exponent of exp(-d / s), d the distance to the nearest of them.
        device: `cpu` or a CUDA device.
        scale: the kernel's scale where one is frozen already; None measures it on this pool.
        on_progress: told how many rows of how many have been compared with all.

    Raises:
        InputError: no rows, wrong shapes, values that are not finite, zero vectors, ids that repeat, useless weights.
        ConfigError: quotas that cannot hold at the budget.
    """
    pool = read_pool(vectors, sample_ids, duplicate_of)
    forced = _forced(frozen, pool)
    base = _base_weights(weights, pool)
    is_inside = (pool.twin_of < 0) & (base > 0)
    is_inside[forced] = True
    inside = np.flatnonzero(is_inside)
    points = prepare(pool.vectors if is_inside.all() else pool.vectors[inside], device)
    keys = content_keys([pool.sample_ids[row] for row in inside])
    if scale is None:
        scale = median_scale(points, shuffled(keys, 0, Purpose.SCALE))
    _log.info("ranking %d of %d samples by %s, scale %.4f", len(inside), len(pool.rows), params.objective, scale)
    table = kernel_table(_kernel_of(params), scale * params.scale_factor)
    near = params.near_duplicate_distance
    near = min(_NEAR_DUPLICATES if near is None else near, scale / 2)
    known = None if labelled is None or len(labelled) == 0 else _given(labelled, pool, what="labelled")
    anchors = None if known is None else prepare(known, device)
    state = _covered_by(points, anchors, table)
    names, codes, held = _groups(groups, labelled_groups, pool, inside)
    given = [(prepare(_given(some, pool, what="similar"), device), strength) for some, strength in similar]
    problem = Problem(
        points=points,
        keys=keys,
        table=table,
        weights=_similar_weights(base[inside], given, points, scale * params.scale_factor),
        near_level=level_of(near),
        scale=scale,
        best=state.best,
        nearest=state.nearest,
        labelled=anchors,
        frozen=np.searchsorted(inside, forced),
        groups=codes,
        group_names=names,
        labelled_by_group=held,
        counts=np.minimum(percents_of(len(pool.rows)), len(inside)),
        params=params,
    )
    return _order(problem, pool, inside, near=near, labelled=known, on_progress=on_progress)


def _order(
    problem: Problem,
    pool: Pool,
    inside: np.ndarray,
    *,
    near: float,
    labelled: np.ndarray | None,
    on_progress: Progress | None,
) -> Ranking:
    """Order the problem's rows and say all that is to be said of each."""
    cover, kept = orders.order_pool(problem, len(pool.rows), on_progress=on_progress)
    return assemble(problem, cover, pool, inside, near=near, labelled=labelled, quotas=kept)


def _kernel_of(params: SelectionParams) -> str:
    return "ball" if params.objective == "probability-coverage" else params.kernel


def _forced(frozen: np.ndarray | None, pool: Pool) -> np.ndarray:
    """Frozen rows as sorted rows, in their order."""
    count = len(pool.rows)
    rows = np.zeros(0, np.int64) if frozen is None else np.asarray(frozen, np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= count or len(np.unique(rows)) < len(rows)):
        raise InputError(f"frozen: expected distinct rows from 0 to {count - 1}; leave out what is not in the pool")
    place = np.empty(count, np.int64)
    place[pool.rows] = np.arange(count)
    return np.asarray(place[rows])


def _base_weights(weights: np.ndarray | None, pool: Pool) -> np.ndarray:
    """User weights in sorted rows, at most 1; a kept row speaks for its twins and takes the largest of theirs."""
    if weights is None:
        return np.ones(len(pool.rows))
    checked = check_weights(weights, len(pool.rows))[pool.rows]
    twins = np.flatnonzero(pool.twin_of >= 0)
    np.maximum.at(checked, pool.twin_of[twins], checked[twins])
    return np.asarray(checked / checked.max())


def _given(vectors: np.ndarray, pool: Pool, *, what: str) -> np.ndarray:
    return unit_vectors(vectors, None, what=what, width=pool.vectors.shape[1])


def _covered_by(points: Points, others: Points | None, table: np.ndarray) -> State:
    """The state that images outside the pool leave it in; `nearest` refers to image l by -2 - l."""
    state = new_state(points.count)
    if others is not None:
        cover_by(points, others, table, state, marks=-2 - np.arange(others.count, dtype=np.int32))
    return state


def _groups(
    groups: Sequence[str] | np.ndarray | None, labelled: Sequence[str] | np.ndarray, pool: Pool, inside: np.ndarray
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names in sorted order, each inside row's code, and the labelled images by group."""
    if groups is None:
        return [""], np.zeros(len(inside), np.int32), np.zeros(1, np.int64)
    if len(groups) != len(pool.rows):
        raise InputError(f"groups: expected one per sample ({len(pool.rows)}), found {len(groups)}")
    names, codes = np.unique(np.asarray([str(group) for group in (*groups, *labelled)]), return_inverse=True)
    own, held = codes[: len(groups)], np.bincount(codes[len(groups) :], minlength=len(names))
    return [str(name) for name in names], own[pool.rows][inside].astype(np.int32), held


def _similar_weights(
    base: np.ndarray, similar: Sequence[tuple[Points, float]], points: Points, scale: float
) -> np.ndarray:
    """Weights after similarity to given images, at most 1.

    By exp(-d / s) whatever the kernel of the picking: images of another kind are far from all of the pool, and what is
    still the nearest of it must count for more.
    """
    table = kernel_table("laplace", scale)
    for others, strength in similar:
        state = _covered_by(points, others, table)
        base = base * similarity_weights(state.best / ONE, strength)
    return np.asarray(base / base.max())
