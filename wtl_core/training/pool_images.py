"""The pool as the images that an encoder is trained on."""

from collections.abc import Iterator, Sequence

import polars as pl

from wtl_core.pool import live_pool
from wtl_core.training.image_cache import PoolImages
from wtl_core.workspace.storage import Store


def distinct(samples: pl.DataFrame) -> pl.DataFrame:
    """The samples to learn from: without pixel-identical repeats and without filtered-out samples."""
    return samples.filter(pl.col("duplicate_of").is_null() & ~pl.col("is_filtered"))


def of_pool(store: Store, samples: pl.DataFrame) -> PoolImages:
    """The live samples to learn from, in `sample_id` order.

    Args:
        store: The workspace.
        samples: `pool.Pool.samples`.
    """
    rows = distinct(samples).sort("sample_id")
    places = rows.select("part", "row").with_row_index("at")

    def read(chosen: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        wanted = places[list(chosen)].sort("part", "row")
        for (part,), group in wanted.group_by("part", maintain_order=True):
            at = dict(zip(group["row"].to_list(), group["at"].to_list(), strict=True))
            for row, data in live_pool.read_images(store, str(part), list(at)):
                yield at[row], data

    sides = rows.select(pl.min_horizontal("width", "height"))["width"].to_numpy()
    return PoolImages(rows["sample_id"].to_list(), sides, read)
