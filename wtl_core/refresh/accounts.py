"""The row accounts of a refresh: what was read, kept, repeated, refused and filtered out, in all and by source.

The equations of `workspace.accounts` hold before embedding and after it.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from wtl_core.embedding import chunks
from wtl_core.embedding.chunks import Embedded
from wtl_core.pool import live_pool
from wtl_core.pool.live_pool import Pool
from wtl_core.workspace import snapshots
from wtl_core.workspace.accounts import Accounts, PoolAccounts, SourceAccounts
from wtl_core.workspace.commits import Changes
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store

_EXAMPLES = 3
"""Refused locations that a refresh names; all of them are in the workspace's `quarantine/`."""


def of_pool(run: Run, live: Pool) -> PoolAccounts:
    """The accounts once all parts are made."""
    counts = live.counts
    return PoolAccounts(
        read=counts.read,
        locations=counts.locations,
        samples=counts.samples,
        duplicates=counts.duplicates,
        quarantined=counts.quarantined,
        ignored=counts.ignored,
        filtered=counts.filtered,
        new_samples=_not_in_former_pool(run, live.samples),
    )


def after_embedding(
    run: Run,
    live: Pool,
    pool_accounts: PoolAccounts,
    embedded: Embedded,
    selection: SelectionRef,
    fingerprint: str,
    *,
    skipped: int,
    held_out: int,
) -> Accounts:
    """The accounts once the encoder `fingerprint` has embedded the pool and it is ranked, without what is left out.

    All locations of a sample that the encoder refused are quarantined, and does not count as new.
    """
    refused_new = 0
    if embedded.refused_samples:
        refused = chunks.refused(run.store, fingerprint)
        refused_new = _not_in_former_pool(run, refused.join(live.samples, on="sample_id", how="semi"))
    counts = {
        **pool_accounts.model_dump(),
        "samples": pool_accounts.samples - embedded.refused_samples,
        "duplicates": pool_accounts.duplicates - (embedded.refused_locations - embedded.refused_samples),
        "quarantined": pool_accounts.quarantined + embedded.refused_locations,
        "new_samples": pool_accounts.new_samples - refused_new,
    }
    return Accounts(
        **counts,
        skipped=skipped,
        held_out=held_out,
        vectors=embedded.vectors,
        ranked=selection.rows,
        picks=selection.picks,
    )


def changes(
    run: Run,
    live: Pool,
    *,
    added: int,
    labelled: int,
    relabelled: int,
    unlabelled: int,
    skipped: int,
    handed_out: int,
) -> Changes:
    """What came and went since the last refresh; samples that came, and what the ledger says, are counted already."""
    refused, gone = live.quarantine, 0
    if run.last is not None:
        former = snapshots.read_snapshot(run.store, run.last.listing)
        refused = refused.join(live_pool.load_quarantine(run.store, former), on="uri", how="anti")
        ids = live_pool.sample_ids(run.store, former).to_frame()
        gone = ids.join(live.samples, on="sample_id", how="anti").height
    examples = refused.sort("uri").select("uri", "reason").head(_EXAMPLES).rows()
    return Changes(
        added=added,
        gone=gone,
        refused=refused.height,
        refused_examples=examples,
        labelled=labelled,
        relabelled=relabelled,
        unlabelled=unlabelled,
        skipped=skipped,
        handed_out=handed_out,
    )


def by_source(run: Run, live: Pool, fingerprint: str) -> dict[str, SourceAccounts]:
    """The accounts by source after embedding: what the encoder refused is quarantined in every source that holds it."""
    refused = chunks.refused(run.store, fingerprint).select("sample_id")
    refused = refused.join(live.samples, on="sample_id", how="semi")
    if refused.is_empty():
        return live.by_source
    locations = live_pool.load_locations(run.store, snapshots.read_snapshot(run.store, run.snapshot_key))
    moved = dict(locations.join(refused, on="sample_id", how="semi").group_by("source").len().iter_rows())
    return {
        source: counts.model_copy(update={"quarantined": counts.quarantined + moved.get(source, 0)})
        for source, counts in live.by_source.items()
    }


def quarantine(live: Pool, store: Store, fingerprint: str) -> pl.DataFrame:
    """`uri`, `reason` and `message` of each location in quarantine, after embedding.

    All locations of a sample that the encoder refused have the `uri` of its first one.
    """
    columns = ("uri", "reason", "message")
    refused = chunks.refused(store, fingerprint).select("sample_id", *columns)
    refused = refused.join(live.samples.select("sample_id", "locations"), on="sample_id", maintain_order="left")
    repeated = np.repeat(np.arange(refused.height), refused["locations"].to_numpy())
    return pl.concat([live.quarantine.select(columns), refused[repeated].select(columns)], how="vertical_relaxed")


def nothing_readable_message(live: Pool, sources: Sequence[str], *, quarantine: str) -> str:
    """The message that refuses a pool without a sample; `quarantine` is the path of the folder with the reasons."""
    found, advice = f"{live.counts.ignored} files that are no images", "check the path"
    if live.counts.quarantined:
        counts = live.quarantine["reason"].value_counts(sort=True)
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts.iter_rows())
        found, advice = f"{live.counts.quarantined} refused ({reasons})", f"the reasons are in {quarantine}"
    return f"{', '.join(sources)}: expected readable images, found {found}; {advice}"


def _not_in_former_pool(run: Run, samples: pl.DataFrame) -> int:
    """How many of the samples were not in the pool of the last refresh."""
    if run.last is None:
        return samples.height
    former = live_pool.sample_ids(run.store, snapshots.read_snapshot(run.store, run.last.listing))
    return samples.join(former.to_frame(), on="sample_id", how="anti").height
