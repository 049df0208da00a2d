"""Makes parts of the pool from shards: each image is read once, decoded once, and kept or refused with a reason.

Every file, member and row is accounted for. Reading objects is `shards.reader`'s work, writing rows `part_rows`'.

A part is a function of its plan and the params: not of worker count, order, or what is already in the pool.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from wtl_core.engines import places
from wtl_core.engines.opening import open_engine
from wtl_core.errors import QuarantineBudgetError
from wtl_core.machine import Machine, Progress
from wtl_core.pool.part_file import PartCounts, pool_key, read_counts, write_part
from wtl_core.pool.part_plan import PartPlan
from wtl_core.pool.part_rows import RowMaker
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards.objects import ObjectChangedError
from wtl_core.shards.reader import changed_entry, read_objects
from wtl_core.workspace.accounts import SourceAccounts
from wtl_core.workspace.storage import Store

logger = logging.getLogger(__name__)

IMAGES_WORTH_A_WORKER = 4000
"""Starting workers costs some 4 s, once: as much as so many small images."""


def run(
    plan: PartPlan,
    store: Store,
    params: IngestParams,
    *,
    on_progress: Progress | None = None,
    threads: int = 1,
) -> PartCounts:
    """Make one part, or return its counts if it is there.

    Args:
        plan: What to read.
        store: The workspace.
        params: Limits and what to keep.
        on_progress: Called with bytes done and bytes in all, after each object.
        threads: Threads that decode large images; the part is the same with any number.

    Raises:
        TransientError: a store keeps failing; nothing of the part is kept.
    """
    # An object that changes while it is read is refused as changed, and the part is begun again without it: the part's
    # name stands for the listed version, which is gone. The next run lists the new one.
    counts = read_counts(store, plan.digest)
    if counts is not None:
        return counts
    changed: set[str] = set()
    while True:
        try:
            return _make_part(plan, store, params, on_progress, changed, threads)
        except ObjectChangedError as error:
            logger.warning("%r was written to while it was read; the part is begun again without it", error.uri)
            changed.add(error.uri)


def run_many(
    plans: Sequence[PartPlan],
    store: Store,
    params: IngestParams,
    machine: Machine,
    *,
    on_progress: Progress | None = None,
) -> list[PartCounts]:
    """Make all parts, by workers of an engine where that pays, and return their counts in the order of `plans`.

    Args:
        plans: What to read.
        store: The workspace.
        params: Limits and what to keep.
        machine: Its engine and how many workers there are, or what this process uses as threads.
        on_progress: Called with bytes done and bytes in all.

    Raises:
        ConfigError: workers are started from a script without `if __name__ == "__main__":`.
        LostWorkersError: a worker was killed again and again.
        TransientError: a store keeps failing.
    """
    is_worth_it = sum(plan.num_images_estimate for plan in plans) >= IMAGES_WORTH_A_WORKER
    is_alone = machine.engine == "local" and machine.workers < 2
    if is_alone or len(plans) < 2 or not is_worth_it:
        return _run_here(plans, store, params, machine.workers, on_progress)
    counts = {plan.digest: read_counts(store, plan.digest) for plan in plans}
    left = [plan for plan in plans if counts[plan.digest] is None]  # workers take seconds to start
    sizes, total = [plan.size for plan in left], sum(plan.size for plan in plans)
    done = total - sum(sizes)
    sources = {obj.source for plan in left for obj in plan.objects}
    worker = PartWorker(store, params, places.seen_here([store.root, *sources]))
    for number, made in open_engine(machine).run(worker, left, weights=sizes):
        digest = left[number].digest
        if read_counts(store, digest) is None:
            raise places.not_shared(store.path(pool_key(digest)))
        counts[digest] = made
        done += sizes[number]
        if on_progress is not None:
            on_progress(done, total)
    return [each for plan in plans if (each := counts[plan.digest]) is not None]


@dataclass(frozen=True)
class PartWorker:
    """What a worker of an engine needs to make parts of a workspace's pool; local `places` that it must see."""

    store: Store
    params: IngestParams
    places: tuple[str, ...]

    def __call__(self) -> Callable[[PartPlan], PartCounts]:
        """Makes the part of a plan."""
        places.check_seen(self.places)
        return partial(run, store=self.store, params=self.params)


def _run_here(
    plans: Sequence[PartPlan],
    store: Store,
    params: IngestParams,
    threads: int,
    on_progress: Progress | None,
) -> list[PartCounts]:
    """Make the parts one after another in this process: one large shard keeps its cores busy by threads."""
    total, before, counts = sum(plan.size for plan in plans), 0, []
    for plan in plans:

        def advance(done: int, _: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + done, total)

        made = run(plan, store, params, on_progress=advance, threads=threads)
        counts.append(made)
        before += plan.size
        advance(0, total, before)
    return counts


def check_quarantine_budget(
    quarantine: pl.DataFrame, by_source: dict[str, SourceAccounts], params: IngestParams
) -> None:
    """Refuse a pool of which more than `quarantine_budget` of what claimed to be images is quarantined, or all of it.

    Args:
        quarantine: All refusals of the live pool with their `reason`, not only this run's: a single broken arrival
            does not make the pool a broken one, and a pool that was broken stays refused until it is mended.
        by_source: The live pool's accounts of each source.
        params: Holds the budget.

    Raises:
        QuarantineBudgetError: naming share, budget, reasons and the worst source.
    """
    quarantined, locations = quarantine.height, sum(counts.locations for counts in by_source.values())
    is_all = quarantined == locations
    if not locations or (quarantined <= params.quarantine_budget * locations and not is_all):
        return
    reasons = quarantine.group_by("reason").len().sort("len", "reason", descending=[True, False])
    listed = ", ".join(f"{reason} {count}" for reason, count in reasons.iter_rows())
    worst, counts = max(by_source.items(), key=lambda item: item[1].quarantined)
    where = f"; {counts.quarantined} of them in {worst}" if len(by_source) > 1 else ""
    allowed = "none is left to rank" if is_all else f"at most {params.quarantine_budget:.1%} allowed"
    raise QuarantineBudgetError(
        f"{quarantined} of {locations} images ({quarantined / locations:.1%}) are quarantined, {allowed} "
        f"({listed}{where}); mend the files (where it says bad_vector: the encoder)"
        f"{'' if is_all else ' or raise ingest.quarantine_budget'}"
    )


def _make_part(
    plan: PartPlan,
    store: Store,
    params: IngestParams,
    on_progress: Progress | None,
    changed: set[str],
    threads: int,
) -> PartCounts:
    done = 0  # bytes
    with write_part(store, plan.digest) as part, RowMaker(part, params, threads) as rows:
        for obj in (obj for obj in plan.objects if obj.uri in changed):
            rows.add(obj, changed_entry(obj))
        stable = [obj for obj in plan.objects if obj.uri not in changed]
        for obj, entries in read_objects(stable, max_file_bytes=params.max_file_bytes):
            for entry in entries:
                rows.add(obj, entry)
            done += max(obj.size, 0)
            if on_progress is not None:
                on_progress(done, plan.size)
        rows.finish()
        counts = part.counts()
    kept = f"{counts.images} images, {counts.quarantined} quarantined, {counts.ignored} ignored"
    logger.info("part %s: %s", plan.digest[:12], kept)
    return counts
