"""A list of URIs as a source: `.txt` (one a line), `.csv`, `.jsonl` or `.parquet` (a column uri, url, path, ...)."""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from wtl_core.errors import InputError
from wtl_core.shards import bucket, folder, paths, tables
from wtl_core.shards.objects import SourceObject

LIST_SUFFIXES = (".txt", ".csv", ".jsonl", ".ndjson")
_PARQUET_SUFFIXES = (".parquet", ".pq")
_DELIMITERS = ",;\t"
_THREADS = 32
"""Requests or looks at files at a time; each waits for its answer most of the time."""


def may_be_list(name: str) -> bool:
    """Whether a source of this name can be a list; whether a Parquet file is one depends on its columns."""
    return name.lower().endswith((*LIST_SUFFIXES, *_PARQUET_SUFFIXES))


def describe(source: str, uris: list[str]) -> Iterator[SourceObject]:
    """The objects that a list names, each once, with size and time; what is not there has size -1.

    Raises:
        ConfigError: a URI that cannot be read from here.
    """
    base = source.rsplit("/", 1)[0]
    resolved = dict.fromkeys(paths.resolve(uri, base) for uri in uris)

    def look(uri: str) -> SourceObject:
        if paths.is_s3(uri):
            return bucket.describe_uri(source, uri)
        return folder.describe_uri(source, uri)

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="head") as pool:
        yield from pool.map(look, resolved)


def read_uris(name: str, stream: IO[bytes]) -> list[str] | None:
    """The URIs of a list, in order; None for a Parquet file that holds images itself, or none at all.

    Raises:
        InputError: the list cannot be read, or has no column of URIs.
    """
    lowered = name.lower()
    try:
        if lowered.endswith(_PARQUET_SUFFIXES):
            return _from_parquet(stream)
        text = stream.read().decode("utf-8-sig")
        if lowered.endswith(".txt"):
            return [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("#")]
        if lowered.endswith(".csv"):
            return _from_csv(name, text)
        # not by splitlines: JSON may hold U+2028 and its like as they are
        return [_from_json(name, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    except (*tables.UNREADABLE, csv.Error) as error:
        raise InputError(
            f"{name}: expected a list of URIs, found a file that cannot be read: {error}; mend it"
        ) from error


def _from_parquet(stream: IO[bytes]) -> list[str] | None:
    try:
        table = tables.open_table(stream)
        column = tables.find_column(table)
    except tables.UNREADABLE:
        return None
    if column is None or column.form != "uri":
        return None
    return [value for value in table.read(columns=[column.name])[column.name].to_pylist() if value]


def _from_csv(name: str, text: str) -> list[str]:
    for delimiter in _DELIMITERS:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
        header = [cell.strip().lower() for cell in rows[0]] if rows else []
        known = [header.index(column) for column in tables.URI_NAMES if column in header]
        if known:
            return [row[known[0]].strip() for row in rows[1:] if len(row) > known[0] and row[known[0]].strip()]
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if rows and len(rows[0]) == 1:
        return [row[0].strip() for row in rows]
    found = ", ".join(cell.strip() for cell in rows[0])[:200] if rows else "nothing"
    raise InputError(f"{name}: expected a column named uri, url or path, found {found}; rename one")


def _from_json(name: str, number: int, line: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}, line {number}: expected JSON, found a mistake: {error}; mend it") from error
    found = value if isinstance(value, str) else None
    if isinstance(value, dict):
        found = next((value[column] for column in tables.URI_NAMES if isinstance(value.get(column), str)), None)
    if not found:
        raise InputError(f'{name}, line {number}: expected a string or an object with "uri", found {line[:80]!r}')
    return found
