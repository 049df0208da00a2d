"""One ranking of a whole pool: every prefix is what greedy picking of that size gives.

`rank` reads downwards: check, set copies aside, measure the scale, let labelled images cover, weigh, order, assemble.
The ranking is a function of vectors, ids, params and steering: never of the rows' order, threads or block sizes.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wtl_core.errors import InputError
from wtl_core.machine import Progress
from wtl_core.recipe.operating_point import percents_of
from wtl_core.recipe.selection import EMPTY, SelectionParams
from wtl_core.selection import orders
from wtl_core.selection.accuracy import Accuracy, labels_for
from wtl_core.selection.dense import cover_by
from wtl_core.selection.greedy import State, new_state
from wtl_core.selection.identity import Purpose, content_keys, shuffled
from wtl_core.selection.kernels import ONE, SCALE_REFERENCES, kernel_table, median_scale, typical_value
from wtl_core.selection.label_votes import Votes
from wtl_core.selection.label_weights import listen
from wtl_core.selection.neighbours import Points, level_of, prepare
from wtl_core.selection.problem import Problem
from wtl_core.selection.result import Ranking, assemble
from wtl_core.selection.sorted_rows import SortedRows, sort_rows, unit_vectors
from wtl_core.selection.steering import check_weights, numbered, similarity_weights

_log = logging.getLogger(__name__)
_NEAR_DUPLICATES = 0.25  # holds 99 % of near-copies by a ResNet-9's own features; others were not measured
_MOST_OF_SCALE = 2 / 3
"""Largest distance of near-duplicates over the kernel's scale, beyond which images are merely alike.

At half of it, 0.57 by packaged networks, half of the pairs of a burst's copies (0.37 to 0.74 apart) were farther apart,
so bursts weighed more than other images, and picks of a long tail with bursts taught less; see `docs/log.md`.
"""

Names = Sequence[str] | np.ndarray


@dataclass(frozen=True)
class Steering:
    """What is known of the N samples beside their vectors, and the images outside the ranking that shape it.

    Attributes:
        duplicate_of: (N,) the row that each row is pixel-identical to, -1 for none.
        weights: (N,) how much it matters that each sample is covered, from 0; samples of 0 come last. Of
            pixel-identical samples the one that is kept takes the largest.
        groups: (N,) each sample's group, for quotas and balance.
        labelled: (L, D) vectors of images that are labelled already; they cover from the start and are never picked.
        labelled_classes: The classes of each of those labelled images: none for an image that holds nothing of
            interest, None where not known. They steer `coverage` as `params.labels` says; sums over them follow the
            order of the labelled images, which a workspace sorts by id.
        accuracy: What the labels teach, for the accuracy goal; None where not known.
        labelled_groups: The groups of those labelled images whose group is known; they count towards minima.
        frozen: Rows that keep their rank: the ranking begins with them, in this order.
        similar: Pairs of the vectors (Q, D) of given images and the exponent of exp(-d / s), where d is the distance
            to the nearest of them.
    """

    duplicate_of: np.ndarray | None = None
    weights: np.ndarray | None = None
    groups: Names | None = None
    labelled: np.ndarray | None = None
    labelled_classes: Sequence[Sequence[str] | None] = ()
    accuracy: Accuracy | None = None
    labelled_groups: Names = ()
    frozen: np.ndarray | None = None
    similar: Sequence[tuple[np.ndarray, float]] = ()


def rank(
    vectors: np.ndarray,
    params: SelectionParams,
    *,
    sample_ids: Sequence[str],
    steering: Steering | None = None,
    device: str = "cpu",
    scale: float | None = None,
    on_progress: Progress | None = None,
) -> Ranking:
    """Rank all rows.

    Args:
        vectors: (N, D) float16 or float32, one per sample; scaled to unit length where they are not.
        params: What the picks should be best at, and the steering that needs no arrays.
        sample_ids: N distinct ids; they order rows, settle ties and feed every draw.
        steering: What is known of the samples beside their vectors.
        device: `cpu` or a CUDA device.
        scale: The kernel's scale if one is fixed already; None measures it on these vectors.
        on_progress: Called with how many rows of how many are compared with all.

    Raises:
        InputError: no rows, wrong shapes, values that are not finite, zero vectors, ids that repeat, useless weights.
        ConfigError: quotas that cannot hold at the budget.
    """
    steering = steering or Steering()
    samples = sort_rows(vectors, sample_ids, steering.duplicate_of)
    frozen = _sorted_rows_of(steering.frozen, samples)
    base = _base_weights(steering.weights, samples)
    is_inside = (samples.twin_of < 0) & (base > 0)
    is_inside[frozen] = True
    inside = np.flatnonzero(is_inside)
    points = prepare(samples.vectors if is_inside.all() else samples.vectors[inside], device)
    keys = content_keys([samples.sample_ids[row] for row in inside])
    if scale is None:
        scale = median_scale(points, shuffled(keys, 0, Purpose.SCALE))
    total = len(samples.sample_ids)
    _log.info("ranking %d of %d samples by %s, scale %.4f", len(inside), total, params.objective, scale)
    table = kernel_table(kernel_of(params), scale * params.scale_factor)
    near = near_distance(params.near_duplicate_distance, scale)
    labelled = steering.labelled
    labelled = None if labelled is None or len(labelled) == 0 else _checked(labelled, samples, what="labelled")
    labelled_points = None if labelled is None else prepare(labelled, device)
    votes = votes_of(steering, params, labelled, points.count)
    state = covered_by(points, labelled_points, table, votes)
    names, codes, labelled_by_group = _groups(steering, samples, inside)
    similar = [(prepare(_checked(some, samples, what="similar"), device), power) for some, power in steering.similar]
    weights = similar_weights(base[inside], similar, points, scale * params.scale_factor)
    weights = weights / weights.max()
    say = None
    if votes is not None and labelled is not None and labelled_points is not None:
        own = samples.vectors if is_inside.all() else samples.vectors[inside]
        order = shuffled(keys, 0, Purpose.LABELS)
        say = listen(votes, own, labelled_points, labelled, order=order, always=params.labels == "use")
    if say is not None and say.is_heard:
        weights = weights * say.factors
    is_even = bool(np.ptp(weights) == 0.0)
    drawn = shuffled(keys, 0, Purpose.SCALE)[:SCALE_REFERENCES]
    problem = Problem(
        points=points,
        keys=keys,
        table=table,
        weights=weights / weights.max(),
        near_level=level_of(near),
        scale=scale,
        typical=typical_of(params, points.subset(drawn), labelled_points, table, near, is_even=is_even),
        best=state.best,
        nearest=state.nearest,
        labelled=labelled_points,
        frozen=np.searchsorted(inside, frozen),
        groups=codes,
        group_names=names,
        labelled_by_group=labelled_by_group,
        counts=np.minimum(percents_of(total), len(inside)),
        params=params,
    )
    accuracy = steering.accuracy or Accuracy(None, 0, 0)
    goal = None if params.accuracy_goal is None else labels_for(params.accuracy_goal, accuracy, left=len(inside))
    ordered, quotas = orders.order_rows(problem, total, on_progress=on_progress)
    return assemble(problem, ordered, samples, inside, near=near, labelled=labelled, quotas=quotas, say=say, goal=goal)


def typical_of(
    params: SelectionParams, drawn: Points, labelled: Points | None, table: np.ndarray, near: float, *, is_even: bool
) -> int:
    """A typical neighbour's kernel value for the tail, by rows that are `drawn` by content and labelled images.

    Where some samples weigh more than others there is no tail, since these are to be picked for their own sake.
    """
    if params.objective != "coverage" or params.balance is not None or not is_even:
        return ONE
    if labelled is not None and labelled.count > SCALE_REFERENCES:
        labelled = labelled.subset(np.arange(SCALE_REFERENCES))
    return typical_value(drawn, labelled, table, near_level=level_of(near))


def near_distance(given: float | None, scale: float | None) -> float:
    """Within which two samples are near-duplicates, by the distance that is `given` and the kernel's scale."""
    # no number was kept where an image of a fit had no vector
    near = _NEAR_DUPLICATES if given is None or math.isnan(given) else given
    return near if scale is None else min(near, _MOST_OF_SCALE * scale)


def kernel_of(params: SelectionParams) -> str:
    """The kernel that samples are picked by."""
    return "ball" if params.objective == "probability-coverage" else params.kernel


def _sorted_rows_of(frozen: np.ndarray | None, samples: SortedRows) -> np.ndarray:
    """Frozen rows as sorted rows, in their order."""
    count = len(samples.caller_rows)
    rows = np.zeros(0, np.int64) if frozen is None else np.asarray(frozen, np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= count or len(np.unique(rows)) < len(rows)):
        raise InputError(f"frozen: expected distinct rows from 0 to {count - 1}; leave out what is not in the pool")
    place = np.empty(count, np.int64)
    place[samples.caller_rows] = np.arange(count)
    return np.asarray(place[rows])


def _base_weights(weights: np.ndarray | None, samples: SortedRows) -> np.ndarray:
    """User weights in sorted rows, at most 1; a kept row takes the largest weight of its copies."""
    if weights is None:
        return np.ones(len(samples.caller_rows))
    checked = check_weights(weights, len(samples.caller_rows))[samples.caller_rows]
    twins = np.flatnonzero(samples.twin_of >= 0)
    np.maximum.at(checked, samples.twin_of[twins], checked[twins])
    return np.asarray(checked / checked.max())


def _checked(vectors: np.ndarray, samples: SortedRows, *, what: str) -> np.ndarray:
    return unit_vectors(vectors, None, what=what, width=samples.vectors.shape[1])


def covered_by(points: Points, others: Points | None, table: np.ndarray, votes: Votes | None = None) -> State:
    """Nothing picked, and covered by images outside the pool; `nearest` refers to image l by -2 - l."""
    state = new_state(points.count)
    if others is not None:
        marks = -2 - np.arange(others.count, dtype=np.int32)
        cover_by(points, others, table, state, marks=marks, on_bits=None if votes is None else votes.add)
    return state


def votes_of(steering: Steering, params: SelectionParams, labelled: np.ndarray | None, candidates: int) -> Votes | None:
    """The votes that labels have, none yet; None where classes are not to steer, or fewer than two are known."""
    classes = steering.labelled_classes
    images = 0 if labelled is None else len(labelled)
    if len(classes) not in (0, images):
        raise InputError(f"labelled_classes: expected those of each labelled image ({images}), found {len(classes)}")
    if params.labels == "ignore" or not params.is_coverage:
        return None
    distinct = {name for names in classes if names is not None for name in names or (EMPTY,)}
    return Votes(classes, candidates) if len(distinct) > 1 else None


def _groups(steering: Steering, samples: SortedRows, inside: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Group names, sorted; the place of each inside row's group among them; and how many labelled images each has."""
    names, codes, held = group_codes(steering, len(samples.caller_rows))
    return names, np.zeros(len(inside), np.int32) if codes is None else codes[samples.caller_rows][inside], held


def group_codes(steering: Steering, count: int) -> tuple[list[str], np.ndarray | None, np.ndarray]:
    """Group names, sorted; the place of each of the caller's rows' group, (N,) int32; and labelled images of each.

    Without groups all are of one without a name, and there are no places.
    """
    groups, labelled = steering.groups, steering.labelled_groups
    if groups is None:
        return [""], None, np.zeros(1, np.int64)
    if len(groups) != count:
        raise InputError(f"groups: expected one per sample ({count}), found {len(groups)}")
    names, codes = numbered([*groups, *labelled])
    return names, codes[: len(groups)], np.bincount(codes[len(groups) :], minlength=len(names))


def similar_weights(
    base: np.ndarray, similar: Sequence[tuple[Points, float]], points: Points, scale: float
) -> np.ndarray:
    """Weights after similarity to given images.

    By exp(-d / s) whatever the kernel of the picking: images of another kind are far from all of the pool, and what is
    still the nearest of it must count for more.
    """
    table = kernel_table("laplace", scale)
    for others, strength in similar:
        state = covered_by(points, others, table)
        base = base * similarity_weights(state.best / ONE, strength)
    return base
