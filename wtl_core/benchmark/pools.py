"""Pools as they occur in practice, made reproducibly from a training split: long tails, bursts, outliers.

A pool has labels, which only the judges use: strategies do not see them, the marked oracle excepted.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wtl_core.benchmark.datasets import Split
from wtl_core.benchmark.params import PoolKind
from wtl_core.benchmark.stored_images import StoredImages
from wtl_core.machine import Progress, Stage, silent

OUTLIER = -1
"""The label of an image that belongs to no class: labelling it costs the same and teaches nothing."""
TAIL_RATIO = 50  # images of the commonest class for one of the rarest
_BURST_SHARE, _LEAST_COPIES, _MOST_COPIES = 0.10, 4, 40  # share of images with copies, and how many copies
_OUTLIER_SHARE = 0.10  # of the pool's images, added to it
_TILE = 4  # pixels


@dataclass(frozen=True)
class LabelledPool:
    """Images to choose from.

    Attributes:
        kind: What was done to the training split.
        images: (N, 3, S, S) uint8, in the training split's file.
        labels: (N,) int64, `OUTLIER` for none.
        origin: (N,) the training split's row, -1 for an outlier.
        is_copy: (N,) whether the image is a near-copy of its origin, and not the origin itself.
        sample_ids: N distinct ids, sorted.
    """

    kind: PoolKind
    images: StoredImages
    labels: np.ndarray
    origin: np.ndarray
    is_copy: np.ndarray
    sample_ids: list[str]


def make(kind: PoolKind, train: Split, *, seed: int, stage: Stage = silent) -> LabelledPool:
    """The pool of this kind.

    `long-tail` keeps of class c a share that falls evenly in logarithm to 1/50; which class is rare, is drawn.
    `bursts` puts 4 to 40 near-copies (shifted, brightened, noisy) of a tenth of the images beside them. `outliers`
    adds a tenth: noise, and mosaics of tiles of many images. `long-tail-bursts` is the first two. `stage` shows how
    many near-copies are made.
    """
    rng = np.random.default_rng([seed, 1])
    rows = np.arange(len(train))
    if kind.startswith("long-tail"):
        rows = _long_tail(train.labels, rng)
    pool = LabelledPool(
        kind, train.images.take(rows), train.labels[rows], rows, np.zeros(len(rows), bool),
        [train.sample_ids[row] for row in rows],
    )  # fmt: skip
    if kind.endswith("bursts"):
        with stage("near-copies", "images") as on_progress:
            pool = _with_bursts(pool, rng, on_progress)
    if kind == "outliers":
        pool = _with_outliers(pool, rng)
    return _sorted(pool)


def _long_tail(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows to keep, ascending."""
    classes = np.unique(labels)
    order = rng.permutation(len(classes))
    kept = []
    for place, number in zip(order, classes, strict=True):
        rows = np.flatnonzero(labels == number)
        share = TAIL_RATIO ** (-place / max(1, len(classes) - 1))
        kept.append(rng.permutation(rows)[: max(1, round(len(rows) * share))])
    return np.asarray(np.sort(np.concatenate(kept)))


def _with_bursts(pool: LabelledPool, rng: np.random.Generator, on_progress: Progress) -> LabelledPool:
    count = len(pool.labels)
    chosen = rng.permutation(count)[: max(1, round(_BURST_SHARE * count))]
    rows = np.repeat(chosen, rng.integers(_LEAST_COPIES, _MOST_COPIES + 1, len(chosen)))

    def copies() -> Iterator[np.ndarray]:
        for done, row in enumerate(rows, 1):
            yield _near_copy(pool.images[int(row)], rng)
            on_progress(done, len(rows))

    ids = [_derived(pool.sample_ids[row], number) for number, row in enumerate(rows)]
    return LabelledPool(
        pool.kind,
        pool.images.plus(copies()),
        np.concatenate([pool.labels, pool.labels[rows]]),
        np.concatenate([pool.origin, pool.origin[rows]]),
        np.concatenate([pool.is_copy, np.ones(len(rows), bool)]),
        pool.sample_ids + ids,
    )


def _near_copy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As the next frame of a film: moved by up to two pixels, a little brighter or darker, with other noise."""
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
    top, left = rng.integers(0, 5, 2)
    moved = padded[:, top : top + image.shape[1], left : left + image.shape[2]].astype(np.float32)
    noisy = moved * rng.uniform(0.92, 1.08) + 2.0 * rng.standard_normal(image.shape, np.float32)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _with_outliers(pool: LabelledPool, rng: np.random.Generator) -> LabelledPool:
    count = max(2, round(_OUTLIER_SHARE * len(pool.labels)))
    shape = pool.images.shape[1:]
    noise = rng.integers(0, 256, (count // 2, *shape), dtype=np.uint8)
    mosaics = [_mosaic(pool.images, rng) for _ in range(count - count // 2)]
    ids = [_derived("outlier", number) for number in range(count)]
    return LabelledPool(
        pool.kind,
        pool.images.plus([*noise, *mosaics]),
        np.concatenate([pool.labels, np.full(count, OUTLIER)]),
        np.concatenate([pool.origin, np.full(count, -1)]),
        np.concatenate([pool.is_copy, np.zeros(count, bool)]),
        pool.sample_ids + ids,
    )


def _mosaic(images: StoredImages, rng: np.random.Generator) -> np.ndarray:
    """Tiles of 4 x 4 pixels, each from another image."""
    side = images.shape[-1]
    out = np.empty((3, side, side), np.uint8)
    for top in range(0, side, _TILE):
        for left in range(0, side, _TILE):
            window = (slice(None), slice(top, top + _TILE), slice(left, left + _TILE))
            out[window] = images[int(rng.integers(len(images)))][window]
    return out


def _derived(sample_id: str, number: int) -> str:
    return hashlib.sha256(f"{sample_id}:{number}".encode()).hexdigest()


def _sorted(pool: LabelledPool) -> LabelledPool:
    order = np.argsort(np.array(pool.sample_ids))
    return LabelledPool(
        pool.kind, pool.images.take(order), pool.labels[order], pool.origin[order], pool.is_copy[order],
        [pool.sample_ids[row] for row in order],
    )  # fmt: skip
