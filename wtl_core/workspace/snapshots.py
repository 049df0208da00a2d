"""Listing snapshots: every known object with its identity and its part; which one a running refresh uses."""

import hashlib
import json

import polars as pl

from wtl_core.recipe.base import digest_of
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_PENDING = "pending.json"


def write_snapshot(store: Store, snapshot: pl.DataFrame) -> str:
    """Store a listing snapshot under the digest of its rows; returns its key. Writing it again changes nothing."""
    rows = snapshot.select(sorted(snapshot.columns)).sort("uri")
    digest = hashlib.sha256()
    for column in rows.columns:
        digest.update(column.encode())
        digest.update(digest_of(rows[column].to_list()).encode())
    key = f"listings/{digest.hexdigest()}.parquet"
    if not store.exists(key):
        store.write_frame(key, snapshot)
    return key


def read_snapshot(store: Store, key: str) -> pl.DataFrame:
    """A listing snapshot by its key."""
    return store.read_frame(key)


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
