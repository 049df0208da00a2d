"""Images like a given one, by the vectors of the latest refresh. Reads only."""

from typing import Any

import polars as pl

from wtl_core.embedding import vectors
from wtl_core.errors import ConfigError
from wtl_core.pool import live_pool
from wtl_core.workspace import snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def run(store: Store, commit: Commit, sample_id: str, *, count: int) -> list[dict[str, Any]]:
    """The `count` live samples nearest to the one whose id begins with `sample_id`, nearest first, without itself.

    Raises:
        ConfigError: no sample of the pool has such an id, or several do.
    """
    samples = live_pool.load(store, snapshots.read_snapshot(store, commit.listing)).samples
    matching = samples.filter(pl.col("sample_id").str.starts_with(sample_id))["sample_id"].to_list()
    if len(matching) != 1:
        raise ConfigError(f"{sample_id!r}: expected the beginning of one sample's id, found {len(matching)} that fit")
    vector = vectors.load(store, commit.encoder, matching)[0]
    uris = dict(samples.select("sample_id", "uri").iter_rows())
    found = vectors.similar(store, commit.encoder, vector, k=count + 1 + _departed(store, commit, samples.height))
    rows = [
        {"sample_id": near.sample_id, "uri": uris[near.sample_id], "similarity": near.similarity}
        for near in found
        if near.sample_id in uris and near.sample_id != matching[0]
    ]
    return rows[:count]


def _departed(store: Store, commit: Commit, live: int) -> int:
    """Vectors in the table of samples that have left the pool, at most; they may stand in an answer's way."""
    return max(0, len(vectors.existing_ids(store, commit.encoder)) - live)
