"""Greedy picking on the neighbour graph: each pick updates the gains exactly, so a whole pool is ordered in seconds.

A pick can only cover the rows that list it among their neighbours. After a head that was picked with every pair this
loses next to nothing, since the picks are then closer together than the neighbours reach.
"""

import numba
import numpy as np

from wtl_core.selection.greedy import DONE, Heaps, State, Tail, best_group, drop_top, note_pick, sink_top, uncounted
from wtl_core.selection.quotas import Limits


@numba.njit(cache=True, nogil=True)
def transpose(rows: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Who lists each row: `starts` (N + 1,) int64, then by start the listing rows, ascending, and their values."""
    count, width = rows.shape
    starts = np.zeros(count + 1, np.int64)
    for row in range(count):
        for place in range(width):
            if rows[row, place] >= 0:
                starts[rows[row, place] + 1] += 1
    for row in range(count):
        starts[row + 1] += starts[row]
    fill = starts[:-1].copy()
    listing = np.empty(starts[count], np.int32)
    listed = np.empty(starts[count], values.dtype)
    for row in range(count):
        for place in range(width):
            other = rows[row, place]
            if other >= 0:
                listing[fill[other]] = row
                listed[fill[other]] = values[row, place]
                fill[other] += 1
    return starts, listing, listed


@numba.njit(cache=True, nogil=True)
def graph_gains(rows: np.ndarray, values: np.ndarray, best: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Every row's gain by the graph, (N,) int64."""
    count, width = rows.shape
    gains = np.zeros(count, np.int64)
    for row in range(count):
        floor = np.int64(best[row])
        for place in range(width):
            value = np.int64(values[row, place])
            if value <= floor or rows[row, place] < 0:
                break
            gains[rows[row, place]] += (value - floor) * np.int64(weights[row])
    return gains


@numba.njit(cache=True, nogil=True)
def pick_on_graph(
    state: State,
    heaps: Heaps,
    limits: Limits,
    weights: np.ndarray,
    gains: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    listing: np.ndarray,
    listed: np.ndarray,
    tail: Tail,
    until: int,
) -> None:
    """Pick until there are `until` picks. `gains` must be exact, and stay so; each row's `values` fall."""
    width = rows.shape[1]
    while state.cursor[0] < until:
        group = best_group(heaps, limits, state)
        if group == DONE:
            return
        row = heaps.rows[heaps.starts[group]]
        key = gains[row] - uncounted(tail, state.cursor[0], state.best[row], weights[row])
        if key < heaps.bounds[row]:
            heaps.bounds[row] = key
            sink_top(heaps, group)
            continue
        drop_top(heaps, group)
        note_pick(state, limits, group, row, gains[row], key)
        stands_for = 0
        for edge in range(starts[row], starts[row + 1]):
            reference = listing[edge]
            value = np.int64(listed[edge])
            floor = np.int64(state.best[reference])
            if value <= floor:
                continue
            weight = np.int64(weights[reference])
            for place in range(width):
                other = np.int64(values[reference, place])
                if other <= floor or rows[reference, place] < 0:
                    break
                gains[rows[reference, place]] -= (min(other, value) - floor) * weight
            state.best[reference] = value
            state.nearest[reference] = row
            stands_for += 1
        state.stands_for[state.cursor[0] - 1] = stands_for
