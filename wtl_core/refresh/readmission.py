"""Objects that were refused for a passing reason and can be read now: the next refresh takes them in. No torch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from wtl_core.images.faults import TRANSIENT, Reason
from wtl_core.pool.part_file import quarantine_key
from wtl_core.pool.part_plan import PartPlan, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards.reader import is_readable, read_targets
from wtl_core.workspace.storage import Store

_REFUSAL = pl.Schema(
    dict.fromkeys(("source", "object_uri", "part", "key", "reason"), pl.String) | {"ordinal": pl.Int64}
)
_PROBES = 16
_TARGETS_PER_OBJECT = 256
"""Rows of one Parquet file whose images are looked for: a list may name a million, and each look can be a request."""


def readable_again(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """Objects of a snapshot that could not be read for a passing reason and can be now: for `discover.diff`.

    Each is tried by opening it and reading a byte; what was refused for an error of reading is read to its end, since a
    bad sector lies anywhere, and a shard read again in vain would be copied and ranked anew each time. A Parquet file
    that names images elsewhere is readable again if one of those refused is; of more than 256 a spread is tried.
    Objects that changed are no business of this function.

    Returns:
        A frame with columns source, uri.
    """
    # the ordinals of refused rows by object; -1 stands for the object itself
    refused: dict[tuple[str, str], list[int]] = {}
    misread: set[tuple[str, str]] = set()
    for source, uri, key, ordinal, reason in _refused_in_passing(store, snapshot).iter_rows():
        refused.setdefault((source, uri), []).append(ordinal if key else -1)
        if reason == Reason.READ_ERROR:
            misread.add((source, uri))

    def targets_of(place: tuple[str, str]) -> list[str]:
        rows = [row for row in refused[place] if row >= 0]
        named = read_targets(place[1], _spread(rows)) if rows else []
        return [*named, place[1]] if -1 in refused[place] else named

    with ThreadPoolExecutor(_PROBES) as pool:
        targets = dict(zip(refused, pool.map(targets_of, refused), strict=True))
        tried = list(dict.fromkeys(target for named in targets.values() for target in named))
        whole = {target for place in misread for target in targets[place]}
        answers = pool.map(lambda uri: is_readable(uri, is_whole=uri in whole), tried)
        readable = {uri for uri, answer in zip(tried, answers, strict=True) if answer}
    again = [place for place, named in targets.items() if not readable.isdisjoint(named)]
    return pl.DataFrame(again, schema={"source": pl.String, "uri": pl.String}, orient="row")


def without_refused(store: Store, parts: Sequence[PartPlan], params: IngestParams) -> list[PartPlan]:
    """Plans of parts to make, with those marked to be read again whose refused objects can be read by now.

    A run without a commit made them: it was refused, or killed. The disk is mounted by now perhaps, and neither sizes
    nor times would tell. Parts of the last commit are none of these plans; see `readable_again`.
    """
    made = set(store.names("pool"))
    plans, looked = list(parts), set[str]()
    # what was read again may have been refused again, and lie there too
    while standing := [part for part in plans if f"{part.digest}.parquet" in made and part.digest not in looked]:
        looked.update(part.digest for part in standing)
        again = set(readable_again(store, snapshot_rows(standing)).iter_rows())
        plans = [
            part.again(params) if any((one.source, one.uri) in again for one in part.objects) else part
            for part in plans
        ]
    return plans


def _refused_in_passing(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """Live rows of the quarantine with a reason that may pass: source, object_uri, key, ordinal, reason."""
    present = set(store.names("quarantine"))
    is_passing = pl.col("reason").is_in([str(reason) for reason in TRANSIENT])
    refused = [pl.DataFrame(schema=_REFUSAL)]
    for part in snapshot["part"].unique().sort():
        if f"{part}.parquet" in present:
            with store.reader(quarantine_key(part)) as handle:
                refused.append(pl.DataFrame(pq.read_table(handle, columns=list(_REFUSAL))).filter(is_passing))
    rows = pl.concat(refused)
    if not rows.is_empty():  # as most often; a million objects are not gone through for nothing
        live = snapshot.filter(pl.col("size") >= 0).select("source", pl.col("uri").alias("object_uri"), "part")
        rows = rows.join(live, on=["source", "object_uri", "part"], how="semi", maintain_order="left")
    return rows.select("source", "object_uri", "key", "ordinal", "reason")


def _spread(rows: list[int]) -> list[int]:
    """As many rows as are tried, evenly over all."""
    count = min(len(rows), _TARGETS_PER_OBJECT)
    return [rows[place] for place in np.linspace(0, len(rows) - 1, count).astype(int)]
