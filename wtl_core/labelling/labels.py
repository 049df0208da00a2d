"""Marking samples as labelled: a file of ids, paths or keys becomes an entry of the ledger. Reads no image."""

import io
import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError, InputError
from wtl_core.pool import live_pool
from wtl_core.shards.tables import URI_NAMES
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.storage import Store

_ID_COLUMNS = tuple(dict.fromkeys(("sample_id", "uri", "path", "key", "filename", "image", "file_name", *URI_NAMES)))
"""Columns that may name a row's sample, first one first; without any of them a table must have no other column."""
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
    file name; what several samples answer to is refused. A row of a table is named by the first of the columns looked
    for that it fills. A sample that has left the pool can be named by its id as long as its vector is there.

    Args:
        store: The workspace.
        file: CSV or TSV (with or without a header), Parquet, JSON lines, a JSON list of names or of objects with one
            of the columns looked for, COCO's JSON (its images that have an annotation), or plain text with one value
            a line.

    Raises:
        ConfigError: the file is not there or not of such a form, or the workspace has no refresh yet.
        InputError: values that name no sample, or several; nothing is entered.
    """
    names = _names(store, _locations(store))
    values = list(dict.fromkeys(_values(file, names)))
    if not values:
        raise InputError(f"{file}: expected a sample on each line, found none; nothing is entered")
    ends = _ends(names, values)
    found: list[str] = []
    unknown: list[str] = []
    ambiguous: list[str] = []
    for value in values:
        ids = _ids(value, names, ends) or _ids(_plain(value), names, ends)
        (found if len(ids) == 1 else ambiguous if ids else unknown).append(min(ids) if len(ids) == 1 else value)
    if unknown or ambiguous:
        raise InputError(_explain(file, unknown, ambiguous))
    known = set(ledger.sample_ids(ledger.read(store), "labelled"))
    fresh = [sample_id for sample_id in dict.fromkeys(found) if sample_id not in known]
    if fresh:
        ledger.append(store, "labelled", fresh)
    return {"named": len(values), "found": len(set(found)), "added": len(fresh)}


def find(store: Store, value: str) -> str:
    """The id of the one sample that `value` names: as a value of a file for `add`, or by the beginning of its id.

    Raises:
        ConfigError: it names none or several (the first ones are shown), or the workspace has no refresh yet.
    """
    locations = _locations(store)
    names = _names(store, locations)
    ids = _ids(value, names, _ends(names, [value]))
    if not ids and value:
        ids = {sample_id for sample_ids in names.values() for sample_id in sample_ids if sample_id.startswith(value)}
    if len(ids) == 1:
        return min(ids)
    uris = dict(locations.sort("uri", descending=True).select("sample_id", "uri").iter_rows())
    shown = [f"{sample_id[:16]} ({uris.get(sample_id, 'no longer in the pool')})" for sample_id in sorted(ids)]
    first = f", first {', '.join(shown[:_SHOWN])}; give more of it" if ids else ""
    raise ConfigError(
        f"{value!r}: expected the beginning of one sample's id, or its path, URI or key, found {len(ids)} that fit"
        f"{first}"
    )


def _values(file: Path, names: dict[str, set[str]]) -> list[str]:
    suffix = file.suffix.lower()
    values: pl.Series | list[Any]
    try:
        data = file.read_bytes()
        if data[:4] == b"PAR1":
            values = _named_by_row(pl.read_parquet(io.BytesIO(data)))
        elif suffix in (".jsonl", ".ndjson"):
            values = _json_values([json.loads(line) for line in data.decode("utf-8-sig").split("\n") if line.strip()])
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
    return [str(value) for value in values]


def _plain(value: str) -> str:
    return value.strip().removeprefix("'")  # `wtl cut` puts an apostrophe before what looks like a formula


def _ids(value: str, names: dict[str, set[str]], ends: dict[str, set[str]]) -> set[str]:
    return names.get(value) or names.get(str(Path(value).absolute())) or ends.get(_relative(value), set())


def _named_by_row(frame: pl.DataFrame) -> list[Any]:
    """What each row names, by the first of the known columns that it fills, or by the only column that there is."""
    if not frame.columns:
        return []
    titled = {
        name.strip().lower(): name for name, kind in frame.schema.items() if not kind.is_nested() and kind != pl.Binary
    }
    known = [titled[name] for name in _ID_COLUMNS if name in titled]
    if not known and len(frame.columns) > 1:
        raise LookupError(f"no column that names samples among {', '.join(frame.columns)}")
    columns = [pl.col(name).cast(pl.String).replace("", None) for name in known or frame.columns]
    named = frame.select(named=pl.coalesce(columns), is_blank=pl.all_horizontal(pl.all().is_null()))
    values = named.filter(~pl.col("is_blank"))["named"].to_list()
    if None in values:
        raise LookupError(f"row {values.index(None) + 1} names none")
    return values


def _is_dotted(cell: str, names: dict[str, set[str]]) -> bool:
    """Whether a dot alone makes the cell look like a sample."""
    return cell not in names and "/" not in cell and "." in cell


def _below_header(rows: pl.DataFrame, names: dict[str, set[str]]) -> list[Any]:
    """What the rows of a table that may have a header name: no row is taken for one that is or looks like a sample."""

    def is_sample(cell: str | None) -> bool:
        plain = _plain(cell or "")
        # Not by a bare number: rows of Parquet have these as keys, and so have classes, boxes and indices of a table.
        return bool(_LIKE_A_SAMPLE.fullmatch(plain)) or (plain in names and not plain.isdecimal())

    first = [_plain(cell or "") for cell in rows.row(0)]
    is_titled = any(cell.lower() in _ID_COLUMNS for cell in first)
    is_word = len(first) == 1 and bool(_WORDS.fullmatch(first[0]))
    # Beside a known title a dot makes no sample: `box.x` is a title too.
    holds_sample = any(is_sample(cell) and not (is_titled and _is_dotted(cell, names)) for cell in first)
    if (is_titled or is_word) and not holds_sample:
        titles = [title or f"column {number}" for number, title in enumerate(first, 1)]
        if len(set(titles)) < len(titles):
            raise LookupError(f"columns of one name among {', '.join(titles)}")
        return _named_by_row(rows[1:].rename(dict(zip(rows.columns, titles, strict=True))))
    if len(first) == 1:
        return _named_by_row(rows)
    full = [column for column in rows.columns if all(is_sample(cell) for cell in rows[column])]
    if not full:
        raise LookupError(f"no column that names samples; the first row is {', '.join(first)}")
    return rows[full[0]].to_list()


def _json_values(data: Any) -> list[Any]:
    """The samples of a list, or of a COCO file, whose images without an annotation are not labelled."""
    if isinstance(data, dict) and {"images", "annotations"} <= data.keys():
        annotated = {annotation["image_id"] for annotation in data["annotations"]}
        if unknown := annotated.difference(image["id"] for image in data["images"]):
            raise ValueError(f"an annotation of image {min(unknown, key=str)}, which is not among the images")
        return [image["file_name"] for image in data["images"] if image["id"] in annotated]
    if not isinstance(data, list):
        raise TypeError(f"neither a list nor COCO's object, but {data!r:.60}")
    return [entry if isinstance(entry, str) else _named_in(entry) for entry in data]


def _named_in(entry: Any) -> Any:
    known = [entry[name] for name in _ID_COLUMNS if isinstance(entry, dict) and entry.get(name) not in (None, "")]
    if not known:
        raise ValueError(f"an entry that names no sample, {entry!r:.60}")
    return known[0]


def _locations(store: Store) -> pl.DataFrame:
    """Every location of every sample of the latest refresh. Raises ConfigError if there is none."""
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a pool, found none yet; `wtl run SOURCE` makes one")
    return live_pool.load_locations(store, snapshots.read_snapshot(store, last.listing))


def _names(store: Store, locations: pl.DataFrame) -> dict[str, set[str]]:
    """Every way to name a sample, and to which samples it leads."""
    from wtl_core.embedding import vectors  # here: the command line does without LanceDB until a file is added

    last = commits.latest(store)
    assert last is not None  # it has locations
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
    paths = [value for value in values if "/" in value and value not in names]
    wanted = {_relative(value) for given in paths for value in (given, _plain(given))}
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
