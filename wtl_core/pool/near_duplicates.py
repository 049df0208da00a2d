"""Groups of images that look almost alike, from perceptual hashes alone. Uses numpy and numba, no storage.

Two images are near each other if their hashes differ in at most 6 of 64 bits and agree in one of the four quarters of
16 bits, as all pairs do that differ in at most 3 bits. So only hashes that share a quarter are compared. A group is a
set of images that chains of such pairs connect. Images without structure (hash 0) are in no group.
"""

import numpy as np
from numba import njit

MOST_BITS = 6
"""In the tests recompressed and halved copies differ in at most so many bits, other images in more than 8."""
_QUARTERS, _QUARTER_BITS = 4, 16
_WINDOW = 64
"""A hash is compared with at most so many that follow it with the same quarter: bounds the cost of crowded quarters."""


def group(phashes: np.ndarray) -> np.ndarray:
    """Group rows whose hashes are near each other.

    Args:
        phashes: (N,) uint64.

    Returns:
        (N,) int64: the lowest row of the row's group, -1 for a row that is alone.

    Cost: O(N log N + 256 N); 1,000,000 hashes take some 2 s.
    """
    hashes, first, inverse = np.unique(phashes, return_index=True, return_inverse=True)
    parents = np.arange(len(hashes), dtype=np.int64)
    for quarter in range(_QUARTERS):
        bands = ((hashes >> np.uint64(quarter * _QUARTER_BITS)) & np.uint64(0xFFFF)).astype(np.uint16)
        _connect(hashes, bands, np.argsort(bands, kind="stable"), parents)
    roots = _roots(parents)
    lowest = np.full(len(hashes), np.iinfo(np.int64).max)
    np.minimum.at(lowest, roots, first)
    sizes = np.bincount(roots[inverse], minlength=len(hashes))
    groups: np.ndarray = lowest[roots][inverse]
    groups[(sizes[roots][inverse] < 2) | (phashes == 0)] = -1
    return groups


@njit(cache=True, nogil=True)
def join(parents: np.ndarray, row: int, other: int) -> None:
    """Put two rows into one group: `parents` (N,) leads from each row to the smallest of its group."""
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    while parents[other] != other:
        parents[other] = parents[parents[other]]
        other = parents[other]
    parents[max(row, other)] = min(row, other)


@njit(cache=True)
def _connect(hashes: np.ndarray, bands: np.ndarray, order: np.ndarray, parents: np.ndarray) -> None:
    for i in range(len(order)):
        for j in range(i + 1, min(i + 1 + _WINDOW, len(order))):
            a, b = order[i], order[j]
            if bands[a] != bands[b]:
                break
            difference, bits = hashes[a] ^ hashes[b], 0
            while difference and bits <= MOST_BITS:
                difference &= difference - np.uint64(1)
                bits += 1
            if bits > MOST_BITS or hashes[a] == 0 or hashes[b] == 0:
                continue
            join(parents, a, b)


@njit(cache=True)
def _roots(parents: np.ndarray) -> np.ndarray:
    roots = np.empty(len(parents), np.int64)
    for row in range(len(parents)):
        root = row
        while parents[root] != root:
            root = parents[root]
        roots[row] = root
    return roots
