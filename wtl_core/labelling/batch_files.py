"""A batch as a file for a labelling tool: a table, or tasks of Label Studio. Images are named, never copied."""

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.labelling import table_files

LABEL_STUDIO = "label-studio"
FORMATS = (*(ending.removeprefix(".") for ending in table_files.ENDINGS), LABEL_STUDIO)
_TASK_COLUMNS = ("sample_id", "uri", "batch", "place", "rank", "is_control", "why")


def check(file: Path, form: str | None) -> None:
    """Refuse a file that a batch cannot be written to, before anything is entered. Raises ConfigError."""
    table_files.check_output(file)
    ending = file.suffix.lower().removeprefix(".")
    wanted = "json" if form == LABEL_STUDIO else form
    if wanted not in (None, ending):
        raise ConfigError(
            f"{file}: expected an ending .{wanted} for the format {form}, found .{ending}; name another file"
        )


def write(table: pl.DataFrame, file: Path, form: str | None, urls: Mapping[str, str]) -> None:
    """Write a batch, seen whole or not at all.

    Args:
        table: Columns `batches.COLUMNS`.
        file: Its ending says the format, except for Label Studio's JSON.
        form: One of `FORMATS`, or None.
        urls: Beginnings of URIs, and what stands for them in the column `url` (or a task's `image`), such as the
            address of a server; what follows is percent-encoded. The longest beginning counts; other URIs stay.

    Raises:
        ConfigError: the file cannot be written.
    """
    table = table.with_columns(url=pl.Series([_mapped(uri, urls) for uri in table["uri"]], dtype=pl.String))
    if form != LABEL_STUDIO:
        table_files.write(table, file)
        return
    tasks = [
        {"data": {"image": row["url"], **{name: row[name] for name in _TASK_COLUMNS}}}
        for row in table.iter_rows(named=True)
    ]
    table_files.write_bytes((json.dumps(tasks, indent=1) + "\n").encode(), file)


def _mapped(uri: str, urls: Mapping[str, str]) -> str:
    for start in sorted(urls, key=len, reverse=True):
        if uri.startswith(start):
            return urls[start] + quote(uri.removeprefix(start))
    return uri
