"""A list of URIs as a source: `.txt` (one a line), `.csv`, `.jsonl` or `.parquet` (a column named uri, url, path, ...)."""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow.parquet as pq

from wtl_core.errors import InputError
from wtl_core.shards import bucket, folder, paths, tables
from wtl_core.shards.objects import SourceObject

LIST_SUFFIXES = (".txt", ".csv", ".jsonl", ".ndjson")
_THREADS = 32


def is_list(uri: str, data: bytes) -> bool:
    """Whether a file given as the source is a list: by suffix, or a Parquet file with URIs and no images."""
    if uri.lower().endswith(LIST_SUFFIXES):
        return True
    if not uri.lower().endswith((".parquet", ".pq")):
        return False
    try:
        column = tables.find_column(pq.ParquetFile(io.BytesIO(data)).schema_arrow)
    except (OSError, ValueError):
        return False
    return column is not None and column.form == "uri"


def describe(source: str, data: bytes, *, endpoint_url: str | None = None) -> Iterator[SourceObject]:
    """The objects that a list names, each once, with size and time; what is not there has size -1."""
    base = source.rsplit("/", 1)[0]
    uris = dict.fromkeys(paths.resolve(uri, base) for uri in read_uris(source, data))

    def look(uri: str) -> SourceObject:
        if paths.is_s3(uri):
            return bucket.describe_uri(source, uri, endpoint_url=endpoint_url)
        return folder.describe_uri(source, uri)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="head") as pool:
        yield from pool.map(look, uris)


def read_uris(name: str, data: bytes) -> list[str]:
    """The URIs of a list, in order.

    Raises:
        InputError: the list cannot be read, or has no column of URIs.
    """
    lowered = name.lower()
    try:
        if lowered.endswith((".parquet", ".pq")):
            column = tables.find_column(pq.ParquetFile(io.BytesIO(data)).schema_arrow)
            assert column is not None
            values = pq.read_table(io.BytesIO(data), columns=[column.name])[column.name].to_pylist()
            return [value for value in values if value]
        text = data.decode("utf-8-sig")
        if lowered.endswith(".txt"):
            return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if lowered.endswith(".csv"):
            return _from_csv(name, text)
        return [_from_json(name, number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise InputError(
            f"{name}: expected a list of URIs, found a file that cannot be read: {error}; mend it"
        ) from error


def _from_csv(name: str, text: str) -> list[str]:
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    known = [header.index(column) for column in tables.URI_NAMES if column in header]
    if not known:
        if header and len(header) == 1:
            return [row[0].strip() for row in rows]
        raise InputError(
            f"{name}: expected a column named uri, url or path, found {', '.join(header)[:200]}; rename one"
        )
    return [row[known[0]].strip() for row in rows[1:] if len(row) > known[0] and row[known[0]].strip()]


def _from_json(name: str, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{name}, line {number}: expected JSON, found a mistake: {error}; mend it") from error
    found = value if isinstance(value, str) else None
    if isinstance(value, dict):
        found = next((value[column] for column in tables.URI_NAMES if isinstance(value.get(column), str)), None)
    if not found:
        raise InputError(f'{name}, line {number}: expected a string or an object with "uri", found {line[:80]!r}')
    return found
