"""Which rows are connected by chains of near pairs, by comparing vectors, and by values that rows have in common.

Legend: `N` rows, `M` of them new, `D` dimensions. The new rows come first. The others have a side already: they connect
no new rows with each other, and what they are to each other is not asked. In very large pools only rows of near k-means
cells are compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np

from wtl_core.machine import Progress
from wtl_core.pool.near_duplicates import join
from wtl_core.selection.kmeans_cells import near_cells, products
from wtl_core.selection.neighbours import BLOCK_COLUMNS, BLOCK_ROWS, FIRST_BITS, Points, level_of

_CELLS_FROM = 250_000 * 250_000
"""Pairs from which on only near cells are compared: as many as a ranking compares at most."""
_PROBES = 16  # nearest cells that a cell is held against, as in a ranking


@dataclass(frozen=True)
class Forest:
    """Components of M new rows, and which sides they touch. Changed in place.

    Attributes:
        parents: (M,) int64, a lower row of the same component, or the row itself.
        touched: (M,) uint8, bit s is set where a row with the side s is connected with this row directly.
    """

    parents: np.ndarray
    touched: np.ndarray

    def components(self) -> tuple[np.ndarray, np.ndarray]:
        """Each row's component from 0, by its lowest row, (M,) int64; and the sides that each touches, (C,) uint8."""
        roots = self.parents
        while not np.array_equal(roots, above := roots[roots]):
            roots = above
        _, codes = np.unique(roots, return_inverse=True)
        touched = np.zeros(int(codes.max(initial=-1)) + 1, np.uint8)
        np.bitwise_or.at(touched, codes, self.touched)
        return codes.astype(np.int64), touched


def new_forest(count: int) -> Forest:
    """`count` rows, each a component of its own that touches nothing."""
    return Forest(np.arange(count), np.zeros(count, np.uint8))


def connect_equal(forest: Forest, values: np.ndarray, sides: np.ndarray) -> None:
    """Connect rows of equal value.

    Args:
        forest: Of M new rows.
        values: (N,) int64 codes, -1 for a row without a value.
        sides: (N - M,) int8, the side of each other row, from 0.
    """
    count = len(forest.parents)
    own, others = values[:count], values[count:]
    _, first, codes = np.unique(own, return_index=True, return_inverse=True)
    has_value = np.flatnonzero(own >= 0)
    _unite(forest.parents, has_value, first[codes[has_value]])
    touched = np.zeros(int(values.max(initial=-1)) + 1, np.uint8)
    known = others >= 0
    np.bitwise_or.at(touched, others[known], np.left_shift(1, sides[known]).astype(np.uint8))
    forest.touched[has_value] |= touched[own[has_value]]


def connect_near(
    forest: Forest,
    points: Points,
    sides: np.ndarray,
    *,
    distance: float,
    keys: np.ndarray,
    apart: np.ndarray | None = None,
    on_progress: Progress | None = None,
) -> tuple[int, int]:
    """Connect rows whose vectors are at most `distance` apart.

    Args:
        forest: Of M new rows.
        points: N rows.
        sides: (N - M,) int8, the side of each other row, from 0.
        distance: Between unit vectors, as `neighbours` rounds them.
        keys: (N,) uint64 content keys of the rows.
        apart: (N,) int8, some division of the rows.
        on_progress: Called with how many new rows of how many are compared.

    Returns:
        How many near pairs with a new row there are, and how many of them `apart` divides.

    Cost: M N (D + 6) FLOP; for more than 6e10 pairs that of some twenty cells of 1,000 for each row of a million.
    """
    limit, counts = level_of(distance) + FIRST_BITS - 1, np.zeros(2, np.int64)
    divided = np.zeros(points.count, np.int8) if apart is None else apart
    count, done = len(forest.parents), 0
    for bits, rows, others in _blocks(points, keys, count):
        _connect(bits, rows, others, limit, forest.parents, sides, forest.touched, divided, counts)
        if on_progress is not None and len(others) and rows[-1] + 1 != done:
            done = int(rows[-1]) + 1
            on_progress(done, count)
    return int(counts[0]), int(counts[1])


def _blocks(points: Points, keys: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Bits of h of all pairs of a new row and a later one, or of those in near cells, with their rows."""
    if count * points.count <= _CELLS_FROM:
        for start in range(0, count, BLOCK_ROWS):
            left, rows = points.left_slice(start, start + BLOCK_ROWS), np.arange(start, min(start + BLOCK_ROWS, count))
            for column in range(start // BLOCK_COLUMNS * BLOCK_COLUMNS, points.count, BLOCK_COLUMNS):
                others = np.arange(column, min(column + BLOCK_COLUMNS, points.count))
                yield points.product(left, column, column + BLOCK_COLUMNS).cpu().numpy(), rows, others
        return
    for own, others in near_cells(points, keys, cells=int(points.count**0.5), probes=_PROBES, is_mutual=True):
        if len(mine := own[own < count]):
            yield from products(points, mine, others)


@numba.njit(cache=True, nogil=True)
def _connect(
    bits: np.ndarray, rows: np.ndarray, others: np.ndarray, limit: int, parents: np.ndarray, sides: np.ndarray,
    touched: np.ndarray, apart: np.ndarray, counts: np.ndarray,
) -> None:  # fmt: skip
    """Connect each of `rows` with each later one of `others` whose bits are at most `limit`; most runs have none."""
    count = len(parents)
    for at in range(len(rows)):
        row, line = rows[at], bits[at]
        for run in range(0, len(others), 64):
            smallest = line[run]
            for column in range(run, run + 64):
                smallest = min(smallest, line[column])
            if smallest > limit:
                continue
            for column in range(run, min(run + 64, len(others))):
                other = others[column]
                if line[column] > limit or other <= row:
                    continue
                counts[0] += 1
                counts[1] += apart[row] != apart[other]
                if other >= count:
                    touched[row] |= np.uint8(1) << np.uint8(sides[other - count])
                else:
                    join(parents, row, other)


@numba.njit(cache=True, nogil=True)
def _unite(parents: np.ndarray, rows: np.ndarray, others: np.ndarray) -> None:
    for at in range(len(rows)):
        join(parents, rows[at], others[at])
