"""The split of a pool: which images are for training, validation and test, as files that entries of the ledger name.

An image's side is a matter of when it came, so it is written down and never computed again. Each entry of kind `split`
names a file `splits/<digest>.parquet` (its `origin`) with the images that it gives a side, and what was asked for (its
`request`); an entry of kind `unsplit` takes back all before it. Files never change.
"""

import hashlib
import json
from typing import Any

import polars as pl

from wtl_core.errors import CorruptArtifactError
from wtl_core.workspace import ledger, storage
from wtl_core.workspace.storage import Store

TRAIN, VALIDATION, TEST = SIDES = ("train", "validation", "test")
SCHEMA = {"sample_id": pl.String(), "split": pl.String()}
_FOLDER = "splits"


def standing(entries: pl.DataFrame) -> pl.DataFrame:
    """The rows of `ledger.read` that make the present split, oldest first; none where the pool is not split."""
    taken_back = entries.filter(pl.col("kind") == "unsplit")["entry"].max() or 0
    return entries.filter(pl.col("kind") == "split", pl.col("entry") > taken_back)


def request(entries: pl.DataFrame) -> dict[str, Any] | None:
    """What the present split was asked for as; None where the pool is not split."""
    rows = standing(entries)
    return json.loads(rows["request"][0]) if rows.height else None


def read(store: Store, entries: pl.DataFrame) -> pl.DataFrame:
    """Every sample that was given a side: `sample_id`, `split`, sorted by `sample_id`.

    `split` is one of `SIDES`, or null for an image that would lie on two sides and therefore lies on none.

    Raises:
        CorruptArtifactError: a file of the split is missing.
    """
    keys = standing(entries)["origin"].to_list()
    try:
        frames = [store.read_frame(key).select(list(SCHEMA)) for key in keys]
    except FileNotFoundError as error:
        told = (
            "expected the files of the split, one is missing; restore it, or take the split back by `wtl split --undo`"
        )
        raise CorruptArtifactError(f"{store.path(_FOLDER)}: {told}") from error
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames]).sort("sample_id")


def held_out(store: Store, entries: pl.DataFrame) -> pl.Series:
    """Ids of the samples that are not for training: those of validation and test, and those on no side."""
    return read(store, entries).filter(pl.col("split").ne_missing(TRAIN))["sample_id"]


def counts(store: Store, entries: pl.DataFrame) -> dict[str, int]:
    """How many samples are on each of `SIDES`, also those that left the pool; empty where the pool is not split."""
    found = dict(read(store, entries)["split"].drop_nulls().value_counts().iter_rows())
    return {side: found.get(side, 0) for side in SIDES} if found else {}


def append(store: Store, rows: pl.DataFrame, asked: dict[str, Any], report: dict[str, Any] | None = None) -> int:
    """Give samples a side, by a file and an entry of the ledger; returns the ledger's new length.

    Args:
        store: The workspace.
        rows: Columns `SCHEMA`, samples without a side so far.
        asked: What `request` gives back.
        report: A record that is kept beside the file.

    Raises:
        TransientError: another process wrote the ledger at the same moment; the file is there then, and means nothing.
    """
    data = storage.to_parquet(rows.select(list(SCHEMA)))
    key = f"{_FOLDER}/{hashlib.sha256(data).hexdigest()[:16]}"
    store.write_bytes(f"{key}.parquet", data)
    if report is not None:
        store.write_bytes(f"{key}.json", json.dumps(report, indent=1).encode() + b"\n")
    return ledger.append_split(store, f"{key}.parquet", json.dumps(asked))


def read_report(store: Store, entries: pl.DataFrame) -> dict[str, Any]:
    """The record that was kept with the first file of the present split; empty where there is none."""
    key = f"{standing(entries)['origin'][0].removesuffix('.parquet')}.json"
    return json.loads(store.read_bytes(key)) if store.exists(key) else {}
