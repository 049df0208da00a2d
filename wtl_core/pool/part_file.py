"""The three Parquet files of a part: pool, quarantine, ignored. Schemas beside their reader and writer.

Row groups are small (256 images or 16 MiB), so that reading single images is cheap; counts lie in the pool file's
footer, so that a finished part is known without reading rows. The pool file is written last and proves the part.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from wtl_core.workspace.storage import Store

_LOCATION = [
    pa.field("source", pa.string(), nullable=False),
    pa.field("object_uri", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),
    pa.field("ordinal", pa.int64(), nullable=False),
    pa.field("part", pa.string(), nullable=False),
]
POOL_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        *_LOCATION,
        pa.field("row", pa.int32(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("byte_length", pa.int64(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("is_first_of_several", pa.bool_(), nullable=False),
        pa.field("taken_at", pa.string()),
        pa.field("pixel_digest", pa.string(), nullable=False),
        pa.field("phash", pa.uint64(), nullable=False),
        pa.field("sharpness", pa.float32(), nullable=False),
        pa.field("brightness", pa.float32(), nullable=False),
        pa.field("contrast", pa.float32(), nullable=False),
        pa.field("entropy", pa.float32(), nullable=False),
        pa.field("metadata", pa.string()),
        pa.field("thumbnail", pa.binary()),
        pa.field("image", pa.binary()),
    ]
)
HEAVY_COLUMNS = ("thumbnail", "image")
LIGHT_COLUMNS = tuple(name for name in POOL_SCHEMA.names if name not in HEAVY_COLUMNS)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        *_LOCATION,
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("byte_length", pa.int64(), nullable=False),
    ]
)
IGNORED_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        *_LOCATION,
        pa.field("note", pa.string(), nullable=False),
        pa.field("byte_length", pa.int64(), nullable=False),
    ]
)
ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 256, 16 << 20
"""A reader of one image reads its whole row group; smaller ones make the footer of a million images large."""
_COUNTS_KEY = "wtl_counts"
_PLAIN = ("sample_id", "pixel_digest", "image", "thumbnail")
"""Columns that are not compressed: digests and image files do not get smaller."""


@dataclass(frozen=True)
class PartCounts:
    """What a part holds. `read == images + quarantined + ignored`; `reasons` counts the quarantined by reason."""

    digest: str
    read: int
    images: int
    quarantined: int
    ignored: int
    reasons: dict[str, int] = field(default_factory=dict)


def pool_key(digest: str) -> str:
    """Key of a part's pool file."""
    return f"pool/{digest}.parquet"


def quarantine_key(digest: str) -> str:
    """Key of a part's quarantine file; there is none without rows."""
    return f"quarantine/{digest}.parquet"


def ignored_key(digest: str) -> str:
    """Key of a part's file of ignored members; there is none without rows."""
    return f"ignored/{digest}.parquet"


def read_counts(store: Store, digest: str) -> PartCounts | None:
    """Counts of a finished part; None if it is not finished."""
    try:
        with store.reader(pool_key(digest)) as handle:
            metadata = pq.read_metadata(handle).metadata or {}
    except FileNotFoundError:
        return None
    return PartCounts(**json.loads(metadata[_COUNTS_KEY.encode()]))


class RowWriter:
    """Rows gathered into row groups of one Parquet file; the file begins with the first row group."""

    def __init__(self, open_file: "Any", schema: pa.Schema) -> None:
        self._open_file, self._schema = open_file, schema
        self._rows: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self.num_rows = 0

    def append(self, row: tuple[Any, ...], num_bytes: int = 0) -> None:
        """Add a row, values in the schema's order; `num_bytes` is the size of its image and thumbnail."""
        self._rows.append(row)
        self._bytes += num_bytes
        self.num_rows += 1
        if len(self._rows) >= ROW_GROUP_ROWS or self._bytes >= _ROW_GROUP_BYTES:
            self._flush()

    def close(self, metadata: dict[str, str] | None = None) -> None:
        """Write the rows that are left and the footer. Without rows a file is made only if there is `metadata`."""
        if self._rows:
            self._flush()
        if self._writer is None and metadata is not None:
            self._begin()
        if self._writer is not None:
            if metadata:
                self._writer.add_key_value_metadata(metadata)
            self._writer.close()

    def _begin(self) -> pq.ParquetWriter:
        plain = [name for name in _PLAIN if name in self._schema.names]
        compression = {name: "NONE" if name in plain else "ZSTD" for name in self._schema.names}
        self._writer = pq.ParquetWriter(
            self._open_file(),
            self._schema,
            compression=compression,
            use_dictionary=[
                name
                for name in ("source", "object_uri", "part", "format", "reason", "note")
                if name in self._schema.names
            ],
            write_statistics=False,
            store_schema=False,
        )
        return self._writer

    def _flush(self) -> None:
        writer = self._writer or self._begin()
        columns = zip(*self._rows, strict=True)
        arrays = [pa.array(values, kind.type) for values, kind in zip(columns, self._schema, strict=True)]
        writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=ROW_GROUP_ROWS)
        self._rows, self._bytes = [], 0


@dataclass
class PartWriter:
    """The open files of a part that is being made."""

    digest: str
    pool: RowWriter
    quarantine: RowWriter
    ignored: RowWriter
    reasons: dict[str, int] = field(default_factory=dict)

    def counts(self) -> PartCounts:
        """What was written so far."""
        images, quarantined, ignored = self.pool.num_rows, self.quarantine.num_rows, self.ignored.num_rows
        read = images + quarantined + ignored
        return PartCounts(self.digest, read, images, quarantined, ignored, dict(sorted(self.reasons.items())))


@contextmanager
def write_part(store: Store, digest: str) -> Iterator[PartWriter]:
    """Open a part for writing. Its files appear when the block ends, the pool file last; none if the block raises."""
    with ExitStack() as stack:

        def opener(key: str) -> "Any":
            def begin() -> IO[bytes]:
                return stack.enter_context(store.writer(key))

            return begin

        # contexts end in reverse order: the pool file, entered first, is put in place last
        pool_file = stack.enter_context(store.writer(pool_key(digest)))
        part = PartWriter(
            digest,
            RowWriter(lambda: pool_file, POOL_SCHEMA),
            RowWriter(opener(quarantine_key(digest)), QUARANTINE_SCHEMA),
            RowWriter(opener(ignored_key(digest)), IGNORED_SCHEMA),
        )
        yield part
        part.quarantine.close()
        part.ignored.close()
        # a killed run may have left one of these, if its reading refused or ignored something that this one did not
        for rows, key in ((part.quarantine, quarantine_key(digest)), (part.ignored, ignored_key(digest))):
            if not rows.num_rows:
                store.delete(key)
        part.pool.close({_COUNTS_KEY: json.dumps(asdict(part.counts()))})
