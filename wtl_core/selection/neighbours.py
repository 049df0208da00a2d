"""Distances between unit vectors at the speed of a matrix product, and each vector's exact nearest neighbours.

Legend: `N` rows, `D` dimensions, `K` neighbours, h = d^2 / 2 = 1 - cosine for a distance d.

Vectors are rounded once to bfloat16, on every device, and all distances are those between the rounded vectors. Half the
squared norms ride along as extra columns, so that one product yields h itself and not a cosine: rounding h to bfloat16
then costs a relative 2^-8 of h (0.2 % of the distance) however close the points, where rounding the cosine would blur
every distance below 0.09. A distance is held as a *level*: the rank of h among the bfloat16 numbers from 2^-14 on, an
integer below `LEVELS` that rises with distance. Levels fit the tables and integer sums that make selection
independent of block sizes, threads and devices. Not here: kernels, weights, picking.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import torch

from wtl_core.machine import Progress

LEVELS = 2048
FIRST_BITS = 113 << 7  # the bits of 2^-14; anything nearer is level 0, distance 0 (d < 0.011)
BLOCK_ROWS = 512  # shape of one product, fixed so that sums never depend on the pool's size
BLOCK_COLUMNS = 2048
_SPLIT = 3  # bfloat16 numbers that together hold half a squared norm to 24 bits
_EDGE = np.int64(1) << 40
_UNUSED = np.iinfo(np.int64).max


def level_distances() -> np.ndarray:
    """The distance that each level stands for, (LEVELS,) float64, rising; level 0 is distance 0."""
    bits = (np.arange(LEVELS, dtype=np.uint32) + FIRST_BITS - 1) << 16
    distances = np.sqrt(2.0 * bits.view(np.float32).astype(np.float64))
    distances[0] = 0.0
    return np.asarray(np.minimum(distances, 2.0))


def level_of(distance: float) -> int:
    """The last level whose distance is not above `distance`."""
    return int(np.searchsorted(level_distances(), distance, side="right")) - 1


@numba.njit(cache=True, nogil=True, inline="always")
def bits_to_level(bits: int) -> int:
    """The level of an h given by its bfloat16 bits; what rounding made negative is level 0."""
    level = np.int32(bits) - np.int32(FIRST_BITS - 1)
    if level < 0:
        return 0
    if level >= LEVELS:
        return LEVELS - 1
    return int(level)


@dataclass(frozen=True)
class Points:
    """Unit vectors ready for products, on one device.

    `right` is (N padded to whole column blocks, columns) bfloat16: the vector, three ones, three parts of half its
    squared norm, zeros. Padding rows are as far from everything as unit vectors can be.
    """

    right: torch.Tensor
    count: int
    dimensions: int
    numeric_path: str

    @property
    def column_step(self) -> int:
        """Columns per product: one fixed size on the processor, large ones where starting a product costs more."""
        return 1 << 17 if self.right.is_cuda else BLOCK_COLUMNS

    @cached_property
    def compute_dtype(self) -> torch.dtype:
        """What products are computed in: bfloat16 where the processor has it, else float32 of the same numbers."""
        return torch.float32 if self.numeric_path == "cpu-fp32" else torch.bfloat16

    def left_of(self, rows: np.ndarray) -> torch.Tensor:
        """The left factor for the given rows: the vector negated, the two groups of three columns swapped."""
        return as_left(self.right[torch.from_numpy(rows).to(self.right.device)], self.dimensions)

    def left_slice(self, start: int, stop: int) -> torch.Tensor:
        """`left_of` for consecutive rows, padding included."""
        return as_left(self.right[start:stop], self.dimensions)

    def subset(self, rows: np.ndarray) -> "Points":
        """The given rows as points of their own, padded again."""
        whole = -(-max(1, len(rows)) // BLOCK_COLUMNS) * BLOCK_COLUMNS
        right = torch.zeros((whole, self.right.shape[1]), dtype=self.right.dtype, device=self.right.device)
        right[: len(rows)] = self.right[torch.from_numpy(np.ascontiguousarray(rows)).to(self.right.device)]
        right[len(rows) :, self.dimensions + _SPLIT] = 2.0
        return Points(right, len(rows), self.dimensions, self.numeric_path)

    def product(self, left: torch.Tensor, start: int, stop: int, out: torch.Tensor | None = None) -> torch.Tensor:
        """The bits of h between left rows and points `start` to `stop`: (rows, stop - start) int16, rising with h."""
        right = self.right[start:stop]
        return self.product_with(left, right, out)

    def product_with(self, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """The bits of h between left rows and rows in right form, (left rows, right rows) int16."""
        if self.compute_dtype is torch.float32:
            return (left.float() @ right.float().T).bfloat16().view(torch.int16)
        with full_precision_sums() if right.is_cuda else nullcontext():
            return torch.mm(left, right.T, out=None if out is None else out.view(torch.bfloat16)).view(torch.int16)


_setting_sums = threading.Lock()


@contextmanager
def full_precision_sums() -> Iterator[None]:
    """Let CUDA products of bfloat16 matrices sum in float32, and give torch's setting back afterwards.

    Partial sums in bfloat16, which torch allows by default, would blur what cancels in h. The setting is the whole
    process's: one thread at a time changes it. It counts when a product is launched, so nothing is waited for.
    """
    matmul = torch.backends.cuda.matmul
    with _setting_sums:
        before = (matmul.allow_bf16_reduced_precision_reduction, matmul.allow_bf16_reduced_precision_reduction_split_k)
        matmul.allow_bf16_reduced_precision_reduction = False
        try:
            yield
        finally:
            matmul.allow_bf16_reduced_precision_reduction = before


def as_left(right: torch.Tensor, dimensions: int) -> torch.Tensor:
    """The left factor of rows in right form."""
    left = right.clone()
    left[:, :dimensions].neg_()
    middle = dimensions + _SPLIT
    left[:, dimensions:middle] = right[:, middle : middle + _SPLIT]
    left[:, middle : middle + _SPLIT] = right[:, dimensions:middle]
    return left


def prepare(vectors: np.ndarray, device: str = "cpu", *, whole: int = BLOCK_COLUMNS) -> Points:
    """Round unit vectors to bfloat16 and lay them out for products, padded to a multiple of `whole` rows."""
    count, dimensions = vectors.shape
    columns = -(-(dimensions + 2 * _SPLIT) // 32) * 32
    rows = max(1, -(-count // whole)) * whole
    right = torch.zeros((rows, columns), dtype=torch.bfloat16, device=device)
    for start in range(0, count, 65_536):
        block = torch.from_numpy(np.ascontiguousarray(vectors[start : start + 65_536])).to(device)
        right[start : start + len(block), :dimensions] = block.to(torch.bfloat16)
    middle = dimensions + _SPLIT
    right[:, dimensions:middle] = 1.0
    for start in range(0, count, 65_536):
        stop = min(start + 65_536, count)
        rest = right[start:stop, :dimensions].double().square().sum(1) / 2
        for part in range(_SPLIT):
            rounded = rest.to(torch.bfloat16)
            right[start:stop, middle + part] = rounded
            rest -= rounded.double()
    right[count:, dimensions:middle] = 0.0
    right[count:, middle] = 2.0
    return Points(right, count, dimensions, numeric_path_of(device))


def numeric_path_of(device: str) -> str:
    """Named by the processor's features, never by a timing: the same machine always takes the same path."""
    if device != "cpu":
        return f"{device.split(':')[0]}-bf16"
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "cpu-bf16" if has_bf16 else "cpu-fp32"


def exact_distances(vectors: np.ndarray, rows: np.ndarray, others: np.ndarray, against: np.ndarray) -> np.ndarray:
    """Distances in float64 between `vectors[rows]` and `against[others]`, pairwise, (len(rows),)."""
    distances = np.empty(len(rows))
    for start in range(0, len(rows), 16_384):
        part = slice(start, start + 16_384)
        difference = vectors[rows[part]].astype(np.float32) - against[others[part]].astype(np.float32)
        distances[part] = np.sqrt(np.einsum("nd,nd->n", difference, difference, dtype=np.float64))
    return distances


@dataclass(frozen=True)
class Graph:
    """Each row's nearest rows, itself first, then nearer before farther, the lower row on a tie.

    `rows` (N, K) int32, padded by -1 where there are fewer; `levels` (N, K) int16; `near` (N,) int64: rows at most
    `near_level` away, itself included, however many.
    """

    rows: np.ndarray
    levels: np.ndarray
    near: np.ndarray


def exact_graph(points: Points, neighbours: int, *, near_level: int, on_progress: Progress | None = None) -> Graph:
    """Every row's `neighbours` nearest rows by comparing all pairs.

    Cost: 2 N^2 (D + 6) FLOP; BLOCK_ROWS * N * 2 bytes beside the result of N * K * 14 bytes.
    """
    count = points.count
    keys = new_keys(count, min(neighbours, count))
    near = np.ones(count, np.int64)
    blocks = points.right.shape[0] // BLOCK_COLUMNS
    bits = torch.empty((blocks, BLOCK_ROWS, BLOCK_COLUMNS), dtype=torch.int16)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, count, BLOCK_ROWS):
            left = points.left_slice(start, start + BLOCK_ROWS)
            for block in range(blocks):
                columns = slice(block * BLOCK_COLUMNS, (block + 1) * BLOCK_COLUMNS)
                done = points.product(left, columns.start, columns.stop, out=bits[block])
                if done.data_ptr() != bits[block].data_ptr():
                    bits[block].copy_(done)
            stop = min(start + BLOCK_ROWS, count)
            jobs = [
                threads.submit(
                    _nearest, bits.numpy(), begin, min(begin + 64, stop), start, count, near_level, keys, near
                )
                for begin in range(start, stop, 64)
            ]
            for job in jobs:
                job.result()
            if on_progress is not None:
                on_progress(stop, count)
    return Graph(*split_keys(keys), near)


def split_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and levels of keys (level * 2^40 + row), which are sorted for it; an unused key gives row -1."""
    rows, levels = np.empty(keys.shape, np.int32), np.empty(keys.shape, np.int16)
    for start in range(0, len(keys), 32_768):  # a part at a time: 8-byte keys in whole would double the memory
        part = slice(start, start + 32_768)
        keys[part].sort(axis=1)
        found = keys[part] >> np.int64(40)
        is_used = found < LEVELS
        rows[part] = np.where(is_used, keys[part] & (_EDGE - 1), -1)
        levels[part] = np.where(is_used, np.maximum(found, 0), LEVELS - 1)
    return rows, levels


def new_keys(count: int, width: int) -> np.ndarray:
    """One max-heap of unused keys per row, each with the row itself in it, (count, width) int64.

    The row itself is first whatever the rounding says, or many equal rows would push it out of its own list.
    """
    keys = np.full((count, width), _UNUSED)
    keys[:, -1] = np.arange(count) - _EDGE
    return keys


@numba.njit(cache=True, nogil=True)
def _nearest(
    bits: np.ndarray, begin: int, end: int, start: int, count: int, near_level: int, keys: np.ndarray, near: np.ndarray
) -> None:
    """Bring columns to the heaps `keys` of rows `begin` to `end`, and count the near ones.

    Runs of 64 columns are skipped by their smallest entry, which the compiler turns into a few vector instructions.
    """
    blocks, _, wide = bits.shape
    for row in range(begin, end):
        heap = keys[row]
        for block in range(blocks):
            line = bits[block, row - start]
            offset = block * wide
            here = min(wide, count - offset)
            for run in range(0, here, 64):
                smallest = line[run]
                for column in range(run, run + 64):
                    smallest = min(smallest, line[column])
                level = bits_to_level(smallest)
                if level > near_level and level > (heap[0] >> 40):
                    continue
                for column in range(run, min(run + 64, here)):
                    level = bits_to_level(line[column])
                    if offset + column == row:
                        continue
                    if level <= near_level:
                        near[row] += 1
                    keep_smallest(heap, (np.int64(level) << 40) + offset + column)


@numba.njit(cache=True, nogil=True, inline="always")
def keep_smallest(heap: np.ndarray, key: int) -> None:
    """Let `key` take the place of a max-heap's largest, if it is smaller."""
    if key >= heap[0]:
        return
    size = heap.shape[0]
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = key
