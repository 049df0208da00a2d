"""The row accounts of a refresh: what was read, kept, repeated, refused and set aside, in all and by source.

`read == locations + ignored` and `locations == samples + duplicates + quarantined`, before embedding and after it.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from wtl_core.embedding import chunks
from wtl_core.embedding.chunks import Embedded
from wtl_core.pool import live_pool
from wtl_core.pool.live_pool import Pool
from wtl_core.workspace import snapshots
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store


def of_pool(live: Pool, before: pl.DataFrame | None) -> dict[str, int]:
    """The accounts once all parts are made; `before` are the samples of the last refresh."""
    counts = live.counts
    fresh = counts.samples if before is None else live.samples.join(before, on="sample_id", how="anti").height
    return {
        "read": counts.read,
        "locations": counts.locations,
        "samples": counts.samples,
        "duplicates": counts.duplicates,
        "quarantined": counts.quarantined,
        "ignored": counts.ignored,
        "filtered": counts.filtered,
        "new_samples": fresh,
    }


def after_embedding(
    counts: dict[str, int], embedded: Embedded, selection: SelectionRef, *, refused_new: int
) -> dict[str, int]:
    """What the encoder refused moves, with all its locations, to the quarantined; `refused_new` samples are no news."""
    return {
        **counts,
        "samples": counts["samples"] - embedded.refused_samples,
        "duplicates": counts["duplicates"] - (embedded.refused_locations - embedded.refused_samples),
        "quarantined": counts["quarantined"] + embedded.refused_locations,
        "new_samples": counts["new_samples"] - refused_new,
        "vectors": embedded.vectors,
        "ranked": selection.rows,
        "picks": selection.picks,
    }


def by_source(live: Pool, store: Store, snapshot_key: str, fingerprint: str) -> dict[str, dict[str, int]]:
    """The accounts after embedding by source: what the encoder refused is quarantined wherever it lies."""
    refused = chunks.refused(store, fingerprint).select("sample_id")
    refused = refused.join(live.samples, on="sample_id", how="semi")
    if refused.is_empty():
        return live.by_source
    locations = live_pool.load_locations(store, snapshots.read_snapshot(store, snapshot_key))
    moved = dict(locations.join(refused, on="sample_id", how="semi").group_by("source").len().iter_rows())
    return {
        source: {**counts, "quarantined": counts["quarantined"] + moved.get(source, 0)}
        for source, counts in live.by_source.items()
    }


def quarantine(live: Pool, store: Store, fingerprint: str) -> pl.DataFrame:
    """`uri`, `reason` and `message` of each location in quarantine, after embedding.

    Locations of a sample that the encoder refused are all told by its first.
    """
    columns = ("uri", "reason", "message")
    refused = chunks.refused(store, fingerprint).select("sample_id", *columns)
    refused = refused.join(live.samples.select("sample_id", "locations"), on="sample_id", maintain_order="left")
    repeated = np.repeat(np.arange(refused.height), refused["locations"].to_numpy())
    return pl.concat([live.quarantine.select(columns), refused[repeated].select(columns)], how="vertical_relaxed")


def refused_new(live: Pool, before: pl.DataFrame | None, store: Store, fingerprint: str) -> int:
    """How many of the samples that the encoder refused were not in the pool `before`, which has their `sample_id`."""
    refused = chunks.refused(store, fingerprint).join(live.samples, on="sample_id", how="semi")
    return refused.height if before is None else refused.join(before, on="sample_id", how="anti").height


def say_nothing_readable(live: Pool, sources: Sequence[str], *, quarantine: str) -> str:
    """Why a pool without a sample is refused."""
    reasons = live.quarantine["reason"].value_counts(sort=True)
    told = ", ".join(f"{count} {reason}" for reason, count in reasons.iter_rows())
    found = f"{live.counts.quarantined} refused ({told})" if told else f"{live.counts.ignored} files that are no images"
    advice = f"the reasons are in {quarantine}" if told else "check the path"
    return f"{', '.join(sources)}: expected readable images, found {found}; {advice}"
