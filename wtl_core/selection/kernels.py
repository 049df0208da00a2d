"""How well one image represents another at a distance, and the kernel's scale, found without labels. No picking.

A kernel is a table over distance levels in whole units of 1/32767, a weight a whole number of 1/65536: every sum of
weighted kernel values is an exact integer, so gains are the same whatever the order, the threads or the device.
"""

import numba
import numpy as np

from wtl_core.selection.neighbours import BLOCK_ROWS, FIRST_BITS, LEVELS, Points, bits_to_level, level_distances

ONE = 32767  # a kernel value of 1
WEIGHT_ONE = 65536  # the largest weight
SCALE_NEIGHBOUR = 50  # the neighbour whose median distance is the scale
SCALE_PROBES = 2048  # rows that it is measured on
SCALE_REFERENCES = 50_000  # rows that neighbours are searched among


def kernel_table(kernel: str, scale: float) -> np.ndarray:
    """Kernel values of all levels in units of 1/ONE, (LEVELS,) int16, falling from ONE; `ball` is 1 up to `scale`."""
    distances = level_distances()
    if kernel == "gaussian":
        values = np.exp(-((distances / scale) ** 2))
    elif kernel == "laplace":
        values = np.exp(-distances / scale)
    elif kernel == "cosine":
        values = 1.0 - distances**2 / 4.0
    else:
        values = (distances <= scale).astype(np.float64)
    return np.asarray(np.floor(values * ONE + 0.5).astype(np.int16))


def median_scale(points: Points, order: np.ndarray) -> float:
    """The median distance of some rows to their 50th neighbour that is no near-copy, among at most 50,000 rows.

    Args:
        points: the pool.
        order: all rows in an order that depends on content alone; probes and references are taken from its front.

    Bursts would pull the figure to zero, so neighbours nearer than a quarter of the median distance between any two
    rows (and than 0.25) are passed over. 1.0 where no two rows differ.
    """
    references = points.subset(order[:SCALE_REFERENCES])
    probes = min(SCALE_PROBES, len(order))
    wanted = min(SCALE_NEIGHBOUR, max(1, (references.count - 1) // 4))
    histogram = np.zeros((-(-probes // BLOCK_ROWS) * BLOCK_ROWS, LEVELS), np.int32)
    for start in range(0, probes, BLOCK_ROWS):
        left = references.left_slice(start, start + BLOCK_ROWS)
        for column in range(0, references.count, references.column_step):
            bits = references.product(left, column, column + references.column_step).cpu().numpy()
            _count_levels(
                bits, min(references.column_step, references.count - column), histogram[start : start + BLOCK_ROWS]
            )
    distances = level_distances()
    together = histogram[:probes].sum(0, dtype=np.int64)
    together[0] = 0  # the probes themselves among them
    if together.sum() == 0:
        return 1.0
    middle = distances[np.searchsorted(np.cumsum(together), together.sum() / 2)]
    far = int(np.searchsorted(distances, min(0.25, middle / 4), side="right"))
    beyond = np.cumsum(histogram[:probes, far:], axis=1)
    has_enough = beyond[:, -1] >= wanted
    if not has_enough.any():
        return float(middle)
    return float(np.median(distances[far + (beyond[has_enough] < wanted).sum(1)]))


@numba.njit(cache=True, nogil=True)
def _count_levels(bits: np.ndarray, columns: int, histogram: np.ndarray) -> None:
    for row in range(bits.shape[0]):
        for column in range(columns):
            histogram[row, bits_to_level(bits[row, column])] += 1


@numba.njit(cache=True, nogil=True)
def to_kernel(bits: np.ndarray, table: np.ndarray, columns: int, out: np.ndarray) -> None:
    """Kernel values of bits: (rows, >= columns) int16 into (rows, columns) int16."""
    for row in range(out.shape[0]):
        for column in range(columns):
            out[row, column] = table[bits_to_level(bits[row, column])]


@numba.njit(cache=True, nogil=True)
def count_near(bits: np.ndarray, columns: int, near_level: int, near: np.ndarray) -> None:
    """Add to `near` (rows,) how many of each row's columns are at most `near_level` away."""
    limit = np.int16(near_level + FIRST_BITS - 1)
    for row in range(near.shape[0]):
        found = 0
        for column in range(columns):
            found += bits[row, column] <= limit
        near[row] += found
