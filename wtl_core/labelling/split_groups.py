"""Groups of images that must not lie on two sides: near-duplicates, copies, and equal values of given columns.

Two images are linked if their vectors are at most a distance apart, if their perceptual hashes are near (see
`pool.near_duplicates`), if their pixels are equal, or if they have the same value in a column of `group_by`. A group
is what chains of links connect. An image that has a side already is in no new group and carries no chain on: a new
group knows only which sides it is linked to.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from wtl_core.errors import InputError
from wtl_core.machine import Progress
from wtl_core.pool import near_duplicates
from wtl_core.selection.columns import groups_of
from wtl_core.selection.identity import Purpose, content_keys, draw
from wtl_core.selection.near_pairs import connect_equal, connect_near, new_forest
from wtl_core.selection.neighbours import prepare
from wtl_core.workspace.sides import SIDES

NO_VALUE = "(none)"
"""What `groups_of` gives for a sample without a value."""


@dataclass(frozen=True)
class Groups:
    """Groups of M new images.

    Attributes:
        of: (M,) int64, each image's group from 0.
        touched: (G,) uint8, bit s is set if the group is linked to images on the side s.
        near_pairs: Pairs with a new image in them that are near by their vectors.
        naive_sides: (M,) int8, the sides that a random split of single images would give.
        naive_torn: How many of the near pairs that would put on two sides.
    """

    of: np.ndarray
    touched: np.ndarray
    near_pairs: int
    naive_sides: np.ndarray
    naive_torn: int

    @property
    def largest(self) -> int:
        """Images of the largest group."""
        return int(np.bincount(self.of).max())


def find(
    samples: pl.DataFrame,
    vectors: np.ndarray,
    *,
    distance: float,
    group_by: Sequence[str],
    shares: Sequence[float],
    device: str,
    on_progress: Progress | None = None,
) -> Groups:
    """The groups of the samples that have no side yet.

    Args:
        samples: Columns of `Pool.samples` and `split`, null for the new ones, which come first; pixels, hash and
            metadata are null for samples that have left the pool.
        vectors: (N, D) of unit length, one a sample.
        distance: Within which vectors are linked.
        group_by: Columns of the pool or keys of its metadata.
        shares: Of `SIDES`, for the split to compare with.
        device: `cpu` or a CUDA device.
        on_progress: Called with how many new samples of how many are compared.

    Raises:
        InputError: no sample has such a column or key.

    Cost: that of `connect_near`, and some passes over the samples.
    """
    count = samples["split"].null_count()
    codes = {side: number for number, side in enumerate(SIDES)}
    sides = samples["split"][count:].replace_strict(codes, return_dtype=pl.Int8).to_numpy()
    keys = content_keys(samples["sample_id"].to_list())
    chance = draw(keys, 1, Purpose.SPLIT) / 2.0**64
    naive = np.searchsorted(np.cumsum(shares[:-1]), chance, side="right").astype(np.int8)
    forest = new_forest(count)
    hashes = near_duplicates.group(samples["phash"].fill_null(0).to_numpy())
    connect_equal(forest, hashes, sides)
    connect_equal(forest, _codes(samples["pixel_digest"]), sides)
    for name in group_by:
        values = pl.Series(groups_of(samples, name), dtype=pl.String)
        connect_equal(forest, _codes(values.replace(NO_VALUE, None)), sides)
    points = prepare(vectors, device)
    pairs, torn = connect_near(
        forest, points, sides, distance=distance, keys=keys, apart=naive, on_progress=on_progress
    )
    of, touched = forest.components()
    return Groups(of, touched, pairs, naive[:count], torn)


def _codes(values: pl.Series) -> np.ndarray:
    """Equal numbers from 0 for equal values, -1 for null, (N,) int64."""
    return (values.rank("dense").cast(pl.Int64) - 1).fill_null(-1).to_numpy()


def has_column(samples: pl.DataFrame, name: str) -> bool:
    """Whether the pool has such a column, or a sample such a key in its metadata."""
    try:
        groups_of(samples, name)
    except InputError:
        return False
    return True
