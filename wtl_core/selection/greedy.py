"""The state of greedy picking, and the steps that all its variants share. No kernels, no products.

Candidates wait in one heap per group, best first: the larger gain, then the lower row. Gains are integers, so a pick
never depends on the order of a sum. Groups exist for quotas; without any there is one.
"""

from typing import NamedTuple

import numba
import numpy as np

from wtl_core.selection.kernels import ONE
from wtl_core.selection.quotas import Limits, mark_allowed

DONE = -1


class State(NamedTuple):
    """What is picked and how well it covers; arrays by row (N,) unless said otherwise.

    `best` int16: each row's kernel value to the pick nearest to it; `nearest` int32: that pick's row, -1 for none,
    -2 - l for labelled image l. `order`, `gains`, `keys` (what counted of them), `stands_for`, `earlier` (the row's
    `nearest` when it was picked) are by rank, and valid up to `cursor[0]`, the number of picks; `cursor[1]` is the rank
    where quotas had to be given up.
    """

    best: np.ndarray
    nearest: np.ndarray
    is_taken: np.ndarray
    order: np.ndarray
    gains: np.ndarray
    keys: np.ndarray
    stands_for: np.ndarray
    earlier: np.ndarray
    cursor: np.ndarray

    @property
    def picked(self) -> int:
        """Picks so far."""
        return int(self.cursor[0])


class Heaps(NamedTuple):
    """Candidates by group: `rows` holds group g at `starts[g]`, `sizes[g]` of them; `bounds` (N,) are the keys.

    A key is what counts of a gain, see `Tail`, or an upper bound of that.
    """

    rows: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    bounds: np.ndarray
    stamps: np.ndarray
    groups: np.ndarray
    allowed: np.ndarray


class Tail(NamedTuple):
    """How much of what a pick covers of itself counts.

    A pick's kernel value to itself is lowered by `most` once picks, with `given` labelled images, are half as many
    as the `rows` that are left, and before that in proportion. A sixteenth counts in any case, of a row that repeats no
    pick as much as of one that just does, at a kernel value of `apart` below 1: so repeats come last, copies behind.
    """

    most: int
    given: int
    rows: int
    apart: int


NO_TAIL = Tail(0, 0, 1, 0)
"""All of every gain counts."""


def new_state(count: int) -> State:
    """Nothing picked, nothing covered."""
    return State(
        best=np.zeros(count, np.int16),
        nearest=np.full(count, -1, np.int32),
        is_taken=np.zeros(count, np.bool_),
        order=np.full(count, -1, np.int32),
        gains=np.zeros(count, np.int64),
        keys=np.zeros(count, np.int64),
        stands_for=np.zeros(count, np.int32),
        earlier=np.full(count, -1, np.int32),
        cursor=np.array([0, count], np.int64),
    )


def copy_state(state: State) -> State:
    """A copy that can be changed apart."""
    return State(*(array.copy() for array in state))


def new_heaps(bounds: np.ndarray, groups: np.ndarray, num_groups: int, is_taken: np.ndarray) -> Heaps:
    """Heaps over every row that is not taken, by upper bounds of what counts of their gains, (N,) int64."""
    free = np.flatnonzero(~is_taken)
    order = free[np.lexsort((free, -bounds[free], groups[free]))]  # sorted, so already a heap
    sizes = np.bincount(groups[order], minlength=num_groups).astype(np.int64)
    starts = np.concatenate(([0], np.cumsum(sizes)))[:-1].astype(np.int64)
    return Heaps(
        rows=order.astype(np.int32),
        starts=starts,
        sizes=sizes,
        bounds=bounds.copy(),
        stamps=np.full(len(bounds), -1, np.int32),
        groups=groups,
        allowed=np.ones(num_groups, np.bool_),
    )


@numba.njit(cache=True, nogil=True)
def _is_before(bounds: np.ndarray, row: int, other: int) -> bool:
    return bool(bounds[row] > bounds[other] or (bounds[row] == bounds[other] and row < other))


@numba.njit(cache=True, nogil=True)
def sink_top(heaps: Heaps, group: int) -> None:
    """Restore the order after the key of a group's top fell."""
    start = heaps.starts[group]
    size = heaps.sizes[group]
    parent = 0
    row = heaps.rows[start]
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        if child + 1 < size and _is_before(heaps.bounds, heaps.rows[start + child + 1], heaps.rows[start + child]):
            child += 1
        if not _is_before(heaps.bounds, heaps.rows[start + child], row):
            break
        heaps.rows[start + parent] = heaps.rows[start + child]
        parent = child
    heaps.rows[start + parent] = row


@numba.njit(cache=True, nogil=True)
def drop_top(heaps: Heaps, group: int) -> None:
    """Remove a group's top."""
    start = heaps.starts[group]
    heaps.sizes[group] -= 1
    heaps.rows[start] = heaps.rows[start + heaps.sizes[group]]
    sink_top(heaps, group)


@numba.njit(cache=True, nogil=True)
def best_group(heaps: Heaps, limits: Limits, state: State) -> int:
    """The group whose top comes first among those that quotas allow, or DONE where no candidate is left.

    Where quotas leave no candidate at all, they are given up from this rank on.
    """
    if heaps.sizes.shape[0] == 1 and not limits.is_limited:
        return 0 if heaps.sizes[0] > 0 else DONE
    while True:
        if state.cursor[1] <= state.cursor[0]:
            heaps.allowed[:] = True
        else:
            mark_allowed(limits, state.cursor[0], heaps.allowed)
        found = DONE
        for group in range(heaps.sizes.shape[0]):
            if heaps.sizes[group] == 0 or not heaps.allowed[group]:
                continue
            row = heaps.rows[heaps.starts[group]]
            if found == DONE or _is_before(heaps.bounds, row, heaps.rows[heaps.starts[found]]):
                found = group
        if found != DONE or state.cursor[1] <= state.cursor[0]:
            return found
        state.cursor[1] = state.cursor[0]


@numba.njit(cache=True, nogil=True)
def note_pick(state: State, limits: Limits, group: int, row: int, gain: int, key: int) -> None:
    """Record a pick; the caller updates what it covers."""
    rank = state.cursor[0]
    state.order[rank] = row
    state.gains[rank] = gain
    state.keys[rank] = key
    state.earlier[rank] = state.nearest[row]
    state.is_taken[row] = True
    state.cursor[0] = rank + 1
    limits.counts[group] += 1


@numba.njit(cache=True, nogil=True)
def cover(state: State, column: np.ndarray, row: int, rank: int) -> None:
    """Let the pick `row` cover every row by its kernel values `column` (N,)."""
    stands_for = 0
    for other in range(column.shape[0]):
        if column[other] > state.best[other]:
            state.best[other] = column[other]
            state.nearest[other] = row
            stands_for += 1
    state.stands_for[rank] = stands_for


@numba.njit(cache=True, nogil=True)
def gain_of(column: np.ndarray, best: np.ndarray, weights: np.ndarray) -> int:
    """Weighted kernel that a candidate would add: an exact integer."""
    gain = np.int64(0)
    for row in range(column.shape[0]):
        more = np.int64(column[row]) - np.int64(best[row])
        gain += (more if more > 0 else 0) * np.int64(weights[row])  # noqa: FURB136, a plain choice becomes one vector step
    return int(gain)


@numba.njit(cache=True, nogil=True)
def gains_of(columns: np.ndarray, best: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """`gain_of` for several candidates."""
    for index in range(out.shape[0]):
        out[index] = gain_of(columns[index], best, weights)


@numba.njit(cache=True, nogil=True)
def uncounted(tail: Tail, rank: int, best: int, weight: int) -> int:
    """What does not count at a rank of the gain of a row that is covered to `best`."""
    own = ONE - best
    at_least = (min(own, tail.apart) + 15) >> 4
    lowered = min(tail.most, 2 * tail.most * (rank + tail.given) // max(1, tail.rows - rank))
    return min(own - at_least, lowered) * weight


@numba.njit(cache=True, nogil=True)
def counted(tail: Tail, state: State, weights: np.ndarray, own: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """What counts of candidates' gains at this state, (C,) int64; each candidate is row `own` (C,), -1 for none."""
    keys = gains.copy()
    for index in range(keys.shape[0]):
        row = own[index]
        if row >= 0:
            keys[index] -= uncounted(tail, state.cursor[0], state.best[row], weights[row])
    return keys


@numba.njit(cache=True, nogil=True)
def pick_dense(
    state: State,
    heaps: Heaps,
    limits: Limits,
    weights: np.ndarray,
    columns: np.ndarray,
    own: np.ndarray,
    tail: Tail,
    until: int,
) -> None:
    """Exact lazy greedy, until there are `until` picks or no candidate is left.

    What counts of a gain only falls as picks are made, so the best candidate whose key is fresh beats all stale bounds
    below it. `columns` (C, N) int16 holds each candidate's kernel column, `own` (C,) its own place there, -1 for none.
    """
    while state.cursor[0] < until:
        group = best_group(heaps, limits, state)
        if group == DONE:
            return
        row = heaps.rows[heaps.starts[group]]
        less = 0 if own[row] < 0 else uncounted(tail, state.cursor[0], state.best[own[row]], weights[own[row]])
        if heaps.stamps[row] != state.cursor[0]:
            heaps.bounds[row] = gain_of(columns[row], state.best, weights) - less
            heaps.stamps[row] = state.cursor[0]
            sink_top(heaps, group)
            continue
        drop_top(heaps, group)
        note_pick(state, limits, group, row, heaps.bounds[row] + less, heaps.bounds[row])
        cover(state, columns[row], row, state.cursor[0] - 1)
