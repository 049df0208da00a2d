"""How many images shards hold, by their first entries. Loads no network library: every refresh is planned by it."""

from itertools import islice

import polars as pl

from wtl_core.errors import TransientError
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards.discover import LISTING_SCHEMA
from wtl_core.shards.objects import Entry, ObjectChangedError, SourceObject
from wtl_core.shards.reader import open_object, read_object
from wtl_core.shards.tables import UNREADABLE, open_table

_PEEKED = 8
"""Entries of a shard that a first refresh reads ahead of all others, to tell how many images there are."""
_TAR_BLOCK = 512
"""Bytes of a member's header in a tar; its data is padded to whole ones."""


def megabytes_per_image(objects: pl.DataFrame, params: IngestParams) -> float | None:
    """Megabytes of a shard for each image in it, by the first images of the listing's first shard.

    None where there is no shard, or its first entries hold no image or cannot be read, which ingest will say.
    """
    shards = objects.filter(pl.col("kind").is_in(("tar", "parquet", "zip")), pl.col("size") > 0).head(1)
    for obj in as_objects(shards):
        try:
            entries = list(islice(read_object(obj, max_file_bytes=params.max_file_bytes), _PEEKED))
            size = sum(size_in(obj, entry) for entry in entries)
            images = sum(entry.data is not None for entry in entries) / max(1, len(entries))
            if images:
                return obj.size / 1e6 / (images * entries_in(obj, len(entries), size))
        except (*UNREADABLE, ObjectChangedError, TransientError):
            pass
    return None


def size_in(obj: SourceObject, entry: Entry) -> int:
    """Bytes of an entry in its shard: in a tar with its header, to the end of a block."""
    header = _TAR_BLOCK if obj.kind == "tar" else 0
    return max(entry.size, 0) + header + (-entry.size % header if header else 0)


def entries_in(obj: SourceObject, taken: int, size: int) -> float:
    """How many entries a shard has, of which the first `taken` have `size` bytes: a table tells, others by bytes."""
    if obj.kind == "parquet":
        with open_object(obj) as stream:
            return int(open_table(stream).metadata.num_rows)
    return taken * obj.size / max(1, size)


def as_objects(rows: pl.DataFrame) -> list[SourceObject]:
    """The rows of a listing."""
    return [SourceObject(*row) for row in rows.select(list(LISTING_SCHEMA)).iter_rows()]
