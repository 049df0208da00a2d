"""One refresh, stage by stage: what a plain script calls in a row, and what the flow wraps as tasks.

Stages meet on disk. A `Run` holds what they share; each stage returns a small record.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from wtl_core.embedding import chunks
from wtl_core.embedding.chunks import ChunkResult, Embedded, EmbeddingChunk
from wtl_core.encoders import cards, loading, packages, resolve, weights_files, whitening
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.engines import places
from wtl_core.engines.opening import open_engine, worker_needs
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import splits
from wtl_core.machine import Machine, Progress, Stage, Stopwatch, silent
from wtl_core.pool import ingest, live_pool
from wtl_core.pool.live_pool import Pool
from wtl_core.pool.part_file import PartCounts
from wtl_core.recipe import encoder_names
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import accounts, forecast, last_result, outcome, planning
from wtl_core.refresh.outcome import Results
from wtl_core.refresh.planning import RefreshPlan
from wtl_core.report import contact_sheet, page
from wtl_core.selection import columns, stage, stage_inputs
from wtl_core.training import fitting, making, pool_images, succession
from wtl_core.workspace import commits, lease, ledger, marker, snapshots
from wtl_core.workspace.accounts import PoolAccounts
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.forecasts import Forecast
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store


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

    Arguments and errors are those of `planning.plan`. An encoder that the last refresh did not use is looked for here,
    before any image is read, and raises what `ensure_encoder` does.
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
        batches=planned.batches,
        changes=planned.changes,
        ledger_length=ledger.length(store),
        last=planned.last,
        is_noop=planned.is_noop,
        forecast=_forecast(store, planned, machine),
        planned_before_seconds=before_seconds,
    )
    if planned.is_noop:
        return run
    if planned.last is None or planned.last.recipe.encoder != planned.recipe.encoder:
        _check_encoder(store, planned.recipe.encoder, machine)
    marker.create_workspace(store)
    store.sweep()
    snapshot_key = snapshots.write_snapshot(
        store, planned.snapshot, before=None if planned.last is None else planned.last.listing
    )
    snapshots.note_pending(store, planned.number, snapshot_key)
    return replace(run, snapshot_key=snapshot_key)


def _forecast(store: Store, planned: RefreshPlan, machine: Machine) -> Forecast | None:
    """What the refresh is expected to take, logged before it starts; None where that is not known.

    That is where nothing is to be done, and on a Ray cluster, whose machines are counted when work for them begins.
    """
    if planned.is_noop or (machine.engine == "ray" and machine.ray_address is not None):
        return None
    earlier = commits.readable(store, forecast.REMEMBERED)
    made = forecast.of_run(planned.work, forecast.hardware_of(machine), earlier)
    forecast.log(made)
    return made


def _check_encoder(store: Store, params: EncoderParams, machine: Machine) -> None:
    """Load an encoder, or the weights that training starts from, so that a wrong name ends the run at once."""
    parsed = encoder_names.parse_name(params.name)
    if parsed.kind == "package":
        packages.load_packaged(parsed.value)  # without OpenVINO, which takes seconds to compile it
    elif params.name not in ("auto", "ssl"):
        loading.describe(params.name, store, params, machine)
    elif params.start is not None:
        resolve.start_from(params.start, store, side_px=params.side_px)


def ingest_parts(run: Run, batch: int, *, on_progress: Progress | None = None) -> list[PartCounts]:
    """Make a batch's parts of the pool; parts that exist already are not made again. Progress counts bytes."""
    return ingest.run_many(
        planning.parts_of(run, batch),
        run.store,
        run.recipe.ingest,
        run.machine,
        on_progress=on_progress,
    )


def gather_pool(run: Run) -> PoolAccounts:
    """The row accounts of the pool that the run's parts make.

    Raises:
        InputError: nothing readable is in it.
        QuarantineBudgetError: more is quarantined than the recipe's budget allows.
        InputError: a column that the selection needs is missing or not of numbers.
    """
    live = load_pool(run)
    if live.counts.samples == 0:
        folder = run.store.path("quarantine")
        raise InputError(accounts.nothing_readable_message(live, run.sources, quarantine=folder))
    ingest.check_quarantine_budget(live.quarantine, live.by_source, run.recipe.ingest)
    settled = ledger.settled_ids(ledger.read(run.store, run.ledger_length))
    columns.check(live.samples, run.recipe.selection, settled=settled)
    return accounts.of_pool(run, live)


def ensure_encoder(run: Run, *, on_progress: Progress | None = None) -> EncoderRef:
    """The encoder that the recipe names; one of this workspace's own is made now if there is none yet."""
    params = run.recipe.encoder
    is_ours = encoder_names.is_made_here(params.name)
    resolvable = _own_encoder(run, on_progress) if is_ours else params.name
    return loading.describe(resolvable, run.store, params, run.machine)


def _own_encoder(run: Run, on_progress: Progress | None) -> str:
    """What names the workspace's encoder, or one made now if it has none or a successor is due.

    A successor becomes the workspace's encoder with this refresh's commit. An encoder that an earlier version of wtl
    used as it was, without keeping it, is used on in that way. One that there were too few images to fit is made anew.
    """
    params = run.recipe.encoder
    is_due = last_result.is_successor_due(run.store, run.last, run.recipe)
    current = last_result.current_encoder(run.store, run.last, params.name)
    if current is not None and not is_due and not _is_another_network(run):
        kept = loading.kept(run.store, current)
        if not _needs_another_fit(run, kept):
            return kept or params.name
    made = _make_encoder(run.store, load_pool(run), params, run.machine, on_progress)
    if is_due or succession.successor(run.store, params.name) is not None:
        succession.name_successor(run.store, made, params.name)
    return made


def _needs_another_fit(run: Run, kept: str | None) -> bool:
    """Whether the last refresh took a network as it was, for want of images, and they are there now.

    So does `auto` where nothing is kept: earlier versions kept no such network, and what was chosen is not known.
    """
    if kept is None and run.recipe.encoder.name == "auto":
        return True
    if kept is None:
        was_too_small = run.last is not None and run.last.counts.samples < whitening.LEAST_IMAGES
    else:
        was_too_small = (cards.load_card(run.store, kept) or {}).get(fitting.FITTED_ON) == 0
    return was_too_small and load_pool(run).samples.height >= whitening.LEAST_IMAGES


def _is_another_network(run: Run) -> bool:
    """Whether the recipe's name stands for another network than in the last refresh: another file, or another side.

    What was trained or chosen here stays until it gets a successor, whatever sizes the recipe has now.
    """
    if run.last is None or run.recipe.encoder.name in ("auto", "ssl"):
        return False
    before, now = run.last.recipe.encoder, run.recipe.encoder
    return before.side_px != now.side_px or weights_files.has_changed(run.last.encoder_file, now.name)


def train_successor(
    store: Store, params: EncoderParams | None, machine: Machine, *, on_progress: Progress | None = None
) -> str:
    """Make the workspace's next encoder from its present pool and return its fingerprint; the next refresh uses it.

    Without `params` those of the last recipe hold. The same pool and params give the encoder that is there already.

    Raises:
        ConfigError: the workspace has no pool yet, or its encoder is not one that is made from its pool.
    """
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a pool to train on, found none yet; `wtl run SOURCE` makes one")
    if not encoder_names.is_made_here(last.encoder_name):
        raise ConfigError(
            f"{store.root}: expected an encoder that is made from the pool, found {last.encoder_name!r}; change to one "
            "by `wtl run --encoder auto`, which makes it at once"
        )
    recipe = commits.recipe_of(last)
    live = _pool_of(store, last.listing, recipe.ingest.filters)
    made = _make_encoder(store, live, params or recipe.encoder, machine, on_progress)
    if encoder_names.parse_name(made).kind == "fingerprint":  # a pool of few images leaves a network as it is
        succession.name_successor(store, made, last.encoder_name)
    return made


def _make_encoder(
    store: Store, live: Pool, params: EncoderParams, machine: Machine, on_progress: Progress | None
) -> str:
    """Make an encoder from a pool; what `resolve` finds it by."""
    return making.make(pool_images.of_pool(store, live.samples), store, params, machine, on_progress=on_progress)


def plan_embedding(run: Run, encoder: EncoderRef) -> list[EmbeddingChunk]:
    """Chunks of the samples that have no vector of this encoder yet; on Ray a single one, with which its actors end."""
    samples = load_pool(run).samples
    is_ray = run.machine.engine == "ray"
    images = max(1, samples.height) if is_ray else run.machine.embedding_part_images * run.machine.devices
    return chunks.plan(run.store, samples, encoder, images=images)


def embed_chunk(
    run: Run, encoder: EncoderRef, chunk: EmbeddingChunk, *, on_progress: Progress | None = None
) -> ChunkResult:
    """Embed one chunk on all devices side by side, committing on the way. The network is loaded once per device.

    On Ray it is loaded once per actor.
    """
    is_large = chunk.samples >= chunks.IMAGES_WORTH_A_CLUSTER
    if run.machine.engine == "ray" and (is_large or run.machine.ray_worker_gpus):
        return _embed_on_ray(run, encoder, chunk, on_progress)
    networks = loading.on_devices(encoder, run.store, run.machine)
    return chunks.run(chunk, run.store, networks, workers=run.machine.workers, on_progress=on_progress)


def _embed_on_ray(run: Run, encoder: EncoderRef, chunk: EmbeddingChunk, on_progress: Progress | None) -> ChunkResult:
    needs = worker_needs(run.machine)
    there = Machine(workers=needs.cpus, device=needs.device)
    seen = places.seen_here([run.store.root, *run.sources])
    worker = chunks.VectorWorker(run.store, encoder, there, seen)
    return chunks.run_spread(chunk, run.store, open_engine(run.machine), worker, needs=needs, on_progress=on_progress)


def finish_embedding(run: Run, encoder: EncoderRef, results: Sequence[ChunkResult]) -> Embedded:
    """Release the network, check that no vector is missing, quarantine what was refused, compact the table.

    Raises:
        QuarantineBudgetError: with what the encoder refused, more is quarantined than the recipe's budget allows.
    """
    loading.release()
    live = load_pool(run)
    embedded = chunks.finish(run.store, live.samples, encoder.fingerprint, results)
    if embedded.refused_samples:
        by_source = accounts.by_source(run, live, encoder.fingerprint)
        quarantine = accounts.quarantine(live, run.store, encoder.fingerprint)
        ingest.check_quarantine_budget(quarantine, by_source, run.recipe.ingest)
    return embedded


def select(run: Run, encoder: EncoderRef, *, on_progress: Progress | None = None) -> SelectionRef:
    """Give arrivals their side if the pool is split, rank the samples that may be picked, and measure the ladder."""
    samples = chunks.embeddable(run.store, load_pool(run).samples, encoder.fingerprint)
    near, device = encoder.near_copy_distance, run.machine.device
    length = splits.extend(
        run.store,
        samples,
        run.recipe,
        encoder=encoder.fingerprint,
        near_copy_distance=near,
        entries=run.ledger_length,
        device=device,
    )
    inputs = stage_inputs.read_inputs(
        run.store,
        samples,
        run.recipe,
        encoder=encoder.fingerprint,
        near_copy_distance=near,
        ledger_length=length,
    )
    return stage.run(
        run.store,
        inputs,
        number=run.number,
        device=device,
        engine=open_engine(run.machine),
        needs=worker_needs(run.machine),
        on_progress=on_progress,
    )


def make_record(run: Run, results: Results) -> Commit:
    """The record of the refresh, not yet written: its accounts, the encoder's age, how many picks changed."""
    return outcome.make_record(run, load_pool(run), results)


def write_report(run: Run, record: Commit) -> Commit:
    """Render the report of a refresh and write it where its record says; the record with the seconds that this took."""
    stopwatch = Stopwatch()
    text = page.render(run.store, record, load_pool(run), workers=run.machine.workers)
    run.store.write_bytes(record.report, text.encode("utf-8", "replace"))
    stopwatch.lap("report")
    return outcome.with_seconds(record, stopwatch.seconds)


def draw_contact_sheet(run: Run, record: Commit) -> bytes | None:
    """A small JPEG of what arrived and of the first picks; None if there is nothing to show."""
    return contact_sheet.draw(run.store, record, load_pool(run))


def commit(run: Run, record: Commit) -> None:
    """Write the record, which makes the refresh the workspace's present. Raises what `commits.write` does."""
    commits.write(run.store, record)


def refresh_workspace(
    store: Store,
    sources: Sequence[str],
    recipe: Recipe | None,
    machine: Machine,
    *,
    allow_removal: bool = False,
    forget: Sequence[str] = (),
    stage: Stage = silent,
) -> Commit:
    """The whole refresh as a plain script, without an orchestrator. Returns the workspace's newest commit.

    Arguments and errors are those of the stages above. `stage` shows the progress of those that can take long.
    """
    with lease.hold(store) as held:
        stopwatch = Stopwatch()
        run = plan_refresh(store, sources, recipe, machine, allow_removal=allow_removal, forget=forget)
        if run.is_noop and run.last is not None:
            return run.last
        stopwatch.lap("plan", before_seconds=run.planned_before_seconds)
        for batch in range(run.batches):
            with stage("ingest", "bytes") as on_progress:
                ingest_parts(run, batch, on_progress=on_progress)
        pool = gather_pool(run)
        stopwatch.lap("ingest")
        with stage("encoder", "steps") as on_progress:
            encoder = ensure_encoder(run, on_progress=on_progress)
        stopwatch.lap("encoder")
        embeddings = []
        for chunk in plan_embedding(run, encoder):
            with stage("embedding", "images") as on_progress:
                embeddings.append(embed_chunk(run, encoder, chunk, on_progress=on_progress))
        embedded = finish_embedding(run, encoder, embeddings)
        stopwatch.lap("embedding")
        with stage("selection", "samples compared") as on_progress:
            selection = select(run, encoder, on_progress=on_progress)
        stopwatch.lap("selection")
        record = make_record(run, Results(pool, encoder, embedded, selection, stopwatch.seconds))
        held.check()
        record = write_report(run, record)
        held.check()
        commit(run, record)
        return record


def load_pool(run: Run) -> Pool:
    """The live pool of a run, after its parts are made."""
    return _pool_of(run.store, run.snapshot_key, run.recipe.ingest.filters)


@lru_cache(maxsize=1)
def _pool_of(store: Store, snapshot_key: str, filters: tuple[str, ...]) -> Pool:
    """Loaded once for all stages: a snapshot and its parts never change."""
    return live_pool.load(store, snapshots.read_snapshot(store, snapshot_key), filters=filters)
