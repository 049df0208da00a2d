"""k-means cells, and neighbours searched in the nearest cells only, for pools too large to compare all pairs.

Everything follows from content: the rows that cells are trained on are drawn by key, sums run in row order.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
import torch

from wtl_core.machine import Progress
from wtl_core.selection.identity import Purpose, shuffled
from wtl_core.selection.neighbours import Graph, Points, bits_to_level, keep_smallest, new_keys, prepare, split_keys

_PER_CELL = 64  # rows that a centroid is trained on
_ROUNDS = 10  # of k-means
_BLOCK = 4096  # rows in one product with the centroids
_QUERIES = 256  # rows in one product with candidates, whose shape is fixed
_CANDIDATES = 4096


def train_cells(points: Points, keys: np.ndarray, cells: int) -> np.ndarray:
    """Centroids of Lloyd's k-means on at most 64 rows per cell, (cells, D) float32; an emptied cell stays in place."""
    rows = shuffled(keys, 0, Purpose.CELLS)[: cells * _PER_CELL]
    cells = min(cells, len(rows))
    part = points.subset(rows)
    vectors = part.right[: len(rows), : points.dimensions].float().cpu().numpy()
    centroids = vectors[:cells].copy()
    for _ in range(_ROUNDS):
        labels = assign(part, centroids)
        order = np.argsort(labels, kind="stable")
        used, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
        sums = np.add.reduceat(vectors[order], starts, axis=0, dtype=np.float64)
        centroids[used] = (sums / sizes[:, None]).astype(np.float32)
    return centroids


def assign(points: Points, centroids: np.ndarray) -> np.ndarray:
    """Each row's nearest centroid, the first on a tie, (N,) int32."""
    right = prepare(centroids, str(points.right.device), whole=256)
    labels = np.empty(points.right.shape[0], np.int32)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, points.right.shape[0], _BLOCK):
            bits = points.product_with(points.left_slice(start, start + _BLOCK), right.right).cpu().numpy()
            jobs = [
                threads.submit(
                    _first_smallest, bits[at : at + 512, : right.count], labels[start + at : start + at + 512]
                )
                for at in range(0, len(bits), 512)
            ]
            for job in jobs:
                job.result()
    return labels[: points.count]


@numba.njit(cache=True, nogil=True)
def _first_smallest(bits: np.ndarray, labels: np.ndarray) -> None:
    for row in range(bits.shape[0]):
        best = 0
        for column in range(1, bits.shape[1]):
            if bits[row, column] < bits[row, best]:
                best = column
        labels[row] = best


def cell_graph(
    points: Points,
    keys: np.ndarray,
    neighbours: int,
    *,
    near_level: int,
    cells: int,
    probes: int,
    on_progress: Progress | None = None,
) -> Graph:
    """Every row's nearest rows among those of the `probes` cells nearest to its own cell.

    Cost: 2 N (N probes / cells) (D + 6) FLOP.
    """
    table = new_keys(points.count, min(neighbours, points.count))
    near = np.ones(points.count, np.int64)
    done = 0
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for own, others in near_cells(points, keys, cells=cells, probes=probes):
            _compare(points, own, others, near_level, table, near, threads)
            done += len(own)
            if on_progress is not None:
                on_progress(done, points.count)
    return Graph(*split_keys(table), near)


def near_cells(
    points: Points, keys: np.ndarray, *, cells: int, probes: int, is_mutual: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the rows of each cell, and the rows of the `probes` cells nearest to it, itself among them.

    With `is_mutual` a cell is also held against those that have it among their nearest.
    """
    centroids = train_cells(points, keys, cells)
    labels = assign(points, centroids)
    members = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[members], np.arange(len(centroids) + 1))
    probed = np.argsort(_between(centroids), axis=1, kind="stable")[:, :probes]
    is_probed = np.zeros((len(centroids), len(centroids)), bool)
    np.put_along_axis(is_probed, probed, values=True, axis=1)
    for cell in range(len(centroids)):
        own = members[ends[cell] : ends[cell + 1]]
        if len(own) == 0:
            continue
        near = np.flatnonzero(is_probed[cell] | is_probed[:, cell]) if is_mutual else probed[cell]
        yield own, np.concatenate([members[ends[other] : ends[other + 1]] for other in near])


def _between(centroids: np.ndarray) -> np.ndarray:
    """Squared distances between centroids, each nearest to itself."""
    wide = centroids.astype(np.float64)
    norms = (wide**2).sum(1)
    squares = norms[:, None] + norms[None, :] - 2 * wide @ wide.T
    np.fill_diagonal(squares, -1.0)
    return np.asarray(squares)


def _compare(
    points: Points,
    own: np.ndarray,
    others: np.ndarray,
    near_level: int,
    table: np.ndarray,
    near: np.ndarray,
    threads: ThreadPoolExecutor,
) -> None:
    """Offer all `others` to all `own` rows."""
    for bits, rows, some in products(points, own, others):
        jobs = [
            threads.submit(_offer, bits[at : at + 64], rows[at : at + 64], some, near_level, table, near)
            for at in range(0, len(rows), 64)
        ]
        for job in jobs:
            job.result()


def products(
    points: Points, own: np.ndarray, others: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the bits of h between some of the `own` rows and some of the `others`, until all have met.

    The bits are of one fixed shape, (256, 4096) int16; what lies beyond the rows, and the others, given with it is
    filled up.
    """
    device = points.right.device
    for begin in range(0, len(others), _CANDIDATES):
        some = others[begin : begin + _CANDIDATES]
        right = points.right[torch.from_numpy(np.resize(some, _CANDIDATES)).to(device)]
        for start in range(0, len(own), _QUERIES):
            rows = own[start : start + _QUERIES]
            yield points.product_with(points.left_of(np.resize(rows, _QUERIES)), right).cpu().numpy(), rows, some


@numba.njit(cache=True, nogil=True)
def _offer(
    bits: np.ndarray, rows: np.ndarray, others: np.ndarray, near_level: int, table: np.ndarray, near: np.ndarray
) -> None:
    """Keep what is nearer than a row's list holds; keys settle ties by row, so the order of offers does not matter."""
    for index in range(rows.shape[0]):
        row = rows[index]
        heap = table[row]
        line = bits[index]
        for run in range(0, others.shape[0], 64):
            smallest = line[run]
            for column in range(run, run + 64):
                smallest = min(smallest, line[column])
            level = bits_to_level(smallest)
            if level > near_level and level > (heap[0] >> 40):
                continue
            for column in range(run, min(run + 64, others.shape[0])):
                level = bits_to_level(line[column])
                if others[column] == row:
                    continue
                if level <= near_level:
                    near[row] += 1
                keep_smallest(heap, (np.int64(level) << 40) + others[column])
