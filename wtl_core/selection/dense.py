"""Kernel values of rows against the whole pool, in blocks of one fixed size; also applies fixed picks."""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from wtl_core.selection.greedy import NO_TAIL, State, Tail, cover, gain_of, gains_of, uncounted
from wtl_core.selection.kernels import count_near, to_kernel
from wtl_core.selection.neighbours import BLOCK_ROWS, Points
from wtl_core.selection.problem import Problem
from wtl_core.selection.quotas import Limits

FETCH_ROWS = 256  # rows of one product: its shape never changes, so that no sum does


Listener = Callable[[np.ndarray, int, int, Executor], None]
"""Called with a block of the bits of distances (rows, columns), its first row and column, and threads to work with."""


def kernel_rows(
    points: Points, left: torch.Tensor, table: np.ndarray, out: np.ndarray, *, on_bits: Listener | None = None
) -> None:
    """Kernel values of left rows against all points, into (rows, N) int16; rows in blocks of one fixed size."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, len(left), FETCH_ROWS):
            part = left[start : start + FETCH_ROWS]
            wanted = len(part)
            if wanted < FETCH_ROWS:
                part = torch.cat([part, part.new_zeros((FETCH_ROWS - wanted, part.shape[1]))])
            for column in range(0, points.count, points.column_step):
                bits = points.product(part, column, column + points.column_step).cpu().numpy()
                columns = min(points.column_step, points.count - column)
                target = out[start : start + wanted, column : column + columns]
                jobs = [
                    threads.submit(to_kernel, bits[row:wanted], table, columns, target[row : row + 64])
                    for row in range(0, wanted, 64)
                ]
                for job in jobs:
                    job.result()
                if on_bits is not None:
                    on_bits(bits[:wanted, :columns], start, column, threads)


def cover_by(
    points: Points,
    others: Points,
    table: np.ndarray,
    state: State,
    *,
    marks: np.ndarray,
    on_bits: Listener | None = None,
) -> None:
    """Let images outside the pool cover its rows, one after the other; `marks` is what `nearest` holds for each."""
    out = np.empty((min(BLOCK_ROWS, others.count), points.count), np.int16)
    for start in range(0, others.count, BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, others.count)
        heard = None if on_bits is None else partial(_shifted, on_bits, start)
        kernel_rows(points, others.left_slice(start, stop), table, out, on_bits=heard)
        for index in range(stop - start):
            cover(state, out[index], marks[start + index], 0)


def _shifted(listener: Listener, by: int, bits: np.ndarray, row: int, column: int, threads: Executor) -> None:
    listener(bits, by + row, column, threads)


def apply_fixed_picks(
    problem: Problem, weights: np.ndarray, state: State, limits: Limits, fixed: np.ndarray, tail: Tail = NO_TAIL
) -> None:
    """Pick the `fixed` rows in their order, whatever they gain; their keys are what counts of that by the tail."""
    points = problem.points
    out = np.empty((min(BLOCK_ROWS, max(1, len(fixed))), points.count), np.int16)
    for start in range(0, len(fixed), BLOCK_ROWS):
        rows = fixed[start : start + BLOCK_ROWS]
        kernel_rows(points, points.left_of(rows), problem.table, out)
        for index, row in enumerate(rows):
            gain = gain_of(out[index], state.best, weights)
            key = gain - uncounted(tail, state.picked, state.best[row], weights[row])
            enter(state, limits, int(problem.groups[row]), int(row), int(gain), int(key))
            cover(state, out[index], row, state.picked - 1)


def enter(state: State, limits: Limits, group: int, row: int, gain: int, key: int) -> None:
    """Record a pick, as `note_pick` does, for callers that are not compiled."""
    rank = state.picked
    state.order[rank], state.earlier[rank] = row, state.nearest[row]
    state.gains[rank], state.keys[rank] = gain, key
    state.is_taken[row] = True
    state.cursor[0] = rank + 1
    limits.counts[group] += 1


def kernel_matrix(
    points: Points, table: np.ndarray, *, near_level: int = -1, near: np.ndarray | None = None
) -> np.ndarray:
    """Kernel values of all pairs, (N, N) int16; adds to `near` (N,) the rows at most `near_level` away.

    Cost: 2 N^2 bytes.
    """
    near = np.zeros(points.count, np.int64) if near is None else near
    matrix = np.empty((points.count, points.count), np.int16)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, points.count, BLOCK_ROWS):
            rows = min(BLOCK_ROWS, points.count - start)
            left = points.left_slice(start, start + BLOCK_ROWS)
            for column in range(0, points.count, points.column_step):
                bits = points.product(left, column, column + points.column_step).cpu().numpy()
                columns = min(points.column_step, points.count - column)
                target = matrix[start : start + rows, column : column + columns]
                jobs = [
                    threads.submit(to_kernel, bits[row:rows], table, columns, target[row : row + 64])
                    for row in range(0, rows, 64)
                ]
                count_near(bits, columns, near_level, near[start : start + rows])
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
