"""House-keeping of a workspace: what no recent refresh needs is deleted, tables are compacted. Never changes a result.

The policy: the last `keep` refreshes stay whole and can be replayed (parts, vectors, encoder, ranking, ladder,
report), and so does what a killed refresh has done so far. Of older refreshes the record stays, commit and receipt;
their tables, reports, encoders and unfinished trainings go. Never deleted are the ledger, the vectors of labelled
images, the kernel scale of every encoder, and encoders that a kept refresh, its recipe or `encoders/next.json` names.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import polars as pl

from wtl_core.embedding import vectors
from wtl_core.errors import ConfigError
from wtl_core.pool import live_pool
from wtl_core.training import succession
from wtl_core.upkeep import pruning
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_PART_FOLDERS = ("pool", "quarantine", "ignored", "previews")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Maintained:
    """What was done: deleted files by kind, vectors dropped, tables compacted and dropped."""

    deleted: dict[str, int] = field(default_factory=dict)
    vectors_dropped: int = 0
    tables_compacted: int = 0
    tables_dropped: int = 0


def run(store: Store, *, keep: int = 10, keep_days: float = 7.0) -> Maintained:
    """Delete what the last `keep` refreshes do not need, and compact the vector tables. For the holder of the lease.

    Args:
        store: The workspace.
        keep: Refreshes that must stay whole, so that they can be replayed.
        keep_days: Age in days up to which the last hundred versions of a vector table stay, for readers that are at
            work, and unfinished trainings, for who goes on with them.

    Raises:
        ConfigError: a newer version of wtl wrote one of these refreshes, with fields that this one does not know.
    """
    kept = commits.newest(store, keep)
    if not kept:
        return Maintained()
    _check_known(store, kept)
    listings = {commit.listing for commit in kept}
    kept_snapshots = [snapshots.read_snapshot(store, key) for key in sorted(listings)]
    pending = snapshots.pending_snapshot(store, kept[0])
    if pending is not None:
        listings.add(pending[0])
        kept_snapshots.append(pending[1].filter(pl.col("part").is_in(_made_parts(store))))
    parts = {part for snapshot in kept_snapshots for part in snapshot["part"].to_list()}
    encoders = {commit.encoder for commit in kept}
    needed_encoders = pruning.needed_encoders(store, kept)
    refusals = {f"embedding-{fingerprint}" for fingerprint in encoders}
    deleted = {name: _delete_unknown(store, name, parts | refusals) for name in _PART_FOLDERS}
    deleted["listings"] = _delete_unknown(store, "listings", {_stem(key) for key in snapshots.files_of(listings)})
    deleted["selections"] = pruning.prune_selections(store, kept)
    deleted["reports"] = pruning.prune_reports(store, kept)
    deleted["positions"] = pruning.prune_positions(store, encoders | needed_encoders)
    if pending is None:  # what a killed refresh trains, and embeds with, is named nowhere yet
        deleted["encoders"] = pruning.prune_encoders(store, needed_encoders)
        deleted["trainings"] = pruning.prune_trainings(store, needed_encoders, keep_days=keep_days)
        deleted["staging"] = pruning.prune_staging(store)
    needed = {sample_id for snapshot in kept_snapshots for sample_id in live_pool.sample_ids(store, snapshot).to_list()}
    # labelled and skipped images shape rankings even after they have left the pool, also those of before an undo
    needed.update(ledger.read(store).filter(pl.col("kind").is_in(["labelled", "skipped"]))["sample_id"])
    needed.update(
        sample_id for commit in kept for like in commit.recipe.selection.similar_to for sample_id in like.sample_ids
    )
    dropped = sum(_drop_tombstones(store, fingerprint, needed) for fingerprint in sorted(encoders))
    compacted = sum(_compact(store, fingerprint, keep_days) for fingerprint in sorted(encoders))
    retired = _retire_tables(store, encoders) if pending is None else 0
    done = Maintained(deleted, dropped, compacted, retired)
    _logger.info("maintained %s: %s", store.root, done)
    return done


def _check_known(store: Store, kept: Sequence[Commit]) -> None:
    """Refuse to delete what a newer version's refresh may need by a field that this version does not know."""
    unknown = sorted({name for commit in kept for name in commits.unknown_fields(commit)})
    if unknown:
        raise ConfigError(
            f"{store.root}: its refreshes were written by a newer wtl (this one does not know {', '.join(unknown)}), "
            "so nothing is deleted: update wtl"
        )


def _made_parts(store: Store) -> list[str]:
    return [_stem(name) for name in store.names("pool")]


def _delete_unknown(store: Store, folder: str, known: set[str]) -> int:
    unknown = [name for name in store.names(folder) if name.endswith(".parquet") and _stem(name) not in known]
    for name in unknown:
        store.delete(f"{folder}/{name}")
    return len(unknown)


def _drop_tombstones(store: Store, fingerprint: str, needed: set[str]) -> int:
    """Vectors of samples that are in none of the kept pools and not labelled."""
    present = vectors.existing_ids(store, fingerprint)
    gone = present.filter(~present.is_in(list(needed))).sort().to_list()
    if gone:
        vectors.delete_ids(store, fingerprint, gone)
    return len(gone)


def _compact(store: Store, fingerprint: str, keep_days: float) -> bool:
    return vectors.compact(store, fingerprint, keep=timedelta(days=keep_days), is_forced=True)


def _retire_tables(store: Store, encoders: set[str]) -> int:
    """Drop the tables of encoders that no kept refresh used, the named successor's aside."""
    needed = encoders | {fingerprint for fingerprint in [succession.successor(store)] if fingerprint}
    retired = sorted(vectors.fingerprints(store) - needed)
    for fingerprint in retired:
        vectors.drop(store, fingerprint)
    return len(retired)


def _stem(key: str) -> str:
    return key.rsplit("/", 1)[-1].removesuffix(".parquet")
