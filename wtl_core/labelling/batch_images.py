"""The images of a batch outside the workspace: where they lie, and copies or links of them under safe names."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

from wtl_core.pool import live_pool
from wtl_core.shards import paths
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.storage import Store

_PLACE = ("uri", "object_uri", "key", "part", "row", "byte_length", "format", "width", "height")


def located(store: Store, table: pl.DataFrame) -> pl.DataFrame:
    """The rows of a batch with where and what each image is.

    Args:
        store: The workspace, which has a refresh.
        table: Columns `sample_id`, `uri` and `place` among others.

    Returns:
        The same rows with `object_uri`, `key`, `part`, `row`, `byte_length`, `format`, `width` and `height` of the
        image as it is looked at, and `file_name`: `<place>_<sample_id>.<format>`, which is a plain name on every file
        system whatever the image is called in its source, and which `wtl labels add` understands.
    """
    last = commits.latest(store)
    assert last is not None
    is_wanted = pl.col("sample_id").is_in(table["sample_id"].implode())
    snapshot = snapshots.read_snapshot(store, last.listing)
    found = live_pool.load_locations(store, snapshot, columns=["sample_id", *_PLACE, "ordinal"], where=is_wanted)
    first = found.sort("key", "ordinal", "part").unique(["sample_id", "uri"], keep="first")
    rows = table.join(first.select("sample_id", *_PLACE), on=["sample_id", "uri"], how="left", maintain_order="left")
    place = pl.col("place").cast(pl.String).str.zfill(6)
    return rows.with_columns(file_name=pl.format("{}_{}.{}", place, "sample_id", "format"))


def read(store: Store, images: pl.DataFrame, take: Callable[[str, bytes], object]) -> list[str]:
    """Give each image's `file_name` and bytes to a function, in the order in which they lie.

    Args:
        store: The workspace.
        images: What `located` returns.
        take: Called once for each image.

    Returns:
        URIs of images whose bytes are gone from their source or changed there since the last run; these are left out.

    Cost: parts are read one after another, so that each is read once; a row group of 256 images is in memory at a time.
    """
    lost = []
    for (part,), rows in images.group_by("part", maintain_order=True):
        of_row = {row: (name, uri) for row, name, uri in rows.select("row", "file_name", "uri").iter_rows()}
        for row, data in live_pool.read_images(store, str(part), list(of_row)):
            name, uri = of_row[row]
            if data is None:
                lost.append(uri)
            else:
                take(name, data)
    return lost


def link(images: pl.DataFrame, folder: Path) -> None:
    """Make symbolic links to the images, which are all local files, under their `file_name`."""
    for uri, name in images.select("object_uri", "file_name").iter_rows():
        (folder / name).symlink_to(paths.path_of(uri))


def are_files(images: pl.DataFrame) -> pl.Series:
    """Of each image, whether it is a local file by itself: no member of an archive, no row of a table, in no bucket."""
    return images.select((pl.col("key") == "") & ~pl.col("object_uri").str.starts_with("s3://")).to_series()
