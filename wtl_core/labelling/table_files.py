"""Tables as files for a person or a tool: CSV, TSV, JSON, JSON lines or Parquet, by the ending of the name."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.workspace import storage
from wtl_core.workspace.storage import Store

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
"""Of files that a table can be written to."""
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How text begins that a spreadsheet would run, or that reads like such text with an apostrophe in front already."""


def check_output(file: Path) -> None:
    """Refuse a file that a table cannot be written to, before anything else is done. Raises ConfigError."""
    if file.suffix.lower() not in ENDINGS:
        found = file.suffix or "none"
        raise ConfigError(f"{file}: expected an ending out of {', '.join(ENDINGS)}, found {found}; name another file")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file}: expected a folder to write into, found none; make it, or name another file")


def write(table: pl.DataFrame, file: Path) -> None:
    """Write a table in the form that the file's ending says, seen whole or not at all.

    Raises:
        ConfigError: the file cannot be written, or its ending is none of `ENDINGS`.
    """
    check_output(file)
    write_bytes(encoded(table, file.suffix.lower()), file)


def encoded(table: pl.DataFrame, ending: str) -> bytes:
    """A table as the bytes of a file with one of `ENDINGS`.

    .csv and .tsv are as `to_csv` makes them, .json is a list of objects, .jsonl has one object a line, .parquet has the
    columns of the table.
    """
    if ending == ".parquet":
        return storage.to_parquet(table)
    if ending == ".json":
        return (json.dumps(table.to_dicts(), indent=1) + "\n").encode()
    if ending == ".jsonl":
        return "".join(f"{json.dumps(row)}\n" for row in table.iter_rows(named=True)).encode()
    return to_csv(table, separator="," if ending == ".csv" else "\t").encode()


def write_bytes(data: bytes, file: Path) -> None:
    """Write a file, seen whole or not at all. Raises ConfigError if it cannot be written."""
    try:
        Store(str(file.absolute().parent)).write_bytes(file.name, data)
    except OSError as error:
        raise ConfigError(f"{file}: expected a file to write: {error.strerror}; name another file") from error


def to_csv(table: pl.DataFrame, *, separator: str = ",") -> str:
    """The table as CSV, lists as words.

    Text that a spreadsheet would run as a formula gets an apostrophe in front, which `rearmed` takes away.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, table.columns, lineterminator="\n", delimiter=separator)
    writer.writeheader()
    writer.writerows({name: _safe(value) for name, value in row.items()} for row in table.iter_rows(named=True))
    return buffer.getvalue()


def _safe(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(value)
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def rearmed(cell: str) -> str:
    """A cell of CSV without the apostrophe that `to_csv` put in front of it."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
