"""The finished ranking of a large pool: fixed picks, the merged orders, and what ranks behind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.accuracy import Accuracy, Goal, labels_for
from wtl_core.selection.by_regions.files import Files, load_region
from wtl_core.selection.by_regions.merging import Merged
from wtl_core.selection.by_regions.pool import LargePool
from wtl_core.selection.by_regions.weights import Weighed
from wtl_core.selection.by_regions.work import Comparing
from wtl_core.selection.greedy import new_state
from wtl_core.selection.kernels import ONE, WEIGHT_ONE
from wtl_core.selection.label_weights import LabelSay, Lesson
from wtl_core.selection.neighbours import exact_distances, numeric_path_of
from wtl_core.selection.problem import PickOrder
from wtl_core.selection.quotas import QuotaOutcome
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import NOTHING_NEAR, Ranking, with_the_far
from wtl_core.selection.stopping import find_stop


@dataclass(frozen=True)
class _Fixed:
    """Frozen picks, then the head, by rank: `nearest` holds marks, -2 - l for labelled image or, behind these, pick l.

    `labelled` images cover `start` of the whole pool.
    """

    rows: np.ndarray
    gain: np.ndarray
    stands_for: np.ndarray
    weight: np.ndarray
    nearest: np.ndarray
    radius: np.ndarray
    labelled: int
    start: int


@dataclass(frozen=True)
class _Picks:
    """Every pick by rank: `rows` and `nearest` are rows of the pool, the latter -1 where it is none of them."""

    rows: np.ndarray
    gain: np.ndarray
    stands_for: np.ndarray
    weight: np.ndarray
    nearest: np.ndarray
    radius: np.ndarray


def assemble(
    files: Files,
    regions: Sequence[int],
    pool: LargePool,
    comparing: Comparing,
    weighed: Weighed,
    merged: Merged,
    quotas: QuotaOutcome,
    steering: Steering,
    lesson: Lesson | None,
) -> Ranking:
    """The ranking: fixed picks, the merged orders, and what ranks behind."""
    params = comparing.params
    fixed = _read_fixed(files, regions)
    picks = _picks(files, regions, merged, fixed, pool.count)
    picked = len(picks.rows)
    assert picked == weighed.count
    behind, twins = _behind(pool, picks.rows, weighed.twins)
    whole = max(1, ONE * weighed.whole)
    gain = np.concatenate([picks.gain / whole, np.zeros(len(behind))])
    coverage = np.minimum(1.0, fixed.start / whole + np.cumsum(gain))
    radius = np.concatenate([picks.radius, np.where(twins >= 0, 0.0, np.nan)])
    goal = _goal(params, steering, left=picked)
    stop = find_stop(
        params, kept=picked, gain=gain, coverage=coverage, radius=radius, frozen=len(pool.frozen),
        quotas=quotas, goal=goal,
    )  # fmt: skip
    say, said_of = _say(files, regions, lesson)
    said = np.full(pool.count, -1)
    said[said_of] = np.arange(len(said_of))
    twin_rows = np.where(twins >= 0, pool.caller_rows[twins], -1)
    return Ranking(
        rows=pool.caller_rows[np.concatenate([picks.rows, behind])],
        gain=gain,
        coverage=coverage,
        radius=radius,
        duplicate_of=np.concatenate([np.full(picked, -1), twin_rows]),
        stands_for=np.concatenate([picks.stands_for, np.zeros(len(behind))]).astype(np.int64),
        nearest_earlier=np.concatenate([np.where(picks.nearest >= 0, pool.caller_rows[picks.nearest], -1), twin_rows]),
        weights=np.concatenate([picks.weight / WEIGHT_ONE, np.zeros(len(behind))]),
        exact_until=len(fixed.rows),
        traced_until=picked,
        frozen=len(pool.frozen),
        scale=comparing.scale,
        near_duplicate_distance=comparing.near,
        numeric_path=numeric_path_of(comparing.device),
        stop=stop,
        quotas_until=quotas.until,
        quota_cost=quotas.cost,
        quota_advice=quotas.advice,
        optimum_bound=np.full(100, np.nan),
        goal=goal,
        labels=say,
        label_rows=np.concatenate([said[picks.rows], np.full(len(behind), -1)]),
    )


def _picks(files: Files, regions: Sequence[int], merged: Merged, fixed: _Fixed, count: int) -> _Picks:
    """Fixed picks, and behind them those of the merged order."""

    def by_rank(name: str, first: np.ndarray) -> np.ndarray:
        parts = [files.read(f"ordered-{region:06d}", name)[0] for region in regions]
        return np.concatenate([first, np.concatenate(parts)[merged.order]])

    traced = [files.read(f"traced-{region:06d}", "rows", "earlier", "radius") for region in regions]
    of_rows, earlier, radius = (np.concatenate(part) for part in zip(*traced, strict=True))
    place = np.empty(count, np.int64)
    place[of_rows] = np.arange(len(of_rows))
    traced_at = place[merged.rows]
    return _Picks(
        rows=np.concatenate([fixed.rows, merged.rows.astype(np.int64)]),
        gain=by_rank("gain", fixed.gain),
        stands_for=by_rank("stands_for", fixed.stands_for),
        weight=by_rank("weight", fixed.weight),
        nearest=_pool_rows(np.concatenate([fixed.nearest, earlier[traced_at]]), fixed),
        radius=np.concatenate([fixed.radius, radius[traced_at]]),
    )


def _behind(pool: LargePool, picked: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are no picks, copies last, and the row that each is a copy of or -1."""
    twin_of = _twins(pool, found)
    is_behind = np.ones(pool.count, bool)
    is_behind[picked] = False
    behind = np.flatnonzero(is_behind)
    behind = behind[np.argsort(twin_of[behind] >= 0, kind="stable")]
    return behind, twin_of[behind]


def _read_fixed(files: Files, regions: Sequence[int]) -> _Fixed:
    """What fixed picks cover, summed over the regions; the integers are those of a pool that is ranked at once."""
    labelled, vectors = files.read("labelled", "vectors")[0], files.read("fixed", "vectors")[0]
    rows = files.read("fixed", "rows")[0]
    gain, stands_for = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    earlier, weight = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)
    start = 0
    for region in regions:
        more, counted, before, own, covered = files.read(
            f"covered-{region:06d}", "gain", "stands_for", "earlier", "weight", "start"
        )
        gain, stands_for, start = gain + more, stands_for + counted, start + int(covered)
        is_here = own >= 0
        earlier[is_here], weight[is_here] = before[is_here], own[is_here]
    state = new_state(len(rows))
    state.order[:] = np.arange(len(rows))
    is_pick = earlier <= -2 - len(labelled)
    state.earlier[:] = np.where(is_pick, -2 - len(labelled) - earlier, earlier)
    order = PickOrder(state, weight, np.zeros(0), exact_until=0, traced_until=len(rows))
    found = with_the_far(order, vectors, np.arange(len(rows)), labelled)
    radius = np.full(len(rows), NOTHING_NEAR)
    picked, given = np.flatnonzero(found >= 0), np.flatnonzero(found <= -2)
    radius[picked] = exact_distances(vectors, picked, found[picked], vectors)
    radius[given] = exact_distances(vectors, given, -2 - found[given], labelled)
    nearest = np.where(found >= 0, -2 - len(labelled) - found, found)
    return _Fixed(rows, gain, stands_for, weight, nearest, radius, len(labelled), start)


def _pool_rows(found: np.ndarray, fixed: _Fixed) -> np.ndarray:
    """Rows of the pool, with those of fixed picks in place of marks; -1 for none, and for labelled images."""
    pick = -2 - fixed.labelled - found
    is_pick = pick >= 0
    return np.where(is_pick, fixed.rows[np.where(is_pick, pick, 0)] if len(fixed.rows) else -1, np.maximum(found, -1))


def _twins(pool: LargePool, found: np.ndarray) -> np.ndarray:
    """The row that each row is a copy of, by its pixels or its vector, -1 for none; chains end at the first row."""
    twin_of = pool.copies.copy()
    twin_of[found[:, 0]] = found[:, 1]
    is_copy = np.flatnonzero(twin_of >= 0)
    above = twin_of[twin_of[is_copy]]
    twin_of[is_copy[above >= 0]] = above[above >= 0]
    return twin_of


def _goal(params: SelectionParams, steering: Steering, *, left: int) -> Goal | None:
    if params.accuracy_goal is None:
        return None
    return labels_for(params.accuracy_goal, steering.accuracy or Accuracy(None, 0, 0), left=left)


def _say(files: Files, regions: Sequence[int], lesson: Lesson | None) -> tuple[LabelSay | None, np.ndarray]:
    """What the labels say of all samples that are ordered, and the pool's row of each; of none if it is not heard."""
    if lesson is None:
        return None, np.zeros(0, np.int64)
    rows, parts = [np.zeros(0, np.int64)], [(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))]
    for region in regions if lesson.is_heard else ():
        inside, likeliest, second, disagreement = files.read(
            f"compared-{region:06d}", "inside", "likeliest", "second", "disagreement"
        )
        own, is_own = load_region(files, region, "rows", "is_own")
        mine = is_own[inside]
        rows.append(own[inside][mine].astype(np.int64))
        parts.append((likeliest[mine], second[mine], disagreement[mine]))
    likeliest, second, disagreement = (np.concatenate(part) for part in zip(*parts, strict=True))
    say = LabelSay(
        factors=np.zeros(0),
        names=lesson.votes.names,
        likeliest=likeliest,
        second=second,
        disagreement=disagreement,
        labelled=len(lesson.votes.known),
        agreement=lesson.agreement,
        commonest=lesson.commonest,
        is_heard=lesson.is_heard,
    )
    return say, np.concatenate(rows)
