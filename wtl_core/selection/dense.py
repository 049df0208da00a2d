"""Greedy picking with every pair, on the processor: the whole kernel matrix of a small pool, a cache of columns else.

A large pool's head needs the columns of few candidates: those whose bound ever comes first. They are made 64 at a time
by one product, kept, and re-evaluated without a further product.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from wtl_core.neighbours import BLOCK_COLUMNS, BLOCK_ROWS, Points
from wtl_core.selection.greedy import DONE, Heaps, State, cover, gain_of, gains_of, pick_dense
from wtl_core.selection.kernels import to_kernel
from wtl_core.selection.quotas import Limits

_CACHE_COLUMNS = 2048
_FETCH = 64


def kernel_rows(points: Points, left: torch.Tensor, table: np.ndarray, out: np.ndarray) -> None:
    """Kernel values of left rows against all points, into (rows, N) int16; rows in blocks of one fixed size."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, len(left), _FETCH):
            part = left[start : start + _FETCH]
            wanted = len(part)
            if wanted < _FETCH:
                part = torch.cat([part, part.new_zeros((_FETCH - wanted, part.shape[1]))])
            for column in range(0, points.right.shape[0], BLOCK_COLUMNS):
                bits = points.product(part, column, column + BLOCK_COLUMNS).cpu().numpy()
                columns = min(BLOCK_COLUMNS, points.count - column)
                target = out[start : start + wanted, column : column + columns]
                jobs = [
                    threads.submit(to_kernel, bits[row:wanted], table, columns, target[row : row + 16])
                    for row in range(0, wanted, 16)
                ]
                for job in jobs:
                    job.result()


def cover_by(points: Points, others: Points, table: np.ndarray, state: State, *, marks: np.ndarray) -> None:
    """Let images outside the pool cover it, one after the other; `marks` (len,) enters `nearest` for each."""
    out = np.empty((min(BLOCK_ROWS, others.count), points.count), np.int16)
    for start in range(0, others.count, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, others.count)
        kernel_rows(points, others.left_slice(start, stop), table, out)
        for index in range(stop - start):
            cover(state, out[index], marks[start + index], 0)


def force(
    points: Points,
    table: np.ndarray,
    weights: np.ndarray,
    state: State,
    limits: Limits,
    frozen: np.ndarray,
    groups: np.ndarray,
) -> None:
    """Pick given rows in the given order, whatever their gains."""
    out = np.empty((min(BLOCK_ROWS, max(1, len(frozen))), points.count), np.int16)
    for start in range(0, len(frozen), BLOCK_ROWS):
        rows = frozen[start : start + BLOCK_ROWS]
        kernel_rows(points, points.left(torch.from_numpy(rows).to(points.right.device)), table, out)
        for index, row in enumerate(rows):
            gain = gain_of(out[index], state.best, weights)
            enter(state, limits, int(groups[row]), int(row), int(gain))
            cover(state, out[index], row, state.picked - 1)


def enter(state: State, limits: Limits, group: int, row: int, gain: int) -> None:
    """`note_pick` for callers outside compiled code."""
    rank = state.picked
    state.order[rank], state.gains[rank], state.earlier[rank] = row, gain, state.nearest[row]
    state.is_taken[row] = True
    state.cursor[0] = rank + 1
    limits.counts[group] += 1


class ColumnCache:
    """Kernel columns of the candidates that came first at some time, at most `_CACHE_COLUMNS` of them."""

    def __init__(self, points: Points, table: np.ndarray) -> None:
        size = min(points.count, _CACHE_COLUMNS)
        self.points, self.table = points, table
        self.columns = np.empty((size, points.count), np.int16)
        self.slots = np.full(points.count, -1, np.int32)
        self.rows = np.full(size, -1, np.int64)

    def fetch(self, row: int, heaps: Heaps, state: State) -> None:
        """Make the columns of `row` and of the next best candidates that are not here."""
        wanted = _next_best(heaps.bounds, state.is_taken | (self.slots >= 0), row, min(_FETCH, len(self.rows)))
        slots = self._free_slots(len(wanted), heaps, state)
        made = np.empty((len(wanted), self.points.count), np.int16)
        device_rows = torch.from_numpy(wanted).to(self.points.right.device)
        kernel_rows(self.points, self.points.left(device_rows), self.table, made)
        self.columns[slots] = made
        self.slots[wanted] = slots
        self.rows[slots] = wanted

    def _free_slots(self, wanted: int, heaps: Heaps, state: State) -> np.ndarray:
        """Slots that are empty, hold a pick, or hold the least promising candidates, in this order."""
        held = self.rows >= 0
        worth = np.where(held, heaps.bounds[self.rows], -2)
        worth[held & state.is_taken[self.rows]] = -1
        slots = np.argsort(worth, kind="stable")[:wanted]
        leaving = self.rows[slots]
        self.slots[leaving[leaving >= 0]] = -1
        return np.asarray(slots)


def _next_best(bounds: np.ndarray, is_out: np.ndarray, row: int, wanted: int) -> np.ndarray:
    """`row` and the rows with the largest bounds that are not out, at most `wanted`, (n,) int64."""
    keys = np.where(is_out, -1, bounds)
    keys[row] = np.iinfo(np.int64).max
    if wanted < len(keys):
        candidates = np.argpartition(-keys, wanted - 1)[:wanted]
    else:
        candidates = np.arange(len(keys))
    return np.sort(candidates[keys[candidates] >= 0])


def pick_with_cache(
    cache: ColumnCache, state: State, heaps: Heaps, limits: Limits, weights: np.ndarray, until: int
) -> None:
    """Pick exactly until `until` picks stand, making columns as they are wanted."""
    while True:
        row = pick_dense(state, heaps, limits, weights, cache.columns, cache.slots, until)
        if row == DONE:
            return
        cache.fetch(int(row), heaps, state)


def kernel_matrix(points: Points, table: np.ndarray) -> np.ndarray:
    """Kernel values of all pairs, (N, N) int16. Cost: 2 N^2 bytes."""
    matrix = np.empty((points.count, points.count), np.int16)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, points.count, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, points.count - start)
            left = points.left_slice(start, start + BLOCK_ROWS)
            for column in range(0, points.right.shape[0], BLOCK_COLUMNS):
                bits = points.product(left, column, column + BLOCK_COLUMNS).cpu().numpy()
                columns = min(BLOCK_COLUMNS, points.count - column)
                target = matrix[start : start + rows, column : column + columns]
                jobs = [
                    threads.submit(to_kernel, bits[row:rows], table, columns, target[row : row + 64])
                    for row in range(0, rows, 64)
                ]
                for job in jobs:
                    job.result()
    return matrix


def all_gains(matrix: np.ndarray, best: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Every row's gain at this state, (N,) int64."""
    gains = np.empty(len(matrix), np.int64)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        parts = [slice(start, start + 256) for start in range(0, len(matrix), 256)]
        jobs = [threads.submit(gains_of, matrix[part], best, weights, gains[part]) for part in parts]
        for job in jobs:
            job.result()
    return gains
