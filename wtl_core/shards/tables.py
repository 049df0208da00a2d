"""Entries of a Parquet file: an image struct `{bytes, path}`, a binary column, or a column of URIs.

The other plain columns of a row become its metadata. One whose values cannot be read is left out, and the image stays.
A file with none of the three forms is one ignored entry that names its columns.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from wtl_core.images import kinds
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards.objects import Entry, classify, shown
from wtl_core.shards.samples import MOST_METADATA_BYTES

_IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "picture", "photo", "bytes", "data", "content")
URI_NAMES = ("uri", "url", "path", "file", "file_name", "filename", "image", "image_path", "image_url", "image_uri")
_BATCH_ROWS, _BATCH_BYTES = 128, 64 << 20
"""Read at a time: as many rows as keep Arrow's cost a row small, in bounds where one image has 20 MB."""
_PROBED_ROWS = 8
"""Rows in which an image column is looked for; its first ones may be null."""
_BUFFER_BYTES = 1 << 20
UNREADABLE = (pa.ArrowException, OSError, ValueError, KeyError, IndexError, OverflowError)
"""What Arrow raises for files that are no Parquet, or damaged, and for values that Python has no type for."""


@dataclass(frozen=True)
class ImageColumn:
    """Where a Parquet file keeps its images. `form` is `struct`, `binary` or `uri`."""

    name: str
    form: str


@dataclass(frozen=True)
class UriRow:
    """A row that only names its image, which `reader` then fetches."""

    key: str
    ordinal: int
    uri: str
    metadata: str | None


def read_table(stream: IO[bytes], *, max_file_bytes: int) -> Iterator[Entry | UriRow]:
    """Entries in row order, in pieces of 128 rows or some 64 MB.

    Raises:
        ImageError: BROKEN_SHARD where the file cannot be read, after the rows before.
    """
    try:
        table = open_table(stream)
        column, names = find_column(table), table.schema_arrow.names
        if column is None:
            yield Entry("", 0, -1, 0, note=f"Parquet file without an image column; columns: {', '.join(names)[:200]}")
            return
        others = [field for field in table.schema_arrow if field.name != column.name and _is_plain(field.type)]
        light = [field.name for field in others if names.count(field.name) == 1]
        start, rows = 0, rows_at_a_time(table.metadata)
        for batch in table.iter_batches(batch_size=rows, columns=[column.name, *light]):
            yield from _entries(batch, column, light, start, max_file_bytes)
            start += batch.num_rows
    except UNREADABLE as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(Reason.BROKEN_SHARD, f"Parquet file cannot be read (further): {str(error)[:300]}") from error


def read_targets(stream: IO[bytes], ordinals: Sequence[int]) -> list[str]:
    """What the given rows name, as written there; rows that hold their image, or nothing, are left out.

    Reads no image, and of the column of names only the row groups asked for.

    Raises:
        One of UNREADABLE: the file cannot be read.
    """
    table = open_table(stream)
    column = find_column(table)
    if column is None or column.form == "binary":
        return []
    found: list[str | None] = []
    start = 0
    for number in range(table.num_row_groups):
        end = start + table.metadata.row_group(number).num_rows
        inside = [row - start for row in ordinals if start <= row < end]
        if inside:
            leaf = column.name if column.form == "uri" else f"{column.name}.path"
            values = table.read_row_group(number, columns=[leaf])[column.name].take(inside).combine_chunks()
            found += _values(values) if column.form == "uri" else _paths(values)
        start = end
    return [name for name in found if name]


def open_table(stream: IO[bytes]) -> pq.ParquetFile:
    """The file's footer read. Raises one of UNREADABLE."""
    return pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)


def rows_at_a_time(metadata: pq.FileMetaData) -> int:
    """Rows that a piece has, by the row groups' own figures: images of 20 MB come a few at a time."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    row_bytes = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1, row_bytes)))


def find_column(table: pq.ParquetFile) -> ImageColumn | None:
    """The image column, or None if there is none.

    Bytes that begin like an image decide; then the order is: structs, binaries of a known name, URIs, other binaries.
    Within each, known names come before others. Rows are read only where there is a choice.
    """
    schema = table.schema_arrow
    found = [(0, ImageColumn(f.name, "struct")) for f in schema if pa.types.is_struct(f.type) and _has_bytes(f.type)]
    binaries = [ImageColumn(field.name, "binary") for field in schema if _is_binary(field.type)]
    found += [(1 if column.name.lower() in _IMAGE_NAMES else 3, column) for column in binaries]
    found += [(2, ImageColumn(f.name, "uri")) for f in schema if _is_text(f.type) and f.name.lower() in URI_NAMES]
    images = _columns_of_images(table, [column for _, column in found]) if len(found) > 1 else set()

    def place(ranked: tuple[int, ImageColumn]) -> tuple[bool, int, int]:
        rank, column = ranked
        known, name = URI_NAMES if column.form == "uri" else _IMAGE_NAMES, column.name.lower()
        return column.name not in images, rank, known.index(name) if name in known else len(known)

    return min(found, key=place)[1] if found else None


def _columns_of_images(table: pq.ParquetFile, columns: list[ImageColumn]) -> set[str]:
    """Names of the columns with bytes that begin like an image in one of the first rows."""
    blobs = [column.name for column in columns if column.form != "uri"]
    batch = next(table.iter_batches(batch_size=_PROBED_ROWS, columns=blobs), None) if blobs else None
    if batch is None:
        return set()
    return {name for name in blobs if any(map(_is_image, _blobs(batch.column(name)).to_pylist()))}


def _is_image(data: bytes | None) -> bool:
    return kinds.sniff_image((data or b"")[: kinds.HEAD_BYTES]) is not None


def _entries(
    batch: pa.RecordBatch, column: ImageColumn, light: list[str], start: int, limit: int
) -> Iterator[Entry | UriRow]:
    values = batch.column(column.name)
    metadata = _metadata(batch, light)
    if column.form == "uri":
        for row, uri in enumerate(_values(values)):
            if uri:
                yield UriRow(str(start + row), start + row, uri, metadata[row])
            else:
                yield Entry(str(start + row), start + row, -1, 0, reason=Reason.EMPTY, note="row without a URI")
        return
    paths = _paths(values) if column.form == "struct" else [None] * len(values)
    for row, data in enumerate(_blobs(values).to_pylist()):
        ordinal, path = start + row, paths[row]
        if data is None and path:
            yield UriRow(path, ordinal, path, metadata[row])
            continue
        entry = Entry(path or str(ordinal), ordinal, -1, len(data or b""))
        yield _entry(entry, data or b"", metadata[row], limit)


def _entry(entry: Entry, data: bytes, metadata: str | None, limit: int) -> Entry:
    """Every row of an image column claims to be an image."""
    if not data:
        entry.reason, entry.note = Reason.EMPTY, "row without image bytes"
    elif len(data) > limit:
        entry.reason, entry.note = Reason.TOO_LARGE, f"{len(data)} bytes, {limit} allowed"
    elif classify(entry, "row.jpg", data[: kinds.HEAD_BYTES]):
        entry.data, entry.metadata = data, metadata
    return entry


def _metadata(batch: pa.RecordBatch, light: list[str]) -> list[str | None]:
    if not light:
        return [None] * batch.num_rows
    columns = [_values(batch.column(name)) for name in light]
    rows = [{k: v for k, v in zip(light, row, strict=True) if v is not None} for row in zip(*columns, strict=True)]
    texts = [json.dumps(row, default=str) for row in rows]
    return [text if len(text) <= MOST_METADATA_BYTES else None for text in texts]


def _blobs(values: pa.Array) -> pa.Array:
    """The bytes of a struct column; a binary column is its own."""
    return _decoded(pc.struct_field(values, "bytes") if pa.types.is_struct(values.type) else values)


def _decoded(values: pa.Array) -> pa.Array:
    """A column without its dictionary, as pandas' and polars' categories have one."""
    return values.dictionary_decode() if pa.types.is_dictionary(values.type) else values


def _paths(values: pa.StructArray) -> list[str | None]:
    """The paths of a struct column, None where it has no such field."""
    kinds_by_name = {field.name: field.type for field in values.type}
    if "path" not in kinds_by_name or not _is_text(kinds_by_name["path"]):
        return [None] * len(values)
    return _values(pc.struct_field(values, "path"))


def _values(values: pa.Array) -> list[Any]:
    """Python's values of a column; where one has none, each by itself, so that it is the same in any batch."""
    values = _decoded(values)
    if _microseconds(values.type) is not None:
        return [_value(value) for value in values]
    try:
        return list(values.to_pylist())
    except UNREADABLE:
        return [_value(value) for value in values]


def _value(value: pa.Scalar) -> Any:
    """A value, or Arrow's text of it: Python has no nanoseconds, no year 10,000, and text in UTF-8 alone."""
    kind = _microseconds(value.type)
    try:
        return value.as_py() if kind is None else value.cast(kind).as_py()
    except UNREADABLE:
        if _is_text(value.type):
            return shown(value.as_buffer().to_pybytes())
    try:
        return value.cast(pa.string()).as_py()
    except UNREADABLE:
        return None  # a time zone that is not known here


def _microseconds(kind: pa.DataType) -> pa.DataType | None:
    """The type in microseconds of one in nanoseconds, else None: where pandas is, Arrow gives its values of these."""
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    return pa.time64("us") if pa.types.is_time64(kind) and kind.unit == "ns" else None


def _has_bytes(kind: pa.StructType) -> bool:
    return any(field.name == "bytes" and _is_binary(field.type) for field in kind)


def _is_binary(kind: pa.DataType) -> bool:
    kind = _undictionaried(kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    kind = _undictionaried(kind)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _undictionaried(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_plain(kind: pa.DataType) -> bool:
    kind = _undictionaried(kind)
    return bool(
        _is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_temporal(kind)
    )
