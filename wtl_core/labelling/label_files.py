"""Files that say which samples are labelled, and the names in them. Looks into no workspace.

One rule: a table names its samples by a column that is known by its title, or that the caller names; plain text has one
name a line.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.shards.tables import URI_NAMES

COLUMNS = tuple(dict.fromkeys(("sample_id", "uri", "path", "key", "filename", "image", "file_name", *URI_NAMES)))
"""Titles of columns that name samples, in any case; of several that a row fills the first one counts."""
_FORMS = (
    "a table (CSV, TSV, Parquet, JSON lines, a JSON list of objects) with a column such as sample_id, path or filename "
    "or one that --column names; a JSON list of names; COCO's JSON; or plain text with one name a line"
)
_SHOWN, _SHOWN_CHARACTERS = 3, 60
_REASON_CHARACTERS = 200


def read_names(file: Path, column: str | None = None) -> list[str]:
    """The names in a file as they stand there, blank ones left out, in the file's order; they may repeat.

    Of COCO's JSON these are the images that have an annotation. A CSV or TSV of one column without a known title is
    plain text.

    Args:
        file: Its ending says the form: .csv, .tsv, .parquet, .jsonl or .ndjson, .json; every other is plain text.
        column: The title of the column that names samples, where it is none of `COLUMNS`.

    Raises:
        ConfigError: no such file, or one that cannot be read as its ending says; its content is not printed.
    """
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: expected a file of names: {error.strerror}; check the path") from error
    try:
        names = _names(data, file.suffix.lower(), None if column is None else column.strip().lower())
    except (ValueError, TypeError, LookupError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0][:_REASON_CHARACTERS]
        raise ConfigError(f"{file}: {reason}; expected {_FORMS}; check the file") from error
    return [name for name in map(str, names) if name.strip()]


def shown(names: Sequence[str]) -> str:
    """The first few names for a message, long ones cut."""
    cut = [name if len(name) <= _SHOWN_CHARACTERS else f"{name[: _SHOWN_CHARACTERS - 3]}..." for name in names[:_SHOWN]]
    return ", ".join(map(repr, cut)) + (", ..." if len(names) > _SHOWN else "")


def _names(data: bytes, ending: str, column: str | None) -> list[Any]:
    if data[:4] == b"PAR1":
        return _of_table(pl.read_parquet(io.BytesIO(data)), column)
    if ending in (".csv", ".tsv"):
        rows = pl.read_csv(
            io.BytesIO(data), infer_schema=False, has_header=False, separator="," if ending == ".csv" else "\t"
        )
        return _of_rows(rows, column)
    if ending == ".json":
        return _of_json(
            json.loads(data), column
        )  # as bytes: it may be UTF-16 or UTF-32, such as PowerShell's `>` writes
    text = data.decode("utf-8-sig")
    if ending in (".jsonl", ".ndjson"):
        return _of_list([json.loads(line) for line in text.split("\n") if line.strip()], column)
    if text.lstrip().startswith("<"):
        raise ValueError("XML or HTML, a form that is not read")
    if column is not None:
        raise LookupError("plain text, which has no columns")
    return text.splitlines()


def _of_rows(rows: pl.DataFrame, column: str | None) -> list[Any]:
    """The names in rows of text whose first one holds the titles."""
    titles = [(cell or "").strip() for cell in rows.row(0)]
    if len(titles) == 1 and column is None and titles[0].lower() not in COLUMNS:
        return rows.to_series().drop_nulls().to_list()
    titles = [title or f"column {number}" for number, title in enumerate(titles, 1)]
    if len(set(titles)) < len(titles):
        raise LookupError(f"columns of the same title among {shown(titles)}")
    return _of_table(rows[1:].rename(dict(zip(rows.columns, titles, strict=True))), column)


def _of_table(frame: pl.DataFrame, column: str | None) -> list[Any]:
    """What each row names, by the first of the known columns that it fills; rows without a value are left out."""
    titles = {
        title.strip().lower(): title
        for title, kind in frame.schema.items()
        if not kind.is_nested() and kind != pl.Binary
    }
    wanted = [titles[title] for title in (COLUMNS if column is None else [column]) if title in titles]
    if not wanted:
        what = "that names samples" if column is None else f"{column!r}"
        raise LookupError(f"no column {what} among {shown(frame.columns)} (--column NAME says which one does)")
    columns = [pl.col(title).cast(pl.String).replace("", None) for title in wanted]
    named = frame.select(name=pl.coalesce(columns), is_blank=pl.all_horizontal(pl.all().is_null()))
    names: list[Any] = named.filter(~pl.col("is_blank"))["name"].to_list()
    if None in names:
        raise LookupError(f"row {names.index(None) + 1} names none")
    return names


def _of_json(data: Any, column: str | None) -> list[Any]:
    """The names in a list, or in COCO's object, whose images without an annotation are not labelled."""
    if isinstance(data, dict) and {"images", "annotations"} <= data.keys():
        annotated = {annotation["image_id"] for annotation in data["annotations"]}
        if unknown := annotated.difference(image["id"] for image in data["images"]):
            raise ValueError(f"an annotation of image {min(unknown, key=str)!r:.60}, which is not among the images")
        return [_of_entry(image, column or "file_name") for image in data["images"] if image["id"] in annotated]
    if not isinstance(data, list):
        keys = f" with {shown(list(data))}" if isinstance(data, dict) else ""
        raise TypeError(f"JSON that is neither a list nor COCO's object, but of type {type(data).__name__}{keys}")
    return _of_list(data, column)


def _of_list(entries: Sequence[Any], column: str | None) -> list[Any]:
    return [entry if isinstance(entry, str) else _of_entry(entry, column) for entry in entries]


def _of_entry(entry: Any, column: str | None) -> Any:
    if not isinstance(entry, dict):
        raise TypeError(f"an entry that names no sample, of type {type(entry).__name__}")
    fields = {str(key).strip().lower(): value for key, value in entry.items()}
    for title in COLUMNS if column is None else [column]:
        if fields.get(title) not in (None, ""):
            return fields[title]
    missing = "" if column is None else f"no value of {column!r}: "
    raise LookupError(f"{missing}an entry that names no sample, with the keys {shown(list(map(str, entry)))}")
