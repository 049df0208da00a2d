"""k-center: exact farthest-first picking, many picks to a matrix product. For comparison, and to find outliers.

Every row's distance to its nearest pick is kept exactly, in float32. A bfloat16 product of rows and new picks is only a
sieve: it names the few pairs that may lower a distance, and these alone are computed. Farthest-first runs among the
rows that are farthest for as long as the next pick is farther than anything outside; then one product brings all rows
up to date.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

from wtl_core.selection.neighbours import Points

CANDIDATES = 1024  # farthest rows among which picks are made before all rows are updated
FAR = np.float32(2.0)  # the largest h between unit vectors
_PICKS = 64  # picks are padded to a multiple, so that products have few shapes
BLOCK_ROWS = 4096  # rows and picks in one product
_ROUNDING = np.float32(1.0 + 2.0**-8)  # more than rounding h to bfloat16 can add


def nearest_outside(points: Points, others: Points) -> np.ndarray:
    """Each row's exact h to the nearest of `others`, (N,) float32."""
    values = np.full(points.count, FAR)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        _lower(points, others, np.arange(others.count), values, threads)
    return values


def farthest_first(
    points: Points, count: int, *, given: np.ndarray, nearest: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in farthest-first order and each one's distance to the rows and images before it.

    Args:
        points: the pool.
        count: rows to order.
        given: rows that come first, in this order.
        nearest: (N,) each row's h to the nearest image outside the pool, `FAR` where there is none.
        first: the row to begin with where nothing is given or outside.

    Returns:
        (count,) int64 rows and (count,) float64 distances, 2 for a first row; ties go to the lower row.

    Cost: 2 count N (D + 6) FLOP in bfloat16, and some tens of exact distances a row.
    """
    order = np.empty(count, np.int64)
    distances = np.empty(count)
    is_taken = np.zeros(points.count, np.bool_)
    values = nearest.astype(np.float32)
    start = np.asarray(given if len(given) or (values < FAR).any() else [first], np.int64)[:count]
    order[: len(start)], is_taken[start] = start, True
    distances[: len(start)] = 2.0
    done = len(start)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        _lower(points, points, start, values, threads)
        while done < count:
            rows, outside = _candidates(values, is_taken)
            picked, found = _pick_among(values[rows], *_among(points, rows), outside, count - done)
            new = rows[picked]
            order[done : done + len(new)], distances[done : done + len(new)] = new, np.sqrt(2.0 * found)
            is_taken[new] = True
            _lower(points, points, new, values, threads)
            done += len(new)
    return order, distances


def _candidates(values: np.ndarray, is_taken: np.ndarray) -> tuple[np.ndarray, float]:
    """The rows that are farthest, ascending, and the largest h of any other row; the lower row on a tie."""
    keys = np.where(is_taken, np.float32(-1.0), values)
    free = len(keys) - int(is_taken.sum())
    if free <= CANDIDATES:
        return np.flatnonzero(~is_taken), -1.0
    edge = np.partition(keys, len(keys) - CANDIDATES)[len(keys) - CANDIDATES]
    above = np.flatnonzero(keys > edge)
    level = np.flatnonzero(keys == edge)[: CANDIDATES - len(above)]
    return np.sort(np.concatenate([above, level])), float(edge)


def _among(points: Points, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The candidates' vectors as bits, and the bits of h between them all."""
    right = points.right[torch.from_numpy(np.resize(rows, CANDIDATES)).to(points.right.device)]
    bits = points.product_with(points.left_of(np.resize(rows, CANDIDATES)), right).cpu().numpy()
    return _vector_bits(points, right[: len(rows)]), bits[: len(rows), : len(rows)]


def _vector_bits(points: Points, right: torch.Tensor) -> np.ndarray:
    return np.asarray(right[:, : points.dimensions].cpu().view(torch.int16).numpy())


@numba.njit(cache=True, nogil=True, inline="always")
def _sieve_bits(value: np.float32) -> np.int32:
    """The largest bits that a product can have for an h that is below `value`."""
    return np.int32(np.float32(value * _ROUNDING + np.float32(2e-6)).view(np.int32) >> 16) + np.int32(1)


@numba.njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _half_square(one: np.ndarray, other: np.ndarray) -> np.float32:
    """Exact h of two vectors given by their bfloat16 bits."""
    total = np.float32(0.0)
    for column in range(one.shape[0]):
        left = np.int32(np.int32(one[column]) << np.int32(16)).view(np.float32)
        right = np.int32(np.int32(other[column]) << np.int32(16)).view(np.float32)
        total += (left - right) * (left - right)
    return total * np.float32(0.5)


@numba.njit(cache=True, nogil=True)
def _pick_among(
    values: np.ndarray, vectors: np.ndarray, bits: np.ndarray, outside: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Farthest-first among candidates until a row outside could be farther; at least one pick."""
    picked = np.empty(min(most, values.shape[0]), np.int64)
    found = np.empty(picked.shape[0])
    values = values.copy()
    size = 0
    while size < picked.shape[0]:
        best = 0
        for row in range(1, values.shape[0]):
            if values[row] > values[best]:
                best = row
        if values[best] < 0 or (size > 0 and values[best] <= outside):
            break
        picked[size], found[size] = best, values[best]
        size += 1
        values[best] = -1.0
        for row in range(values.shape[0]):
            if values[row] >= 0 and bits[best, row] <= _sieve_bits(values[row]):
                values[row] = min(values[row], _half_square(vectors[best], vectors[row]))
    return picked[:size], found[:size]


def _lower(points: Points, others: Points, picks: np.ndarray, values: np.ndarray, threads: ThreadPoolExecutor) -> None:
    """Bring every row's h down to that of the nearest pick, a row of `others`."""
    if points.right.is_cuda:
        for start in range(0, len(picks), BLOCK_ROWS):
            lower_by_floats(points, others, picks[start : start + BLOCK_ROWS], values)
        return
    vectors, other_vectors = _vector_bits(points, points.right), _vector_bits(others, others.right)
    for start in range(0, len(picks), BLOCK_ROWS):
        some = picks[start : start + BLOCK_ROWS]
        left = others.left_of(np.resize(some, -(-len(some) // _PICKS) * _PICKS))
        for begin in range(0, points.count, BLOCK_ROWS):
            block = points.product_with(points.right[begin : begin + BLOCK_ROWS], left).numpy()
            rows = min(BLOCK_ROWS, points.count - begin)
            step = -(-rows // torch.get_num_threads())
            jobs = [
                threads.submit(_lower_rows, block[at : at + step], vectors, other_vectors, some, begin + at, values)
                for at in range(0, rows, step)
            ]
            for job in jobs:
                job.result()


@numba.njit(cache=True, nogil=True)
def _lower_rows(
    bits: np.ndarray, vectors: np.ndarray, others: np.ndarray, picks: np.ndarray, begin: int, values: np.ndarray
) -> None:
    """`values` of the rows from `begin` on; each line of `bits` is a row's product with the picks."""
    last = min(bits.shape[0], values.shape[0] - begin)
    for index in range(last):
        row = begin + index
        line = bits[index]
        limit = _sieve_bits(values[row])
        for run in range(0, line.shape[0], 64):
            smallest = line[run]
            for column in range(run, run + 64):
                smallest = min(smallest, line[column])
            if smallest > limit:
                continue
            for column in range(run, min(run + 64, picks.shape[0])):
                if line[column] <= limit:
                    h = _half_square(vectors[row], others[picks[column]])
                    if h < values[row]:
                        values[row] = h
                        limit = _sieve_bits(h)


def lower_by_floats(points: Points, others: Points, picks: np.ndarray, values: np.ndarray) -> None:
    """The same by float32 products: a card has them to spare, and its answer differs by their rounding alone."""
    left, left_halves = _floats(others, others.right[torch.from_numpy(picks).to(others.right.device)])
    least = []
    for start in range(0, points.count, BLOCK_ROWS * 8):
        right, halves = _floats(points, points.right[start : min(start + BLOCK_ROWS * 8, points.count)])
        least.append((left_halves[None] - right @ left.T).amin(1) + halves)
    np.minimum(values, torch.cat(least).clamp_min(0.0).cpu().numpy(), out=values)


def _floats(points: Points, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors in float32 and half their squared norms."""
    vectors = right[:, : points.dimensions].float()
    middle = points.dimensions + 3
    return vectors, right[:, middle : middle + 3].float().sum(1)
