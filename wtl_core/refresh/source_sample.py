"""What a sample of a source tells of all of it: how many images there are, and what reading and embedding one takes."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl

from wtl_core.embedding import embedder
from wtl_core.encoders.encoder import Encoder
from wtl_core.pool.part_file import PartWriter, pool_key, write_part
from wtl_core.pool.part_rows import RowMaker
from wtl_core.recipe.ingest import IngestParams
from wtl_core.refresh.shard_sizes import as_objects, entries_in, size_in
from wtl_core.shards.objects import Entry, SourceObject
from wtl_core.shards.paths import is_s3
from wtl_core.shards.reader import read_object
from wtl_core.workspace.storage import Store

_IMAGES, _SHARDS, _SECONDS = 400, 12, 15.0
"""Images and shards that are opened at most, and when to stop: a decision needs the order of magnitude at once."""
_HELD_BYTES = 128 << 20
"""Bytes of image files that are kept for embedding: what an embedding reads ahead too."""
_PART = "0" * 64
_PLACE = ("object_uri", "key", "ordinal")


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
        files: The first of the images' files, up to 128 MiB of them and one more.
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

    The first images of a shard stand for all of it. Stops after some 15 s, with the image that it is at; where shards
    have used them up, loose objects are taken to be images.
    """
    shards, loose = (objects.filter((pl.col("kind") == "loose") == is_loose) for is_loose in (False, True))
    drawn = _drawn(shards, _SHARDS)
    each = -(-_IMAGES // max(1, len(drawn)))
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        with write_part(store, _PART) as part, RowMaker(part, params, 1) as rows:
            reading = _Reading(part, rows, params.max_file_bytes)
            for obj in [*drawn, *_drawn(loose, _IMAGES)]:
                if reading.opened and reading.is_over():
                    break
                reading.read(obj, each)
            rows.finish()
            counts = part.counts()
        seconds = reading.seconds_per_image(is_remote=any(is_s3(uri) for uri in objects["uri"].head(1)))
        pool = store.read_frame(pool_key(_PART), columns=[*_PLACE, "byte_length", "width", "height"])
        stored_bytes = Path(store.path(pool_key(_PART))).stat().st_size
    if params.store == "bytes":
        stored_bytes -= int(pool["byte_length"].sum())
    opened_loose = reading.opened - reading.opened_shards
    kept_loose = pool["object_uri"].is_in(loose["uri"].implode()).sum() / opened_loose if opened_loose else 1.0
    in_shards = reading.images_in_shards * float(shards["size"].clip(0).sum()) / max(1, reading.shard_bytes)
    return Sample(
        opened=reading.opened,
        decoded=counts.images,
        refused=counts.quarantined,
        images=round(in_shards) + round(loose.height * kept_loose),
        megabytes=float(objects["size"].clip(0).sum()) / 1e6,
        seconds_per_image=seconds,
        stored_bytes_per_image=max(0, stored_bytes) / max(1, counts.images),
        sides_px=pool.select(pl.min_horizontal("width", "height")).to_series().to_numpy(),
        files=[reading.files[place] for place in pool.select(_PLACE).iter_rows() if place in reading.files],
    )


class _Reading:
    """Objects whose first entries are ingested until the time is up.

    Attributes:
        opened: Objects that were opened, and of these `opened_shards` shards of `shard_bytes`.
        images_in_shards: Images that the opened shards hold, by their first ones.
        files: Entries with an image's bytes, by `_PLACE`, until there are enough.
    """

    def __init__(self, part: PartWriter, rows: RowMaker, max_file_bytes: int) -> None:
        self._part, self._rows, self._max_file_bytes = part, rows, max_file_bytes
        self._start = self._clock = _Clock()
        self._before_clock = self._held_bytes = 0
        self.opened = self.opened_shards = self.shard_bytes = 0
        self.images_in_shards = 0.0
        self.files: dict[tuple[str, str, int], bytes] = {}

    def is_over(self) -> bool:
        """Whether the time is up."""
        return self._start.seconds() > _SECONDS

    def read(self, obj: SourceObject, most: int) -> None:
        """Ingest up to `most` entries of an object, one at least."""
        before, taken, size, is_whole = self._part.pool.num_rows, 0, 0, True
        for entry in read_object(obj, max_file_bytes=self._max_file_bytes):
            if taken == most or (taken and self.is_over()):
                is_whole = False
                break
            self._add(obj, entry)
            taken, size = taken + 1, size + size_in(obj, entry)
        self.opened += 1
        if obj.kind != "loose":
            self._rows.finish()
            share = (self._part.pool.num_rows - before) / max(1, taken)
            self.images_in_shards += share * (taken if is_whole else entries_in(obj, taken, size))
            self.shard_bytes += max(obj.size, 0)
            self.opened_shards += 1

    def _add(self, obj: SourceObject, entry: Entry) -> None:
        if entry.data is not None and self._held_bytes < _HELD_BYTES:
            self.files[obj.uri, entry.key, entry.ordinal] = entry.data
            self._held_bytes += len(entry.data)
        self._rows.add(obj, entry)
        if not self._before_clock:  # until the first image is written, libraries are loaded
            self._rows.finish()
            self._clock, self._before_clock = _Clock(), self._part.pool.num_rows

    def seconds_per_image(self, *, is_remote: bool) -> float:
        """Of one core, for the images after the first, or for the first if it is the only one.

        Other programs take no processor time of this one; but what waits for a bucket takes none either.
        """
        later = self._part.pool.num_rows - self._before_clock
        clock = self._clock if later else self._start
        return (clock.seconds() if is_remote else clock.cpu_seconds()) / max(1, later)


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
    return as_objects(chosen)
