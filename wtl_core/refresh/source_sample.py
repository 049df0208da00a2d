"""What a sample of a source tells of all of it: how many images there are, and what reading and embedding one takes."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
import polars as pl

from wtl_core.embedding import embedder
from wtl_core.encoders.encoder import Encoder
from wtl_core.pool.part_file import pool_key, write_part
from wtl_core.pool.part_rows import RowMaker
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards.discover import LISTING_SCHEMA
from wtl_core.shards.objects import Entry, SourceObject
from wtl_core.shards.paths import is_s3
from wtl_core.shards.reader import open_object, read_object
from wtl_core.shards.tables import open_table
from wtl_core.workspace.storage import Store

_IMAGES, _SHARDS, _SECONDS = 400, 12, 15.0
"""Images and shards that are opened at most, and when to stop: a decision needs the order of magnitude at once."""
_TAR_BLOCK = 512
"""Bytes of a member's header in a tar; its data is padded to whole ones."""
_PART = "0" * 64


class _Clock:
    """Seconds since it was made: of the wall, and of the processor for this process."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        return time.perf_counter() - self._begun[0]

    def cpu_seconds(self) -> float:
        return time.process_time() - self._begun[1]


@dataclass(frozen=True)
class Sample:
    """What was found.

    Attributes:
        opened: Objects that were opened.
        decoded: Images among their entries that ingest keeps.
        refused: Entries that claim to be images and that it refuses.
        images: Estimate of the source's images.
        megabytes: Of all its objects.
        seconds_per_image: Of one core at ingest.
        stored_bytes_per_image: What the pool keeps of an image beside its file.
        sides_px: (decoded,) shorter side of each image.
        files: Bytes of some of the images.
    """

    opened: int
    decoded: int
    refused: int
    images: int
    megabytes: float
    seconds_per_image: float
    stored_bytes_per_image: float
    sides_px: np.ndarray
    files: Sequence[bytes]


def draw(objects: pl.DataFrame, params: IngestParams) -> Sample:
    """Open some objects of a listing, drawn by their names, and ingest their first images into a passing folder.

    The first images of a shard stand for all of it. Stops after some 15 s, but ends the image that it is at.
    """
    shards, loose = (objects.filter((pl.col("kind") == "loose") == is_loose) for is_loose in (False, True))
    drawn = _drawn(shards, _SHARDS)
    each = -(-_IMAGES // max(1, len(drawn)))
    start, first = _Clock(), 0
    in_shards, shard_bytes, opened = 0.0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        with write_part(store, _PART) as part, RowMaker(part, params, 1) as rows:
            clock = start
            for number, obj in enumerate([*drawn, *_drawn(loose, _IMAGES)]):
                if number and start.seconds() > _SECONDS:
                    break
                before = part.counts().images
                taken = list(islice(read_object(obj, max_file_bytes=params.max_file_bytes), each + 1))
                for entry in taken[:each]:
                    rows.add(obj, entry)
                opened += 1
                if obj.kind != "loose" or not number:
                    rows.finish()
                if obj.kind != "loose":
                    share = (part.counts().images - before) / max(1, len(taken[:each]))
                    in_shards += share * (len(taken) if len(taken) <= each else _entries_in(obj, taken[:each]))
                    shard_bytes += max(obj.size, 0)
                if not number:  # before this, libraries are loaded
                    clock, first = _Clock(), part.counts().images
            rows.finish()
            counts = part.counts()
        # other programs take no processor time of this one; what waits for a bucket takes none either
        spent = clock.seconds() if any(is_s3(uri) for uri in objects["uri"].head(1)) else clock.cpu_seconds()
        pool = store.read_frame(pool_key(_PART), columns=["object_uri", "width", "height", "image"])
        size = Path(store.path(pool_key(_PART))).stat().st_size
    kept_loose = pool["object_uri"].is_in(loose["uri"].implode()).sum()
    opened_loose = opened - len(drawn)
    files = pool["image"].drop_nulls().to_list()
    return Sample(
        opened=opened,
        decoded=counts.images,
        refused=counts.quarantined,
        images=round(in_shards * float(shards["size"].clip(0).sum()) / max(1, shard_bytes))
        + round(loose.height * kept_loose / max(1, opened_loose)),
        megabytes=float(objects["size"].clip(0).sum()) / 1e6,
        seconds_per_image=spent / max(1, counts.images - first),
        stored_bytes_per_image=max(0, size - sum(map(len, files))) / max(1, counts.images),
        sides_px=pool.select(pl.min_horizontal("width", "height")).to_series().to_numpy(),
        files=files,
    )


def _entries_in(obj: SourceObject, taken: Sequence[Entry]) -> float:
    """How many entries a shard has, of which the first are `taken`: told by a table, estimated by bytes for others."""
    if obj.kind == "parquet":
        with open_object(obj) as stream:
            return int(open_table(stream).metadata.num_rows)
    header = _TAR_BLOCK if obj.kind == "tar" else 0  # then the data, to the end of a block
    sizes = [max(entry.size, 0) + header + (-entry.size % header if header else 0) for entry in taken]
    return len(taken) * obj.size / max(1, sum(sizes))


def images_per_second(encoder: Encoder, files: Sequence[bytes], *, workers: int) -> float:
    """Image files that one core decodes and embeds in a second, or what a GPU and the cores do together.

    Of a second pass over the files: the first one compiles the network and fills caches.
    """
    images = [(str(number), data) for number, data in enumerate(files)]
    for _ in range(2):
        clock = _Clock()
        done = sum(len(piece.ids) for piece in embedder.embed(encoder, images, workers=workers))
        spent = clock.cpu_seconds() if encoder.device.type == "cpu" else clock.seconds()
    return done / spent


def _drawn(objects: pl.DataFrame, most: int) -> list[SourceObject]:
    """At most so many objects, by a draw that depends on their names alone."""
    keys = [sha256(uri.encode("utf-8", "surrogateescape")).hexdigest() for uri in objects["uri"]]
    chosen = objects.with_columns(pl.Series("draw", keys, pl.String)).sort("draw").head(most)
    return [SourceObject(*row) for row in chosen.select(list(LISTING_SCHEMA)).iter_rows()]
