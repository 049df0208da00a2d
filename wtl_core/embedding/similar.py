"""Images like a given one, by the vectors of the latest refresh. Reads only."""

from typing import Any

import polars as pl

from wtl_core.embedding import vectors
from wtl_core.pool import live_pool
from wtl_core.workspace import ledger, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def run(store: Store, commit: Commit, sample_id: str, *, count: int) -> list[dict[str, Any]]:
    """The `count` live samples nearest to `sample_id` by cosine similarity, nearest first, without itself.

    Samples that are skipped are left out.

    Each has `sample_id`, `uri` (the first of its locations) and `similarity` (1 for the same direction).

    Raises:
        InputError: the sample has no vector.
    """
    locations = live_pool.load_locations(
        store, snapshots.read_snapshot(store, commit.listing), columns=["sample_id", "uri"]
    )
    locations = locations.join(ledger.skips(ledger.read(store)), on="sample_id", how="anti")
    uris = dict(locations.group_by("sample_id").agg(pl.col("uri").min()).iter_rows())
    vector = vectors.load(store, commit.encoder, [sample_id])[0]
    hidden = max(0, vectors.count(store, commit.encoder) - len(uris))  # departed or skipped: may stand in the way
    found = vectors.similar(store, commit.encoder, vector, k=count + 1 + hidden)
    rows = [
        {"sample_id": near.sample_id, "uri": uris[near.sample_id], "similarity": near.similarity}
        for near in found
        if near.sample_id in uris and near.sample_id != sample_id
    ]
    return rows[:count]
