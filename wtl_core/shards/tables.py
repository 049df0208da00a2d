"""Entries of a Parquet file: an image struct `{bytes, path}`, a binary column, or a column of URIs.

The other plain columns of a row become its metadata. A file with none of the three is one ignored entry, named.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wtl_core.images import kinds
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards.objects import Entry, judge
from wtl_core.shards.samples import MOST_METADATA_BYTES

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "picture", "photo", "bytes", "data", "content")
URI_NAMES = ("uri", "url", "path", "file", "file_name", "filename", "image", "image_path", "image_url", "image_uri")
_BATCH_ROWS = 128
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class ImageColumn:
    """Where a Parquet file keeps its images. `form` is `struct`, `binary` or `uri`."""

    name: str
    form: str


@dataclass(frozen=True)
class UriRow:
    """A row that only names its image: the reader of objects fetches it."""

    key: str
    ordinal: int
    uri: str
    metadata: str | None


def read_table(stream: IO[bytes], *, max_file_bytes: int) -> Iterator[Entry | UriRow]:
    """Entries in row order, in pieces of 128 rows.

    Raises:
        ImageError: BROKEN_SHARD where the file cannot be read, after the rows before.
    """
    try:
        table = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        column = find_column(table.schema_arrow)
        if column is None:
            names = ", ".join(table.schema_arrow.names)[:200]
            yield Entry("", 0, -1, 0, note=f"Parquet file without an image column; columns: {names}")
            return
        light = [field.name for field in table.schema_arrow if field.name != column.name and _is_plain(field.type)]
        start = 0
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[column.name, *light]):
            yield from _entries(batch, column, light, start, max_file_bytes)
            start += batch.num_rows
    except (pa.ArrowException, OSError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(Reason.BROKEN_SHARD, f"Parquet file cannot be read (further): {str(error)[:300]}") from error


def find_column(schema: pa.Schema) -> ImageColumn | None:
    """The image column of a schema, or None. Structs win over binaries, those over URIs; known names over others."""
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and _has_bytes(f.type)]
    binaries = [f.name for f in schema if _is_binary(f.type)]
    uris = [f.name for f in schema if _is_text(f.type) and f.name.lower() in URI_NAMES]
    for names, form, known in (
        (structs, "struct", _IMAGE_NAMES),
        (binaries, "binary", _IMAGE_NAMES),
        (uris, "uri", URI_NAMES),
    ):
        if names:
            order = {name: position for position, name in enumerate(known)}
            return ImageColumn(min(names, key=lambda n: (order.get(n.lower(), len(order)), names.index(n))), form)
    return None


def _entries(
    batch: pa.RecordBatch, column: ImageColumn, light: list[str], start: int, limit: int
) -> Iterator[Entry | UriRow]:
    values = batch.column(column.name)
    metadata = _metadata(batch, light)
    if column.form == "uri":
        for row, uri in enumerate(values.to_pylist()):
            if uri:
                yield UriRow(str(start + row), start + row, uri, metadata[row])
            else:
                yield Entry(str(start + row), start + row, -1, 0, reason=Reason.EMPTY, note="row without a URI")
        return
    paths: list[Any] = [None] * len(values)
    if column.form == "struct":
        names = [field.name for field in values.type]
        if "path" in names and _is_text(values.type.field("path").type):
            paths = pc.struct_field(values, "path").to_pylist() if len(values) else paths
        values = pc.struct_field(values, "bytes")
    for row, data in enumerate(values.to_pylist()):
        ordinal = start + row
        if data is None and paths[row]:
            yield UriRow(paths[row], ordinal, paths[row], metadata[row])
            continue
        yield _entry(
            Entry(paths[row] or str(ordinal), ordinal, -1, len(data or b"")), data or b"", metadata[row], limit
        )


def _entry(entry: Entry, data: bytes, metadata: str | None, limit: int) -> Entry:
    """Every row of an image column claims to be an image."""
    if not data:
        entry.reason, entry.note = Reason.EMPTY, "row without image bytes"
    elif len(data) > limit:
        entry.reason, entry.note = Reason.TOO_LARGE, f"{len(data)} bytes, {limit} allowed"
    elif judge(entry, "row.jpg", data[: kinds.HEAD_BYTES]):
        entry.data, entry.metadata = data, metadata
    return entry


def _metadata(batch: pa.RecordBatch, light: list[str]) -> list[str | None]:
    if not light:
        return [None] * batch.num_rows
    rows = batch.select(light).to_pylist()
    texts = [json.dumps({k: v for k, v in row.items() if v is not None}, default=str) for row in rows]
    return [text if len(text) <= MOST_METADATA_BYTES else None for text in texts]


def _has_bytes(kind: pa.StructType) -> bool:
    return any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_plain(kind: pa.DataType) -> bool:
    return bool(
        _is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
    )
