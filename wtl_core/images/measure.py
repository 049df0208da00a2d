"""Quality, perceptual hash and small copies of an image, from its decoded pixels, in integers wherever possible.

Everything is measured on a copy of at most 256 px (whole-number box averages), so that figures of large and small
photographs compare. Sums are exact integers: the same pixels give the same figures on every machine.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

SMALL_SIDE_PX = 256
_HASH_GRID, _HASH_SIDE = 32, 8


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of one image.

    Attributes:
        sharpness: Variance of the 4-neighbour Laplacian of luma (0..255); blurred images are low.
        brightness: Mean luma, 0..255.
        contrast: Standard deviation of luma.
        entropy: Bits of the luma histogram, 0..8.
        phash: 64-bit perceptual hash: signs of low DCT frequencies against their median.
    """

    sharpness: float
    brightness: float
    contrast: float
    entropy: float
    phash: int


def shrink(pixels: np.ndarray) -> np.ndarray:
    """A copy (h, w, 3) uint8 of at most 256 px, by box averages of whole pixels; the array itself if small enough."""
    factor = -(-max(pixels.shape[:2]) // SMALL_SIDE_PX)
    return pixels if factor == 1 else _box(pixels, factor)


def measure(small: np.ndarray) -> Measures:
    """Measure a copy from `shrink`."""
    luma = _luma(small)
    brightness, contrast, sharpness, entropy = _figures(luma)
    return Measures(sharpness, brightness, contrast, entropy, int(_phash(luma, _COSINES)))


def resize_within(small: np.ndarray, side_px: int) -> np.ndarray:
    """A copy (h, w, 3) uint8 whose longer side is at most `side_px`, by area averages."""
    height, width = small.shape[:2]
    longest = max(height, width)
    if longest <= side_px:
        return small
    shape = (max(1, round(height * side_px / longest)), max(1, round(width * side_px / longest)))
    return _area(small, *shape)


def _cosines() -> np.ndarray:
    """The first 8 rows of the DCT-II matrix of 32 points, unscaled."""
    frequency, position = np.arange(_HASH_SIDE)[:, None], np.arange(_HASH_GRID)[None, :]
    return np.cos(np.pi * frequency * (2 * position + 1) / (2 * _HASH_GRID))


_COSINES = _cosines()


@njit(cache=True, nogil=True)
def _box(pixels: np.ndarray, factor: int) -> np.ndarray:
    height, width = max(1, pixels.shape[0] // factor), max(1, pixels.shape[1] // factor)
    rows, columns = min(factor, pixels.shape[0]), min(factor, pixels.shape[1])
    out = np.empty((height, width, 3), np.uint8)
    sums = np.empty(pixels.shape[1] * 3, np.int32)
    flat = pixels.reshape(pixels.shape[0], pixels.shape[1] * 3)
    area = rows * columns
    for y in range(height):
        sums[:] = 0
        for r in range(rows):
            line = flat[y * factor + r]
            for i in range(sums.shape[0]):
                sums[i] += line[i]
        for x in range(width):
            for c in range(3):
                total = np.int64(0)
                for k in range(columns):
                    total += sums[(x * factor + k) * 3 + c]
                out[y, x, c] = (total + area // 2) // area
    return out


@njit(cache=True, nogil=True)
def _area(small: np.ndarray, height: int, width: int) -> np.ndarray:
    out = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        top, bottom = y * small.shape[0] // height, -(-(y + 1) * small.shape[0] // height)
        for x in range(width):
            left, right = x * small.shape[1] // width, -(-(x + 1) * small.shape[1] // width)
            area = (bottom - top) * (right - left)
            for c in range(3):
                total = 0
                for r in range(top, bottom):
                    for k in range(left, right):
                        total += np.int64(small[r, k, c])
                out[y, x, c] = (total + area // 2) // area
    return out


@njit(cache=True, nogil=True)
def _luma(small: np.ndarray) -> np.ndarray:
    """BT.601 luma (h, w) int32 in 0..255, rounded."""
    out = np.empty(small.shape[:2], np.int32)
    for y in range(small.shape[0]):
        for x in range(small.shape[1]):
            red, green, blue = np.int32(small[y, x, 0]), np.int32(small[y, x, 1]), np.int32(small[y, x, 2])
            out[y, x] = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return out


@njit(cache=True, nogil=True)
def _figures(luma: np.ndarray) -> tuple[float, float, float, float]:
    height, width = luma.shape
    counts = np.zeros(256, np.int64)
    for y in range(height):
        for x in range(width):
            counts[luma[y, x]] += 1
    total, squares, entropy, size = 0, 0, 0.0, height * width
    for level in range(256):
        count = counts[level]
        total += level * count
        squares += level * level * count
        if count:
            entropy -= count / size * np.log2(count / size)
    edges, edge_squares = np.int64(0), np.int64(0)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            edge = luma[y - 1, x] + luma[y + 1, x] + luma[y, x - 1] + luma[y, x + 1] - 4 * luma[y, x]
            edges += edge
            edge_squares += edge * edge
    inner = max((height - 2) * (width - 2), 1)
    mean, edge_mean = total / size, edges / inner
    return mean, max(squares / size - mean * mean, 0.0) ** 0.5, edge_squares / inner - edge_mean * edge_mean, entropy


@njit(cache=True, nogil=True)
def _phash(luma: np.ndarray, cosines: np.ndarray) -> np.uint64:
    height, width = luma.shape
    grid = np.empty((_HASH_GRID, _HASH_GRID), np.float64)
    for y in range(_HASH_GRID):
        top = y * height // _HASH_GRID
        bottom = max(-(-(y + 1) * height // _HASH_GRID), top + 1)
        for x in range(_HASH_GRID):
            left = x * width // _HASH_GRID
            right = max(-(-(x + 1) * width // _HASH_GRID), left + 1)
            total = np.int64(0)
            for r in range(top, bottom):
                for k in range(left, right):
                    total += luma[r, k]
            grid[y, x] = total / ((bottom - top) * (right - left))
    half = np.zeros((_HASH_SIDE, _HASH_GRID), np.float64)
    for f in range(_HASH_SIDE):
        for y in range(_HASH_GRID):
            for x in range(_HASH_GRID):
                half[f, x] += cosines[f, y] * grid[y, x]
    values = np.empty(_HASH_SIDE * _HASH_SIDE, np.float64)
    for f in range(_HASH_SIDE):
        for g in range(_HASH_SIDE):
            total_value = 0.0
            for x in range(_HASH_GRID):
                total_value += half[f, x] * cosines[g, x]
            values[f * _HASH_SIDE + g] = total_value
    median = np.median(values[1:])
    bits = np.uint64(0)
    for i in range(_HASH_SIDE * _HASH_SIDE):
        # the margin keeps the rounding of a flat image's zero frequencies out of the hash
        if i > 0 and values[i] > median + 1e-6:
            bits |= np.uint64(1) << np.uint64(i)
    return bits
