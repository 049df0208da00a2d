"""Retrying: objects that were refused for a reason that may pass, and can be read now. Imports no torch."""

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
"""Objects that are tried at once: most of the time is spent waiting for a store."""
_TARGETS_PER_OBJECT = 256
"""Rows of one Parquet file whose images are tried: a file may name a million, and each try can be a request."""


def readable_again(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """Unchanged objects that were refused for a reason that may pass, and can be read now; `discover.diff` takes them.

    An object is tried by opening it and reading one byte. If it was refused for a read error it is read to its end: the
    bad sector may be anywhere, and a shard that is made again without success gives another part and another ranking
    with every run. A Parquet file that refers to images elsewhere is readable if one of the refused images is; of more
    than 256 an even spread is tried.

    Args:
        store: The workspace.
        snapshot: The listing of the last commit, with its parts.

    Returns:
        A frame with the columns `source` and `uri`.
    """
    # ordinals of the refused rows of each object; -1 stands for the object itself
    refused: dict[tuple[str, str], list[int]] = {}
    unreadable: set[tuple[str, str]] = set()
    for source, uri, key, ordinal, reason in _temporary_refusals(store, snapshot).iter_rows():
        refused.setdefault((source, uri), []).append(ordinal if key else -1)
        if reason == Reason.READ_ERROR:
            unreadable.add((source, uri))

    def targets_of(place: tuple[str, str]) -> list[str]:
        rows = [row for row in refused[place] if row >= 0]
        named = read_targets(place[1], _spread(rows)) if rows else []
        return [*named, place[1]] if -1 in refused[place] else named

    with ThreadPoolExecutor(_PROBES) as pool:
        targets = dict(zip(refused, pool.map(targets_of, refused), strict=True))
        tried = list(dict.fromkeys(target for named in targets.values() for target in named))
        whole = {target for place in unreadable for target in targets[place]}
        answers = pool.map(lambda uri: is_readable(uri, is_whole=uri in whole), tried)
        readable = {uri for uri, answer in zip(tried, answers, strict=True) if answer}
    again = [place for place, named in targets.items() if not readable.isdisjoint(named)]
    return pl.DataFrame(again, schema={"source": pl.String, "uri": pl.String}, orient="row")


def without_refused(store: Store, parts: Sequence[PartPlan], params: IngestParams) -> list[PartPlan]:
    """The plans of parts to make, where a part that is there already and holds refusals that have passed is replaced.

    A run that ended without a commit has made such a part: it was killed, or more was refused than the recipe allows.
    Sizes and times of its objects do not change when a disk is mounted. `readable_again` does the same for parts of the
    last commit.

    Args:
        store: The workspace.
        parts: Plans of parts that the last commit does not have.
        params: The recipe's, which are part of a part's name.
    """
    made = set(store.names("pool"))
    plans, looked = list(parts), set[str]()
    # a loop, because a part that was made again may have been refused again, and be there too
    while unseen := [part for part in plans if f"{part.digest}.parquet" in made and part.digest not in looked]:
        looked.update(part.digest for part in unseen)
        again = set(readable_again(store, snapshot_rows(unseen)).iter_rows())
        plans = [
            part.again(params) if any((obj.source, obj.uri) in again for obj in part.objects) else part
            for part in plans
        ]
    return plans


def _temporary_refusals(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """Live rows of the quarantine with a reason that may pass: source, object_uri, key, ordinal, reason."""
    present = set(store.names("quarantine"))
    is_passing = pl.col("reason").is_in([str(reason) for reason in TRANSIENT])
    refused = [pl.DataFrame(schema=_REFUSAL)]
    for part in snapshot["part"].unique().sort():
        if f"{part}.parquet" in present:
            with store.reader(quarantine_key(part)) as handle:
                refused.append(pl.DataFrame(pq.read_table(handle, columns=list(_REFUSAL))).filter(is_passing))
    rows = pl.concat(refused)
    if not rows.is_empty():  # seldom: a million objects are not searched for nothing
        live = snapshot.filter(pl.col("size") >= 0).select("source", pl.col("uri").alias("object_uri"), "part")
        rows = rows.join(live, on=["source", "object_uri", "part"], how="semi", maintain_order="left")
    return rows.select("source", "object_uri", "key", "ordinal", "reason")


def _spread(rows: list[int]) -> list[int]:
    """The rows that are tried, evenly spread over all of them."""
    count = min(len(rows), _TARGETS_PER_OBJECT)
    return [rows[place] for place in np.linspace(0, len(rows) - 1, count).astype(int)]
