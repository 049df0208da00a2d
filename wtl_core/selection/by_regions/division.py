"""A pool divided into regions of like samples, each small enough to be ranked by itself. No picking here.

k-means on a sample gives cells, some sixteen for each region, and regions are made of neighbouring cells: all cells are
cut in two at their middle, and the halves again, until each is small enough. A cell that is larger than a region by
itself, as one of a million all but equal images is, is dealt out to several by a hash of the vectors.

A sample near a border is a guest on the other side too: it is ranked there as well, so that both sides know what the
other one covers and picks there, and only its own region's word on it counts. Without guests both sides pick at the
border: on 20,000 of CIFAR-10's vectors in ten regions that cost 0.7 % of the coverage at 20 % of the pool, with them
0.1 %. Everything follows from content: not from the rows' order, nor from how they come in blocks.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
import torch

from wtl_core.selection.kmeans_cells import train_cells
from wtl_core.selection.neighbours import Points, prepare
from wtl_core.selection.sorted_rows import hash_rows

BLOCK = 4096
"""Rows in one product with the centroids, whose shape is fixed."""
MOST_GUESTS = 3
"""Regions that one sample is a guest of."""
_CELLS_EACH = 16  # cells of a region: borders of cells are where regions can be cut
_GUESTS = 0.5
"""Guests for each sample, on average. One or two for each were no better beyond 10 % of CIFAR-10, and cost as much."""
_ROUNDS = 10  # of k-means with two centres, when cells are cut in two


@dataclass(frozen=True)
class Division:
    """Which region a vector is of.

    Attributes:
        centroids: (C, D) float32, of the cells.
        first_region: (C,) int32, the region of each cell, or the first of several.
        shares: (C,) int32, to how many regions a cell's samples are dealt out; 1 but for a cell that is too large.
        between: (C, C) float32, distances between centroids.
        reach: How far from a border a sample is a guest on the other side, as a distance.
        count: Regions.
    """

    centroids: np.ndarray
    first_region: np.ndarray
    shares: np.ndarray
    between: np.ndarray
    reach: float
    count: int

    def places(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each vector's region, (n,) int32, and those that it is a guest of, (n, MOST_GUESTS) int32, else -1."""
        regions, guests, _ = self._places(vectors, self.reach)
        return regions, guests

    def _places(self, vectors: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`places`, and how far each is from the borders, (n, MOST_GUESTS) float32."""
        right = prepare(self.centroids, whole=256)
        hashes = hash_rows(np.ascontiguousarray(vectors).view(np.uint16))
        regions = np.empty(len(vectors), np.int32)
        guests = np.full((len(vectors), MOST_GUESTS), -1, np.int32)
        margins = np.full((len(vectors), MOST_GUESTS), np.inf, np.float32)
        halves = (np.arange(1 << 16, dtype=np.uint32) << 16).view(np.float32)  # h = d^2 / 2 of each value of its bits

        def place(start: int) -> None:
            part = slice(start, min(start + BLOCK, len(vectors)))
            left = prepare(vectors[part], whole=BLOCK)
            bits = left.product_with(left.left_slice(0, BLOCK), right.right).numpy().view(np.uint16)
            _place(
                bits, halves, self.first_region, self.shares, self.between, hashes[part], reach, self.count,
                regions[part], guests[part], margins[part],
            )  # fmt: skip

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            list(threads.map(place, range(0, len(vectors), BLOCK)))
        return regions, guests, margins


def divide(
    sample: Points, vectors: np.ndarray, keys: np.ndarray, *, rows: int, size: int, most_reach: float
) -> Division:
    """Divide a pool into regions of about half of `size` to `size` samples each.

    Args:
        sample: S samples of the pool, drawn by content.
        vectors: (S, D), theirs.
        keys: (S,) uint64, their content keys.
        rows: Samples of the pool.
        size: Samples of a region at most, as far as the sample tells; beside its own a region ranks half as many
            guests on average.
        most_reach: No sample farther from a border than this is a guest.
    """
    wanted = max(1, -(-rows // size)) * _CELLS_EACH
    centroids = train_cells(sample, keys, min(wanted, max(1, sample.count // 2)))
    count = len(centroids)
    wide = centroids.astype(np.float64)
    between = np.sqrt(np.stack([np.square(wide - row).sum(1) for row in wide])).astype(np.float32)
    alone = Division(centroids, np.arange(count, dtype=np.int32), np.ones(count, np.int32), between, 0.0, count)
    sizes = np.bincount(alone.places(vectors)[0], minlength=count) * (rows / len(vectors))
    shares = np.maximum(1, np.ceil(sizes / size)).astype(np.int32)
    first = np.empty(count, np.int32)
    regions = 0
    for cells in _bisect(wide, sizes, np.arange(count), size):
        first[cells] = regions
        regions += int(shares[cells].max())
    division = Division(centroids, first, shares, between, 0.0, regions)
    margins = division._places(vectors, most_reach)[2].ravel()
    wanted_guests = int(_GUESTS * len(vectors))
    reach = np.partition(margins, wanted_guests)[wanted_guests]
    return Division(centroids, first, shares, between, float(min(reach, most_reach)), regions)


def _bisect(centroids: np.ndarray, sizes: np.ndarray, cells: np.ndarray, size: int) -> list[np.ndarray]:
    """Cells in sets of at most `size` samples, or of one cell."""
    if len(cells) == 1 or sizes[cells].sum() <= size:
        return [cells]
    along = _along(centroids[cells], sizes[cells])
    order = cells[np.lexsort((cells, along))]
    running = np.cumsum(sizes[order])
    cut = int(np.clip(np.searchsorted(running, running[-1] / 2) + 1, 1, len(order) - 1))
    return [
        *_bisect(centroids, sizes, np.sort(order[:cut]), size),
        *_bisect(centroids, sizes, np.sort(order[cut:]), size),
    ]


def _along(centroids: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Where each of some cells lies on the line through the two centres of their k-means, (n,) float64.

    By numpy's own sums, which depend neither on threads nor on a library for products.
    """
    weights = np.maximum(sizes, 1e-9)[:, None]
    mean = (centroids * weights).sum(0) / weights.sum()
    one = centroids[np.square(centroids - mean).sum(1).argmax()]
    other = centroids[np.square(centroids - one).sum(1).argmax()]
    for _ in range(_ROUNDS):
        is_one = np.square(centroids - one).sum(1) <= np.square(centroids - other).sum(1)
        if is_one.all() or not is_one.any():
            break
        one = (centroids * weights)[is_one].sum(0) / weights[is_one].sum()
        other = (centroids * weights)[~is_one].sum(0) / weights[~is_one].sum()
    return np.asarray((centroids * (other - one)).sum(1))


@numba.njit(cache=True, nogil=True)
def _place(
    bits: np.ndarray, halves: np.ndarray, first_region: np.ndarray, shares: np.ndarray, between: np.ndarray,
    hashes: np.ndarray, reach: float, count: int, regions: np.ndarray, guests: np.ndarray, margins: np.ndarray,
) -> None:  # fmt: skip
    """Regions by the nearest cell, the first on a tie; guests by how far the border with another region's cell is."""
    cells = first_region.shape[0]
    nearest = np.empty(count, np.int64)
    for row in range(regions.shape[0]):
        nearest[:] = -1
        best = 0
        for cell in range(cells):
            half = halves[bits[row, cell]]
            if half < halves[bits[row, best]]:
                best = cell
            region = first_region[cell]
            if nearest[region] < 0 or half < halves[bits[row, nearest[region]]]:
                nearest[region] = cell
        own = first_region[best]
        regions[row] = own + np.int32(hashes[row] % np.uint64(shares[best]))
        for region in range(count):
            cell = nearest[region]
            if cell < 0 or region == own:
                continue
            margin = (halves[bits[row, cell]] - halves[bits[row, best]]) / max(between[best, cell], np.float32(1e-6))
            if margin > reach or margin >= margins[row, -1]:
                continue
            place = margins.shape[1] - 1
            while place > 0 and margins[row, place - 1] > margin:
                margins[row, place] = margins[row, place - 1]
                guests[row, place] = guests[row, place - 1]
                place -= 1
            margins[row, place] = margin
            guests[row, place] = region + np.int32(hashes[row] % np.uint64(shares[cell]))
