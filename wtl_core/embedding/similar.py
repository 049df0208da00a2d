"""Images like a given one, by the vectors of the latest refresh. Reads only."""

from typing import Any

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.errors import InputError
from wtl_core.pool import live_pool
from wtl_core.workspace import ledger, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def run(store: Store, commit: Commit, sample_id: str, *, count: int) -> list[dict[str, Any]]:
    """The `count` live samples nearest to `sample_id`, as `by_vector` gives them, without itself.

    Raises:
        InputError: the sample has no vector.
    """
    vector = vectors.load(store, commit.encoder, [sample_id])[0]
    return [row for row in by_vector(store, commit, vector, count=count + 1) if row["sample_id"] != sample_id][:count]


def by_vector(store: Store, commit: Commit, vector: np.ndarray, *, count: int) -> list[dict[str, Any]]:
    """The `count` live samples nearest to `vector` (D,) by cosine similarity, nearest first; ties by sample id.

    Samples that are skipped are left out. Each has `sample_id`, `uri` (the first of its locations) and `similarity` (1
    for the same direction).

    Raises:
        InputError: there are no vectors, or the vector is another encoder's (its length differs), zero or not finite.
    """
    if not np.isfinite(vector).all() or not np.any(vector):
        raise InputError("expected a vector of finite numbers that are not all zero, found another; embed it again")
    locations = live_pool.load_locations(
        store, snapshots.read_snapshot(store, commit.listing), columns=["sample_id", "uri"]
    )
    locations = locations.join(ledger.skips(ledger.read(store)), on="sample_id", how="anti")
    uris = dict(locations.group_by("sample_id").agg(pl.col("uri").min()).iter_rows())
    hidden = max(0, vectors.count(store, commit.encoder) - len(uris))  # departed or skipped: may stand in the way
    found = vectors.similar(store, commit.encoder, vector, k=count + hidden)
    rows = [
        {"sample_id": near.sample_id, "uri": uris[near.sample_id], "similarity": near.similarity}
        for near in found
        if near.sample_id in uris
    ]
    return rows[:count]
