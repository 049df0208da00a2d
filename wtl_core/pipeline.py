"""One refresh, stage by stage: what a plain script calls in a row, and what the flow wraps as tasks.

Stages meet on disk. A `Run` names what they share; each stage returns a small record with its seconds.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

import polars as pl

from wtl_core.embedding import chunks
from wtl_core.embedding.chunks import ChunkResult, Embedded, EmbeddingChunk
from wtl_core.encoders import compiled, resolve, weights_files
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.errors import ConfigError, InputError, TransientError
from wtl_core.machine import Machine, Progress, Stopwatch
from wtl_core.pool import ingest, live_pool
from wtl_core.pool.live_pool import Pool
from wtl_core.pool.part_file import PartCounts
from wtl_core.pool.part_plan import PartPlan
from wtl_core.recipe import encoder_names
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import accounts, encoder_age, planning
from wtl_core.report import page
from wtl_core.selection import stage, stage_inputs
from wtl_core.training import pool_images, succession, training
from wtl_core.workspace import commits, lease, ledger, marker, selections, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store

_PARTS_AT_ONCE = 64
"""Parts that one call of the ingest stage makes; enough to keep every core busy, few enough to retry."""


def plan_refresh(
    store: Store,
    sources: Sequence[str],
    recipe: Recipe | None,
    machine: Machine,
    *,
    allow_removal: bool = False,
    forget: Sequence[str] = (),
) -> Run:
    """Plan a refresh, or follow a plan that was handed over; write the listing snapshot unless there is nothing to do.

    Arguments and errors are those of `planning.plan`.
    """
    planned = planning.ready_plan(store)
    before_seconds = 0.0 if planned is None else planned.seconds
    if planned is None:
        planned = planning.plan(store, sources, recipe, allow_removal=allow_removal, forget=forget)
    run = Run(
        store=store,
        machine=machine,
        recipe=planned.recipe,
        number=planned.number,
        sources=planned.sources,
        snapshot_key="" if planned.last is None else planned.last.listing,
        batches=-(-planned.parts // _PARTS_AT_ONCE),
        changes=planned.changes,
        ledger_length=ledger.length(store),
        last=planned.last,
        is_noop=planned.is_noop,
        planned_before_seconds=before_seconds,
    )
    if planned.is_noop:
        return run
    marker.create_workspace(store)
    store.sweep()
    snapshot_key = snapshots.write_snapshot(store, planned.snapshot)
    snapshots.note_pending(store, planned.number, snapshot_key)
    return replace(run, snapshot_key=snapshot_key)


def ingest_parts(run: Run, batch: int, *, on_progress: Progress | None = None) -> list[PartCounts]:
    """Make a batch's parts of the pool; those that are there already cost a look. Progress counts bytes."""
    return ingest.run_many(
        _parts_of(run, batch),
        run.store,
        run.recipe.ingest,
        workers=run.machine.workers,
        on_progress=on_progress,
    )


def gather_pool(run: Run) -> dict[str, int]:
    """The row accounts of the pool that the run's parts make.

    Raises:
        InputError: nothing readable is in it, or more is quarantined than the recipe's budget allows.
    """
    live = load_pool(run)
    if live.counts.samples == 0:
        raise InputError(accounts.say_nothing_readable(live, run.sources, quarantine=run.store.path("quarantine")))
    ingest.check_quarantine_budget(live.quarantine, live.by_source, run.recipe.ingest)
    before = (
        live_pool.load(run.store, snapshots.read_snapshot(run.store, run.last.listing)).samples if run.last else None
    )
    return accounts.of_pool(live, before)


def ensure_encoder(run: Run, *, on_progress: Progress | None = None) -> EncoderRef:
    """The workspace's current encoder if it answers to the recipe's name, one resolved by name, or one trained now.

    A successor that the recipe's policy has trained here takes over with this refresh's commit.
    """
    name, device = run.recipe.encoder.name, run.machine.device
    resolvable = name
    if encoder_names.is_trained_here(name):
        current = planning.current_encoder(run.store, run.last, name)
        is_due = planning.is_successor_due(run.store, run.last, run.recipe)
        if current is not None and not is_due:
            resolvable = current
        else:
            images = pool_images.of_pool(run.store, load_pool(run).samples)
            resolvable = training.train(
                images,
                run.store,
                run.recipe.encoder,
                device=device,
                devices=run.machine.devices,
                workers=run.machine.workers,
                on_progress=on_progress,
            )
            if is_due:
                succession.name_successor(run.store, resolvable)
    file = weights_files.weights_file(name)  # before it is loaded: a later one would be taken for what is loaded now
    side_px = run.recipe.encoder.side_px
    encoder = resolve.resolve(resolvable, run.store, device=device, side_px=side_px)
    fingerprint = encoder.fingerprint
    if run.recipe.encoder.compile:
        compiled.check_can_compile(device)
        fingerprint = compiled.compiled_fingerprint(fingerprint)
    return EncoderRef(
        fingerprint,
        name,
        resolvable,
        encoder.dimensions,
        file,
        is_compiled=run.recipe.encoder.compile,
        near_copy_distance=encoder.near_copy_distance,
        side_px=side_px,
    )


def train_successor(
    store: Store, params: EncoderParams | None, machine: Machine, *, on_progress: Progress | None = None
) -> str:
    """Train the workspace's next encoder on its present pool; its fingerprint. The next refresh takes it over.

    Without `params` the last recipe's hold. The same pool and params give the encoder that is there already.

    Raises:
        ConfigError: the workspace has no pool yet, or its encoder is not one that is trained here.
    """
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a pool to train on, found none yet; `wtl run SOURCE` makes one")
    if not encoder_names.is_trained_here(last.encoder_name):
        raise ConfigError(
            f"{store.root}: expected an encoder that is trained here, found {last.encoder_name!r}; change to one by "
            "`wtl run --encoder ssl`, which trains it at once"
        )
    recipe = commits.recipe_of(last)
    live = live_pool.load(store, snapshots.read_snapshot(store, last.listing), filters=recipe.ingest.filters)
    images = pool_images.of_pool(store, live.samples)
    fingerprint = training.train(
        images,
        store,
        params or recipe.encoder,
        device=machine.device,
        devices=machine.devices,
        workers=machine.workers,
        on_progress=on_progress,
    )
    succession.name_successor(store, fingerprint)
    return fingerprint


def plan_embedding(run: Run, encoder: EncoderRef) -> list[EmbeddingChunk]:
    """Chunks of the samples that have no vector of this encoder yet."""
    return chunks.plan(
        run.store,
        load_pool(run).samples,
        fingerprint=encoder.fingerprint,
        dimensions=encoder.dimensions,
        images=run.machine.embedding_part_images * run.machine.devices,
    )


def embed_chunk(
    run: Run, encoder: EncoderRef, chunk: EmbeddingChunk, *, on_progress: Progress | None = None
) -> ChunkResult:
    """Embed one chunk on all devices side by side and commit as it goes; a process loads the network once a device."""
    return chunks.run(
        chunk,
        run.store,
        _loaded(encoder, run.store, run.machine.device, run.machine.devices),
        workers=run.machine.workers,
        on_progress=on_progress,
    )


def finish_embedding(run: Run, encoder: EncoderRef, results: Sequence[ChunkResult]) -> Embedded:
    """See that nothing is missing, keep refusals as quarantine rows and the table compact.

    Raises:
        QuarantineBudgetError: with what the encoder refused, more is quarantined than the recipe's budget allows.
    """
    live = load_pool(run)
    embedded = chunks.finish(run.store, live.samples, encoder.fingerprint, results)
    if embedded.refused_samples:
        by_source = accounts.by_source(live, run.store, run.snapshot_key, encoder.fingerprint)
        quarantine = accounts.quarantine(live, run.store, encoder.fingerprint)
        ingest.check_quarantine_budget(quarantine, by_source, run.recipe.ingest)
    return embedded


def select(run: Run, encoder: EncoderRef, *, on_progress: Progress | None = None) -> SelectionRef:
    """Rank what may be ranked, and measure the ladder."""
    inputs = stage_inputs.read_inputs(
        run.store,
        chunks.embeddable(run.store, load_pool(run).samples, encoder.fingerprint),
        run.recipe,
        encoder=encoder.fingerprint,
        near_copy_distance=encoder.near_copy_distance,
        ledger_length=run.ledger_length,
    )
    return stage.run(run.store, inputs, number=run.number, device=run.machine.device, on_progress=on_progress)


def commit(
    run: Run,
    *,
    counts: dict[str, int],
    encoder: EncoderRef,
    embedded: Embedded,
    selection: SelectionRef,
    seconds: dict[str, float],
) -> Commit:
    """Write the report, then the commit that makes all of it the workspace's present."""
    record = Commit(
        number=run.number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sources=run.sources,
        listing=run.snapshot_key,
        recipe=run.recipe,
        encoder=encoder.fingerprint,
        encoder_name=encoder.name,
        encoder_file=encoder.file,
        encoder_age=_age(run, encoder),
        vector_table_version=embedded.table_version,
        ledger_length=run.ledger_length,
        selection=selection.key,
        selection_version=selections.VERSION,
        report=f"reports/{run.number:06d}.html",
        counts=accounts.after_embedding(
            counts, embedded, selection, refused_new=_refused_new(run, encoder) if embedded.refused_samples else 0
        ),
        by_source=accounts.by_source(load_pool(run), run.store, run.snapshot_key, encoder.fingerprint),
        budget=run.recipe.selection.budget,
        picks_kept=_picks_kept(run, selection),
        coverage=selection.coverage,
        random_coverage=selection.random_coverage,
        seconds={stage: round(value, 3) for stage, value in seconds.items()},
    )
    shown = page.render(run.store, record, load_pool(run))
    run.store.write_bytes(record.report, shown.encode())
    commits.write(run.store, record)
    return record


def refresh_workspace(
    store: Store,
    sources: Sequence[str],
    recipe: Recipe | None,
    machine: Machine,
    *,
    allow_removal: bool = False,
    forget: Sequence[str] = (),
) -> Commit:
    """The whole refresh as a plain script, without an orchestrator. Returns the workspace's newest commit."""
    with lease.hold(store) as held:
        stopwatch = Stopwatch()
        run = plan_refresh(store, sources, recipe, machine, allow_removal=allow_removal, forget=forget)
        if run.is_noop and run.last is not None:
            return run.last
        stopwatch.lap("plan", before_seconds=run.planned_before_seconds)
        for batch in range(run.batches):
            ingest_parts(run, batch)
        counts = gather_pool(run)
        stopwatch.lap("ingest")
        encoder = ensure_encoder(run)
        stopwatch.lap("encoder")
        results = [embed_chunk(run, encoder, chunk) for chunk in plan_embedding(run, encoder)]
        embedded = finish_embedding(run, encoder, results)
        stopwatch.lap("embedding")
        selection = select(run, encoder)
        stopwatch.lap("selection")
        held.check()
        return commit(
            run, counts=counts, encoder=encoder, embedded=embedded, selection=selection, seconds=stopwatch.seconds
        )


def load_pool(run: Run) -> Pool:
    """The live pool of a run, after its parts are made."""
    return _pool_of(run.store, run.snapshot_key, run.recipe.ingest.filters)


def _refused_new(run: Run, encoder: EncoderRef) -> int:
    before = (
        live_pool.load_locations(run.store, snapshots.read_snapshot(run.store, run.last.listing)) if run.last else None
    )
    return accounts.refused_new(load_pool(run), before, run.store, encoder.fingerprint)


def _picks_kept(run: Run, selection: SelectionRef) -> float | None:
    if run.last is None:
        return None
    labelled = ledger.sample_ids(ledger.read(run.store, run.ledger_length), "labelled")
    return selections.kept_share(run.store, run.last.selection, selection.key, labelled=labelled)


def _age(run: Run, encoder: EncoderRef) -> commits.Age | None:
    if not encoder_names.is_trained_here(encoder.name):
        return None
    samples = chunks.embeddable(run.store, load_pool(run).samples, encoder.fingerprint)
    return encoder_age.measure(run.store, samples, encoder.fingerprint)


def _parts_of(run: Run, batch: int) -> list[PartPlan]:
    """A batch of the parts that the run makes, in the order of their plan."""
    objects = _fresh_objects(run.store, run.snapshot_key, "" if run.last is None else run.last.listing)
    digests = objects["part"].unique(maintain_order=True)[batch * _PARTS_AT_ONCE :][:_PARTS_AT_ONCE]
    return planning.plans_of(objects.filter(pl.col("part").is_in(digests.implode())))


@lru_cache(maxsize=1)
def _fresh_objects(store: Store, snapshot_key: str, last_key: str) -> pl.DataFrame:
    """The objects of a snapshot whose parts the last one does not hold. Snapshots never change."""
    snapshot = snapshots.read_snapshot(store, snapshot_key).sort("source", "uri")
    if not last_key:
        return snapshot
    return snapshot.join(snapshots.read_snapshot(store, last_key), on="part", how="anti", maintain_order="left")


@lru_cache(maxsize=1)
def _pool_of(store: Store, snapshot_key: str, filters: tuple[str, ...]) -> Pool:
    """Snapshot and parts never change once they are made, and five stages ask for the same pool."""
    return live_pool.load(store, snapshots.read_snapshot(store, snapshot_key), filters=filters)


@lru_cache(maxsize=1)
def _loaded(ref: EncoderRef, store: Store, device: str, devices: int) -> list[Encoder]:
    """The run's network on each device; a file by its name may have been replaced meanwhile."""
    loaded = []
    for place in [device] if devices == 1 else [f"{device}:{number}" for number in range(devices)]:
        encoder = resolve.resolve(ref.resolvable, store, device=place, side_px=ref.side_px)
        if ref.is_compiled:
            encoder = compiled.compiled(encoder)
        if encoder.fingerprint != ref.fingerprint:
            if encoder_names.parse_name(ref.resolvable).kind == "python":
                raise ConfigError(
                    f"{ref.resolvable}: expected the same weights each time that the factory is called, found others; "
                    "seed it, or let it load a file"
                )
            raise TransientError(f"{ref.resolvable}: the weights were replaced while they were in use; run again")
        loaded.append(encoder)
    return loaded
