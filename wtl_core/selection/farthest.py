"""k-center: exact farthest-first picking, many picks to a matrix product. For comparison, and to find outliers.

Distances to the picks are kept for all rows from bfloat16 products, within a known rounding. The few hundred rows that
are farthest by these are compared exactly, in float32, with the picks that could be their nearest and with each other.
Farthest-first runs among them for as long as the next pick is provably farther than anything outside; then one
product brings all rows up to date.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

from wtl_core.neighbours import Points

CANDIDATES = 768
_PICKS = 128  # picks are padded to a multiple, so that products have few shapes
_ROWS = 4096
_ROUNDING = 2.0**-8  # relative, the most that rounding to bfloat16 can take from h
FAR = np.int16(16384)  # the bits of 2.0, the largest h between unit vectors


def farthest_first(
    points: Points, count: int, *, given: np.ndarray, bits: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows in farthest-first order and each one's distance to the rows and images before it.

    Args:
        points: the pool.
        count: rows to order.
        given: rows that come first, in this order.
        bits: (N,) int16, each row's h to the nearest image outside the pool (2.0 where there is none); changed.
        first: the row to begin with where nothing is given or outside.

    Returns:
        (count,) int64 rows and (count,) float64 distances, 2 for a first row; ties go to the lower row.

    Cost: 2 count N (D + 6) FLOP.
    """
    order = np.empty(count, np.int64)
    distances = np.empty(count)
    is_taken = np.zeros(points.count, np.bool_)
    floor = bits.astype(np.int16).copy()
    start = np.asarray(given if len(given) or (bits < FAR).any() else [first], np.int64)[:count]
    order[: len(start)], is_taken[start] = start, True
    distances[: len(start)] = 2.0
    _lower_bits(points, start, bits)
    done = len(start)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        while done < count:
            rows, outside = _candidates(bits, is_taken)
            exact = _exact_to_picks(points, rows, order[:done], floor)
            picked, values = _pick_among(exact, _exact_among(points, rows), outside, count - done)
            new = rows[picked]
            order[done : done + len(new)], distances[done : done + len(new)] = new, np.sqrt(2.0 * values)
            is_taken[new] = True
            _lower_bits(points, new, bits, threads.map)
            done += len(new)
    return order, distances


def _candidates(bits: np.ndarray, is_taken: np.ndarray) -> tuple[np.ndarray, float]:
    """The rows that are farthest by rounded distances, ascending, and the largest h that any other row can have."""
    keys = np.where(is_taken, np.int16(-32768), bits)
    free = len(keys) - int(is_taken.sum())
    if free <= CANDIDATES:
        return np.flatnonzero(~is_taken), -1.0
    edge = np.partition(keys, len(keys) - CANDIDATES)[len(keys) - CANDIDATES]
    above = np.flatnonzero(keys > edge)
    level = np.flatnonzero(keys == edge)[: CANDIDATES - len(above)]
    return np.sort(np.concatenate([above, level])), _upper(int(edge))


def _upper(bits: int) -> float:
    """The largest h that rounds to these bits."""
    value = np.array([max(bits, 0)], np.uint32) << 16
    return float(value.view(np.float32)[0]) * (1.0 + _ROUNDING) + 1e-6


def _halves(points: Points, rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors in float32 and half their squared norms, of the given rows."""
    right = points.right[torch.from_numpy(rows).to(points.right.device)].float()
    middle = points.dimensions + 3
    return right[:, : points.dimensions], right[:, middle : middle + 3].sum(1)


def _exact_among(points: Points, rows: np.ndarray) -> np.ndarray:
    """H between all candidates, (n, n) float32."""
    vectors, halves = _halves(points, _padded(rows, CANDIDATES))
    h = halves[:, None] + halves[None, :] - vectors @ vectors.T
    return np.asarray(h[: len(rows), : len(rows)].cpu().numpy())


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Rows repeated to a whole multiple of `size`."""
    return np.resize(rows, -(-len(rows) // size) * size)


def _exact_to_picks(points: Points, rows: np.ndarray, picks: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Each candidate's h to its nearest pick, (n,) float32; `floor` bounds it where images outside the pool do."""
    exact = (np.maximum(floor[rows], 0).astype(np.uint32) << 16).view(np.float32).copy()
    left = points.left_of(_padded(rows, CANDIDATES))
    vectors, halves = (part.cpu().numpy() for part in _halves(points, rows))
    for start in range(0, len(picks), _ROWS):
        some = picks[start : start + _ROWS]
        right = points.right[torch.from_numpy(_padded(some, _PICKS)).to(points.right.device)]
        near = points.product_with(left, right)[: len(rows), : len(some)].cpu().numpy()
        pairs = _close_pairs(near)
        if len(pairs):
            others, other_halves = (part.cpu().numpy() for part in _halves(points, some[pairs[:, 1]]))
            own = pairs[:, 0]
            h = halves[own] + other_halves - np.einsum("nd,nd->n", vectors[own], others, dtype=np.float32)
            np.minimum.at(exact, own, h)
    return np.asarray(np.maximum(exact, 0.0))


@numba.njit(cache=True, nogil=True)
def _close_pairs(near: np.ndarray) -> np.ndarray:
    """Pairs (candidate, pick) that may be a candidate's nearest so far: within two roundings of its least bits."""
    pairs = np.empty((near.size, 2), np.int64)
    found = 0
    for row in range(near.shape[0]):
        least = near[row, 0]
        for column in range(near.shape[1]):
            least = min(least, near[row, column])
        for column in range(near.shape[1]):
            if near[row, column] <= least + 2:
                pairs[found, 0], pairs[found, 1] = row, column
                found += 1
    return pairs[:found].copy()


@numba.njit(cache=True, nogil=True)
def _pick_among(exact: np.ndarray, among: np.ndarray, outside: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Farthest-first among candidates until a row outside could be farther; at least one pick."""
    picked = np.empty(min(most, exact.shape[0]), np.int64)
    values = np.empty(picked.shape[0])
    exact = exact.copy()
    found = 0
    while found < picked.shape[0]:
        best = 0
        for row in range(1, exact.shape[0]):
            if exact[row] > exact[best]:
                best = row
        if exact[best] < 0 or (found > 0 and exact[best] <= outside):
            break
        picked[found], values[found] = best, exact[best]
        found += 1
        for row in range(exact.shape[0]):
            exact[row] = min(exact[row], max(among[best, row], 0.0)) if exact[row] >= 0 else exact[row]
        exact[best] = -1.0
    return picked[:found], values[:found]


def _lower_bits(points: Points, picks: np.ndarray, bits: np.ndarray, run: Callable[..., Iterable[None]] = map) -> None:
    """Bring every row's bits down to its nearest pick's."""
    if len(picks) == 0:
        return
    right = points.right[torch.from_numpy(_padded(picks, _PICKS)).to(points.right.device)]
    if points.right.is_cuda:
        least = torch.cat(
            [
                points.product_with(points.left_slice(start, start + _ROWS * 8), right).amin(1)
                for start in range(0, points.right.shape[0], _ROWS * 8)
            ]
        )
        np.minimum(bits, least[: points.count].cpu().numpy(), out=bits)
        return
    for start in range(0, points.count, _ROWS):
        product = points.product_with(points.left_slice(start, start + _ROWS), right).numpy()
        target = bits[start : start + _ROWS]
        parts = [slice(at, at + 1024) for at in range(0, len(target), 1024)]
        list(run(_row_minimum, [product[part] for part in parts], [target[part] for part in parts]))


@numba.njit(cache=True, nogil=True)
def _row_minimum(product: np.ndarray, bits: np.ndarray) -> None:
    for row in range(bits.shape[0]):
        least = bits[row]
        line = product[row]
        for column in range(line.shape[0]):
            least = min(least, line[column])
        bits[row] = least
