"""What a split leaks: how near images of validation and test are to those of training, beside a random split."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wtl_core.labelling.split_groups import Groups
from wtl_core.selection.identity import content_keys, shuffled

_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5)
_ASKED = 2_000
"""Images of validation and test that are compared with all of training: a share is then known to 2 points."""
_BLOCK = 8_192
_STREAM = 61
"""Of the draw of these, beside those of `identity.Purpose` and of controls."""


@dataclass(frozen=True)
class Leaks:
    """What lies across the sides of a split, and what would across those of a random split of single images.

    Attributes:
        cut_groups: Groups that lie on two sides.
        naive_cut_groups: By a random split.
        near_pairs: Pairs of images that are near-duplicates by their vectors.
        naive_torn_pairs: How many of them a random split puts on two sides.
        nearest: Distance from an image of validation or test to its nearest one of training: by quantile, `0` for the
            smallest.
        naive_nearest: By a random split.
        near: Share of the images of validation and test with a near-duplicate in training, 0 to 1.
        naive_near: By a random split.
    """

    cut_groups: int
    naive_cut_groups: int
    near_pairs: int
    naive_torn_pairs: int
    nearest: dict[str, float]
    naive_nearest: dict[str, float]


def measure(vectors: np.ndarray, sides: np.ndarray, groups: Groups, *, ids: Sequence[str]) -> Leaks:
    """The leaks of a first split.

    Args:
        vectors: (M, D) of unit length.
        sides: (M,) int8, 0 for training.
        groups: Of the same images.
        ids: Their sample ids; which of validation and test are compared depends on them.

    Cost: 2,000 M D multiplications, twice.
    """
    order = shuffled(content_keys(ids), 0, _STREAM)
    return Leaks(
        cut_groups=_cut(groups.of, sides),
        naive_cut_groups=_cut(groups.of, groups.naive_sides),
        near_pairs=groups.near_pairs,
        naive_torn_pairs=groups.naive_torn,
        nearest=_nearest(vectors, sides, order),
        naive_nearest=_nearest(vectors, groups.naive_sides, order),
    )


def _cut(groups: np.ndarray, sides: np.ndarray) -> int:
    """How many groups have images on two sides."""
    several = np.unique(np.stack([groups, sides.astype(np.int64)]), axis=1)[0]
    return int((np.bincount(several) > 1).sum())


def _nearest(vectors: np.ndarray, sides: np.ndarray, order: np.ndarray) -> dict[str, float]:
    """Quantiles of the distance from an image outside training to the nearest one in it; empty where there is none."""
    asked, taught = order[sides[order] > 0][:_ASKED], np.flatnonzero(sides == 0)
    if not len(asked) or not len(taught):
        return {}
    rows, best = vectors[asked].astype(np.float32), np.full(len(asked), -1.0, np.float32)
    for start in range(0, len(taught), _BLOCK):
        block = vectors[taught[start : start + _BLOCK]].astype(np.float32)
        np.maximum(best, (rows @ block.T).max(axis=1), out=best)
    distances = np.sqrt(np.maximum(2.0 - 2.0 * best, 0.0))
    return {f"{share:g}": round(float(np.quantile(distances, share)), 4) for share in _QUANTILES}
