"""Objects that were refused for a passing reason and can be read now: the next refresh takes them in. No torch."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pyarrow.parquet as pq

from wtl_core.images.faults import TRANSIENT
from wtl_core.shards.part_file import quarantine_key
from wtl_core.shards.reader import is_readable
from wtl_core.storage import Store

_REFUSAL = ("source", "object_uri", "part", "key", "reason")
_PROBES = 16


def readable_again(store: Store, snapshot: pl.DataFrame, *, endpoint_url: str | None = None) -> pl.DataFrame:
    """Objects of a snapshot that could not be read for a passing reason and can be now: for `discover.diff`.

    Each is tried by opening it and reading a byte; objects that changed are no business of this function.

    Returns:
        A frame with columns source, uri.
    """
    present = set(store.names("quarantine"))
    parts = [part for part in snapshot["part"].unique().sort() if f"{part}.parquet" in present]
    refused = [pl.DataFrame(schema=dict.fromkeys(_REFUSAL, pl.String))]
    for part in parts:
        with store.reader(quarantine_key(part)) as handle:
            refused.append(pl.DataFrame(pq.read_table(handle, columns=list(_REFUSAL))))
    is_passing = pl.col("reason").is_in([str(reason) for reason in TRANSIENT]) & (pl.col("key") == "")
    live = snapshot.filter(pl.col("size") >= 0).select("source", pl.col("uri").alias("object_uri"), "part")
    passing = pl.concat(refused).filter(is_passing).join(live, on=["source", "object_uri", "part"], how="semi")
    tried = passing.select("source", "object_uri").unique(maintain_order=True).rows()
    with ThreadPoolExecutor(_PROBES) as pool:
        answers = pool.map(lambda place: is_readable(place[1], endpoint_url=endpoint_url), tried)
        readable = [place for place, answer in zip(tried, answers, strict=True) if answer]
    return pl.DataFrame(readable, schema={"source": pl.String, "uri": pl.String}, orient="row")
