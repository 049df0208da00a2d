"""Marking samples as labelled: a file of ids, paths or keys becomes an entry of the ledger. Reads no image."""

import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from wtl_core import commits, ledger, pool, refresh
from wtl_core.errors import ConfigError, InputError
from wtl_core.storage import Store

_ID_COLUMNS = ("sample_id", "uri", "path", "key", "filename", "image", "file_name")
"""Columns looked for, first one first; else the first column of the file is taken."""
_LIKE_A_SAMPLE = re.compile(r".*[/.].*|[0-9a-f]{64}")
_WORDS = re.compile(r"[^\W\d_]+(?:[ _-][^\W\d_]+)*")
_FORMS = (
    "CSV or TSV, Parquet, JSON lines, plain text, a JSON list of names or of objects with one of "
    f"{', '.join(_ID_COLUMNS)}, or COCO's JSON (images with id and file_name, annotations with image_id)"
)
_SHOWN = 3


def add(store: Store, file: Path) -> dict[str, int]:
    """Enter the samples that `file` names as labelled; returns how many were named, found and new.

    A value is a `sample_id`, the URI or path of a location, the end of one from a `/` on, the key of a member, or a
    file name; what several samples answer to is refused. A sample that has left the pool can be named by its id as
    long as its vector is there.

    Args:
        store: The workspace.
        file: CSV or TSV (with or without a header), Parquet, JSON lines, a JSON list of names or of objects with one
            of the columns looked for, COCO's JSON (its images that have an annotation), or plain text with one value
            a line.

    Raises:
        ConfigError: the file is not there or not of such a form, or the workspace has no refresh yet.
        InputError: values that name no sample, or several; nothing is entered.
    """
    names = _names(store)
    values = list(dict.fromkeys(_values(file, names)))
    if not values:
        raise InputError(f"{file}: expected a sample on each line, found none; nothing is entered")
    ends = _ends(names, values)
    found: list[str] = []
    unknown: list[str] = []
    ambiguous: list[str] = []
    for value in values:
        ids = names.get(value) or names.get(str(Path(value).absolute())) or ends.get(_relative(value), set())
        (found if len(ids) == 1 else ambiguous if ids else unknown).append(min(ids) if len(ids) == 1 else value)
    if unknown or ambiguous:
        raise InputError(_explain(file, unknown, ambiguous))
    known = set(ledger.sample_ids(ledger.read(store), "labelled"))
    fresh = [sample_id for sample_id in dict.fromkeys(found) if sample_id not in known]
    if fresh:
        ledger.append(store, "labelled", fresh)
    return {"named": len(values), "found": len(set(found)), "added": len(fresh)}


def _values(file: Path, names: dict[str, set[str]]) -> list[str]:
    suffix = file.suffix.lower()
    values: pl.Series | list[Any]
    try:
        data = file.read_bytes()
        if data[:4] == b"PAR1":
            values = _column(pl.read_parquet(io.BytesIO(data)))
        elif suffix in (".jsonl", ".ndjson"):
            values = _column(pl.read_ndjson(io.BytesIO(data)))
        elif suffix in (".csv", ".tsv"):
            separator = "," if suffix == ".csv" else "\t"
            rows = pl.read_csv(io.BytesIO(data), infer_schema=False, has_header=False, separator=separator)
            values = _below_header(rows, names)
        elif suffix == ".json":
            values = _json_values(json.loads(data))
        else:
            values = [line for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError, TypeError, LookupError, pl.exceptions.PolarsError) as error:
        raise ConfigError(f"{file}: expected {_FORMS}, found none of them: {error}; check the file") from error
    return [_plain(value) for value in values if value is not None]


def _plain(value: Any) -> str:
    return str(value).strip().removeprefix("'")  # `wtl cut` puts an apostrophe before what looks like a formula


def _column(frame: pl.DataFrame) -> pl.Series | list[Any]:
    if not frame.columns:
        return []
    return frame[next((name for name in _ID_COLUMNS if name in frame.columns), frame.columns[0])]


def _below_header(rows: pl.DataFrame, names: dict[str, set[str]]) -> pl.Series:
    """The samples of a table that may have a header: no row is taken for one that is or looks like a sample."""
    first = [_plain("" if cell is None else cell) for cell in rows.row(0)]
    titles = [cell.lower() for cell in first]
    if titles[0] not in _ID_COLUMNS and (first[0] in names or _LIKE_A_SAMPLE.fullmatch(first[0])):
        return rows[:, 0]
    known = [titles.index(name) for name in _ID_COLUMNS if name in titles]
    if known:
        return rows[1:, known[0]]
    return rows[1:, 0] if _WORDS.fullmatch(first[0]) else rows[:, 0]


def _json_values(data: Any) -> list[Any]:
    """The samples of a list, or of a COCO file, whose images without an annotation are not labelled."""
    if isinstance(data, dict) and {"images", "annotations"} <= data.keys():
        annotated = {annotation["image_id"] for annotation in data["annotations"]}
        return [image["file_name"] for image in data["images"] if image["id"] in annotated]
    if not isinstance(data, list):
        raise TypeError(f"neither a list nor COCO's object, but {data!r:.60}")
    return [entry if isinstance(entry, str) else _named_in(entry) for entry in data]


def _named_in(entry: Any) -> Any:
    known = [name for name in _ID_COLUMNS if name in entry]
    if not known:
        raise ValueError(f"an entry that names no sample, {entry!r:.60}")
    return entry[known[0]]


def _names(store: Store) -> dict[str, set[str]]:
    """Every way to name a sample, and to which samples it leads."""
    from wtl_core import vectors  # here: the command line does without LanceDB until a file is added

    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a pool, found none yet; `wtl run SOURCE` makes one")
    locations = pool.load_locations(store, refresh.read_snapshot(store, last.listing))
    names: dict[str, set[str]] = {sample_id: {sample_id} for sample_id in vectors.existing_ids(store, last.encoder)}
    for sample_id, uri, object_uri, key in locations.select("sample_id", "uri", "object_uri", "key").iter_rows():
        for name in (sample_id, uri, key or object_uri, (key or object_uri).rsplit("/", 1)[-1]):
            names.setdefault(name, set()).add(sample_id)
    return names


def _relative(value: str) -> str:
    return value.removeprefix("./")


def _ends(names: dict[str, set[str]], values: list[str]) -> dict[str, set[str]]:
    """Samples by the end of a location, from a `/` on, for those values that are paths relative to another folder.

    One pass over the names, however many values there are; only ends as deep as a value are looked at.
    """
    wanted = {_relative(value) for value in values if "/" in value and value not in names}
    depths = sorted({value.count("/") + 1 for value in wanted})
    ends: dict[str, set[str]] = {}
    for name, ids in names.items():
        steps = name.split("/") if wanted else []
        for depth in depths:
            if depth < len(steps) and (end := "/".join(steps[-depth:])) in wanted:
                ends.setdefault(end, set()).update(ids)
    return ends


def _explain(file: Path, unknown: list[str], ambiguous: list[str]) -> str:
    told = []
    if unknown:
        told.append(f"{len(unknown)} that name no sample of the pool ({', '.join(map(repr, unknown[:_SHOWN]))})")
    if ambiguous:
        told.append(f"{len(ambiguous)} that name several ({', '.join(map(repr, ambiguous[:_SHOWN]))})")
    return f"{file}: expected a sample on each line, found {' and '.join(told)}; use sample ids; nothing is entered"
