"""Labels in tables: CSV, TSV, Parquet, JSON lines, a JSON list of objects or of names.

One rule: a table names its samples by a column that is known by its title, or that the caller names, and so with
classes. Where no column holds classes they are not known.
"""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import polars as pl

from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, classes_of, collect, shown
from wtl_core.labelling.table_files import rearmed
from wtl_core.shards.tables import URI_NAMES

COLUMNS = tuple(dict.fromkeys(("sample_id", "uri", "path", "key", "filename", "image", "file_name", *URI_NAMES)))
"""Titles of columns that name samples, in any case; of several that a row fills the first one counts."""
CLASS_COLUMNS = (
    *("label", "labels", "class", "classes", "class_name", "class_names", "class_label"),
    *("category", "categories", "category_name", "tag", "tags", "choice", "choices"),
)
"""Titles of columns that hold classes, in any case; a table with several of them asks which one does."""
_SEPARATORS = (",", "\t", ";")


def of_text(text: str, reading: Reading, *, separator: str | None) -> LabelRows | None:
    """The labels of CSV or TSV, whose titles say what separates its columns.

    Args:
        text: Without a byte order mark.
        reading: How it is read.
        separator: What the file's ending says; None of an ending that says nothing.

    Returns:
        None of plain text: neither the ending nor the first line says that it is a table.
    """
    wanted = {*COLUMNS, _plain(reading.column or "sample_id")}
    first = text.partition("\n")[0]
    fitting = [mark for mark in _SEPARATORS if mark in first and wanted & set(map(_plain, first.split(mark)))]
    if not fitting and separator is None:
        return None
    mark = separator if separator in fitting or not fitting else fitting[0]
    rows = pl.read_csv(io.BytesIO(text.encode()), infer_schema=False, has_header=False, separator=mark or ",")
    titles = [(cell or "").strip() for cell in rows.row(0)]
    if len(titles) == 1 and reading.column is None and titles[0].lower() not in COLUMNS:
        return of_names(rows.to_series().drop_nulls().to_list(), reading)
    if rows.height > 1 and rows.row(-1)[-1] is None and not text.endswith(("\n", "\r", mark or ",")):
        raise ValueError(f"row {rows.height - 1:,}, the last one, has fewer cells than the titles: the file seems cut")
    titles = [title or f"column {number}" for number, title in enumerate(titles, 1)]
    if len(set(titles)) < len(titles):
        raise LookupError(f"columns of the same title among {shown(titles)}")
    table = rows[1:].rename(dict(zip(rows.columns, titles, strict=True)))
    return _of_table(table, reading, classes=lambda cell: classes_of(_of_cell(cell), reading.separator))


def of_parquet(data: bytes, reading: Reading) -> LabelRows:
    """The labels of a Parquet file, as `of_frame` reads them."""
    return of_frame(pl.read_parquet(io.BytesIO(data)), reading)


def of_frame(frame: pl.DataFrame, reading: Reading) -> LabelRows:
    """The labels of a frame; a list in the column of classes gives an image several.

    Raises:
        LookupError, TypeError: no column names samples, or classes have a type that none has.
    """
    return _of_table(frame, reading, classes=lambda value: classes_of(value, reading.separator))


def of_objects(entries: Sequence[Any], reading: Reading) -> LabelRows:
    """The labels of a list of objects, or of names of which nothing more is known."""
    title = _class_title({str(key) for entry in entries if isinstance(entry, dict) for key in entry}, reading)
    names = [entry if isinstance(entry, str) else str(name_of(entry, reading.column)) for entry in entries]
    if title is None:
        return of_names(names, reading)
    values = [_fields(entry).get(_plain(title)) if isinstance(entry, dict) else None for entry in entries]
    return _labelled(names, [classes_of(value, reading.separator) for value in values], reading)


def name_of(entry: Any, column: str | None = None) -> Any:
    """The value of `column` in any case, or of the first of `COLUMNS` that an object fills.

    Raises:
        LookupError, TypeError: there is none.
    """
    if not isinstance(entry, dict):
        raise TypeError(f"an entry that names no sample, of type {type(entry).__name__}")
    fields = _fields(entry)
    for title in COLUMNS if column is None else [_plain(column)]:
        if fields.get(title) not in (None, ""):
            return fields[title]
    missing = "" if column is None else f"no value of {_plain(column)!r}: "
    raise LookupError(f"{missing}an entry that names no sample, with the keys {shown(list(map(str, entry)))}")


def of_names(names: Iterable[str], reading: Reading) -> LabelRows:
    """Names of labelled samples, blank ones left out; nothing is known of their classes.

    Raises:
        LookupError: images without a label are to count as empty; where nothing holds labels, all of them would.
    """
    if reading.bare_is_empty:
        raise LookupError(
            "no column of classes, without which --empty would make every image empty (--class-column NAME says which "
            "one it is; a column `class` with the word empty says that an image is)"
        )
    kept = [name for name in names if name.strip()]
    return LabelRows(kept, [None] * len(kept))


def _of_table(frame: pl.DataFrame, reading: Reading, *, classes: Callable[[Any], Classes]) -> LabelRows:
    """What each row names, by the first of the known columns that it fills; rows without a value are left out."""
    plain = {_plain(title): title for title, kind in frame.schema.items() if not kind.is_nested() and kind != pl.Binary}
    wanted = [
        plain[title] for title in (COLUMNS if reading.column is None else [_plain(reading.column)]) if title in plain
    ]
    if not wanted:
        what = "that names samples" if reading.column is None else f"{_plain(reading.column)!r}"
        raise LookupError(f"no column {what} among {shown(frame.columns)} (--column NAME says which one does)")
    columns = [pl.col(title).cast(pl.String).replace("", None) for title in wanted]
    title = _class_title([column for column in frame.columns if column not in wanted], reading)
    named = frame.select(
        name=pl.coalesce(columns),
        value=pl.lit(None) if title is None else pl.col(title),
        is_blank=pl.all_horizontal(pl.all().is_null()),
    ).filter(~pl.col("is_blank"))
    names: list[Any] = named["name"].to_list()
    if None in names:
        raise LookupError(f"row {names.index(None) + 1} names none")
    if title is None:
        return of_names(names, reading)
    return _labelled(names, [classes(value) for value in named["value"].to_list()], reading)


def _class_title(titles: Iterable[str], reading: Reading) -> str | None:
    known = {_plain(title): title for title in titles}
    if reading.class_column is not None:
        if _plain(reading.class_column) not in known:
            missing = f"no column {_plain(reading.class_column)!r}"
            raise LookupError(f"{missing} among {shown(list(known.values()))} (--class-column NAME holds the classes)")
        return known[_plain(reading.class_column)]
    found = [known[title] for title in CLASS_COLUMNS if title in known and title != _plain(reading.column or "")]
    if len(found) > 1:
        raise LookupError(f"several columns that may hold classes, {shown(found)} (--class-column NAME says which one)")
    return found[0] if found else None


def _of_cell(cell: Any) -> Any:
    """A cell of CSV: several classes may be JSON, as Label Studio and `wtl` write them; `wtl` disarms formulas."""
    if not isinstance(cell, str):
        return cell
    if cell.startswith(("[{", '{"', '["')):
        try:
            return json.loads(cell)
        except ValueError:
            return cell
    return rearmed(cell)


def _plain(title: str) -> str:
    return title.strip().strip('"').lower()


def _fields(entry: dict[Any, Any]) -> dict[str, Any]:
    return {_plain(str(key)): value for key, value in entry.items()}


def _labelled(names: Sequence[str], classes: Sequence[Classes], reading: Reading) -> LabelRows:
    """The rows that name something; those without a class are not labelled."""
    rows = [(name, given) for name, given in zip(names, classes, strict=True) if name.strip()]
    return collect(rows, bare_is_empty=reading.bare_is_empty)
