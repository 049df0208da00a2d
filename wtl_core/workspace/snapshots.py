"""Listing snapshots: every known object with its identity and its part; which one a running refresh uses.

A large listing of which little has changed is written as its difference to an earlier one that is whole: a refresh that
brings a few shards to a million writes a few rows. Never to another difference, so that reading one takes two files.
"""

import hashlib
import json
from collections.abc import Iterable

import polars as pl

from wtl_core.recipe.base import digest_of
from wtl_core.workspace.commits import DIFFERENCE, Commit
from wtl_core.workspace.storage import Store

_PENDING = "pending.json"
_GONE = "is_gone"
WHOLE_UP_TO = 10_000
"""Objects of a listing that is always written whole: that takes some tens of milliseconds."""
_LARGEST_SHARE = 8
"""A difference has at most one row for so many of the whole one; a larger one costs more than it saves."""


def write_snapshot(store: Store, snapshot: pl.DataFrame, *, before: str | None = None) -> str:
    """Store a listing snapshot; returns its key. Writing it again after the same one changes nothing.

    Args:
        store: The workspace.
        snapshot: One row for each object, by distinct `uri`.
        before: Key of an earlier snapshot to write the difference to, where that is worth it.
    """
    rows = snapshot.select(sorted(snapshot.columns)).sort("uri")
    if before is not None and rows.height > WHOLE_UP_TO:
        whole = _whole_of(before)
        changed = _difference(rows, store.read_frame(whole))
        if changed is not None:
            key = f"listings/{_digest(changed)}{DIFFERENCE}{whole.removeprefix('listings/')}"
            return _written(store, key, changed)
    return _written(store, f"listings/{_digest(rows)}.parquet", snapshot.sort("uri"))


def read_snapshot(store: Store, key: str) -> pl.DataFrame:
    """A listing snapshot by its key."""
    if DIFFERENCE not in key:
        return store.read_frame(key)
    whole, changed = store.read_frame(_whole_of(key)), store.read_frame(key)
    added = changed.filter(~pl.col(_GONE)).select(whole.columns)
    return whole.join(changed, on="uri", how="anti", maintain_order="left").merge_sorted(added, key="uri")


def files_of(keys: Iterable[str]) -> set[str]:
    """The keys of all files that these snapshots are read from."""
    return {file for key in keys for file in (key, _whole_of(key))}


def _difference(rows: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame | None:
    """The rows that are new or changed, and those that are gone by their `uri` alone; None where a whole one is due."""
    if sorted(whole.columns) != rows.columns:  # of an earlier version
        return None
    hashed = [frame.with_columns(*_hashes(frame.select(rows.columns))) for frame in (rows, whole)]
    added = hashed[0].join(hashed[1], on=["hash_0", "hash_1"], how="anti").select(rows.columns)
    gone = whole.select("uri").join(rows, on="uri", how="anti")
    if (added.height + gone.height) * _LARGEST_SHARE > whole.height:
        return None
    marked = [added.with_columns(pl.lit(False).alias(_GONE)), gone.with_columns(pl.lit(True).alias(_GONE))]
    return pl.concat(marked, how="diagonal").sort("uri")


def _hashes(rows: pl.DataFrame) -> list[pl.Series]:
    """128 bits of each row, to compare rows by: faster than by all columns."""
    return [rows.hash_rows(seed).alias(f"hash_{seed}") for seed in (0, 1)]


def _whole_of(key: str) -> str:
    """The whole snapshot that a key is, or is the difference to."""
    return f"listings/{key.split(DIFFERENCE)[1]}" if DIFFERENCE in key else key


def _digest(rows: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for column in rows.columns:
        digest.update(column.encode())
        digest.update(digest_of(rows[column].to_list()).encode())
    return digest.hexdigest()


def _written(store: Store, key: str, rows: pl.DataFrame) -> str:
    if not store.exists(key):
        store.write_frame(key, rows)
    return key


def note_pending(store: Store, number: int, listing: str) -> None:
    """Record what the refresh that begins now works on, so that `maintain` spares it if the refresh is killed."""
    store.write_bytes(_PENDING, json.dumps({"number": number, "listing": listing}).encode())


def pending_snapshot(store: Store, last: Commit) -> tuple[str, pl.DataFrame] | None:
    """Key and objects of the listing of a refresh that began after `last` and made no commit; None if none did."""
    try:
        noted = json.loads(store.read_bytes(_PENDING))
        if noted["number"] <= last.number:
            return None
        return noted["listing"], read_snapshot(store, noted["listing"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):  # as good as none: it only saves work
        return None
