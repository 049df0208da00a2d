"""Marking samples as labelled: a file of ids, paths or keys becomes an entry of the ledger. Reads no image."""

import io
from pathlib import Path

import polars as pl

from wtl_core import commits, ledger, pool, refresh
from wtl_core.errors import ConfigError, InputError
from wtl_core.storage import Store

_ID_COLUMNS = ("sample_id", "uri", "path", "key", "filename", "image", "file_name")
"""Columns looked for, first one first; else the first column of the file is taken."""
_SHOWN = 3


def add(store: Store, file: Path) -> dict[str, int]:
    """Enter the samples that `file` names as labelled; returns how many were named, found and new.

    A value is a `sample_id`, the URI or path of a location, the end of one from a `/` on, the key of a member, or a
    file name; what several samples answer to is refused. A sample that has left the pool can be named by its id as
    long as its vector is there.

    Args:
        store: The workspace.
        file: CSV (with a header), Parquet, JSON lines, or plain text with one value a line.

    Raises:
        ConfigError: the file is not there or not of such a form, or the workspace has no refresh yet.
        InputError: values that name no sample, or several; nothing is entered.
    """
    values = list(dict.fromkeys(_values(file)))
    if not values:
        raise InputError(f"{file}: expected a sample on each line, found none; nothing is entered")
    names = _names(store)
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


def _values(file: Path) -> list[str]:
    try:
        data = file.read_bytes()
        if data[:4] == b"PAR1":
            frame = pl.read_parquet(io.BytesIO(data))
        elif file.suffix in (".jsonl", ".ndjson"):
            frame = pl.read_ndjson(io.BytesIO(data))
        elif file.suffix == ".csv":
            frame = pl.read_csv(io.BytesIO(data), infer_schema=False)
        else:
            frame = pl.DataFrame({"sample_id": [line for line in data.decode().splitlines() if line.strip()]})
    except (OSError, UnicodeDecodeError, pl.exceptions.PolarsError) as error:
        raise ConfigError(
            f"{file}: expected CSV, Parquet, JSON lines or plain text: {error}; check the file"
        ) from error
    if not frame.columns:
        return []
    column = next((name for name in _ID_COLUMNS if name in frame.columns), frame.columns[0])
    return [str(value).strip().removeprefix("'") for value in frame[column].drop_nulls().to_list()]


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
