"""The embedding stage on disk: which live samples lack a vector, cut into chunks, and each chunk's vectors.

A chunk is one task's work, some ten thousand images: an orchestrator takes seconds between two tasks. Within a chunk
vectors are committed every few thousand images, so that a kill loses no more than these. `embedder` turns bytes into
vectors, `vectors` has the table that they are appended to.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from queue import SimpleQueue

import numpy as np
import polars as pl

from wtl_core.embedding import embedder, staging, vectors
from wtl_core.encoders import loading
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.engines import places
from wtl_core.engines.engine import Engine, Needs
from wtl_core.errors import TransientError
from wtl_core.machine import Machine
from wtl_core.pool import live_pool
from wtl_core.pool.part_file import quarantine_key
from wtl_core.recipe.base import digest_of
from wtl_core.workspace.storage import Store

_PLACE = ("sample_id", "source", "object_uri", "key", "uri")
_REFUSALS = (*_PLACE, "reason", "message")
COMMIT_IMAGES = 4096
"""Images, for each device, whose vectors are held in memory before they are committed."""

IMAGES_WORTH_A_CLUSTER = 4000
"""Fewer are embedded by this process, before the actors of a cluster have loaded the network."""
_COMMIT_STAGED = 65_536
"""Images whose staged vectors, 64 MB of 512 numbers, are committed at once: a kill loses none of them."""
PIECE_IMAGES, GPU_PIECE_IMAGES = 1024, 16_384
"""Images of an engine's piece, on a core and on a GPU: some seconds of work, so that a few workers end together, and a
network does not wait often for the first images of a piece."""

_committing = threading.Lock()
"""Chunks may run in parallel in one process, but only one thread at a time may append to the table."""


@dataclass(frozen=True)
class EmbeddingChunk:
    """Samples to embed: the rows with this `number` in the plan file at `plan_key`."""

    plan_key: str
    number: int
    samples: int
    fingerprint: str
    dimensions: int


@dataclass(frozen=True)
class Refusal:
    """A sample that the encoder gave no vector for, with a machine-readable reason."""

    sample_id: str
    reason: str
    message: str


@dataclass(frozen=True)
class ChunkResult:
    """The result of a chunk: each of its `images` has a vector or is among the `refusals`; it took `seconds`.

    For a chunk that was tried again, `images` includes those committed before, but `seconds` is the last try alone.
    """

    refusals: list[Refusal]
    images: int
    seconds: float


@dataclass(frozen=True)
class Embedded:
    """The encoder's table once every live sample has a vector or a refusal.

    `images` of the samples were embedded now, in `seconds`, without the time to load the network.
    """

    table_version: int
    vectors: int
    refused_samples: int
    refused_locations: int
    images: int
    seconds: float


def plan(store: Store, samples: pl.DataFrame, encoder: EncoderRef, *, images: int) -> list[EmbeddingChunk]:
    """Chunks of at most `images` samples each, for all samples without a vector, in the order of the pool's parts.

    Args:
        store: The workspace.
        samples: The pool's live samples (`pool.Pool.samples`).
        encoder: What will embed them.
        images: Samples in a chunk.
    """
    fingerprint, dimensions = encoder.fingerprint, encoder.dimensions
    left_over = staging.staged_keys(store, fingerprint)
    vectors.commit_staged(store, fingerprint, left_over, dimensions)
    missing = _without(samples, vectors.existing_ids(store, fingerprint))
    if missing.is_empty():
        return []
    rows = missing.select("sample_id", "part", "row").sort("part", "row").with_row_index("at")
    rows = rows.with_columns(number=(pl.col("at") // images)).drop("at")
    key = f"{_folder(fingerprint)}/plan-{_key(rows)}.parquet"
    store.write_frame(key, rows)
    counts = rows.group_by("number").len().sort("number")
    return [EmbeddingChunk(key, number, count, fingerprint, dimensions) for number, count in counts.iter_rows()]


def run(
    chunk: EmbeddingChunk,
    store: Store,
    encoders: Sequence[Encoder],
    *,
    workers: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> ChunkResult:
    """Embed one chunk and append its vectors to the encoder's table, some thousands at a time.

    Samples that already have a vector, from an earlier try that was killed, are not embedded again.

    Args:
        chunk: One of `plan`'s.
        store: The workspace.
        encoders: The same encoder on each device; each takes a share of the chunk, all are committed at once.
        workers: Threads that decode, over all devices.
        on_progress: Called with (images done, images) from the calling thread.
    """
    started = time.monotonic()
    rows = store.read_frame(chunk.plan_key).filter(pl.col("number") == chunk.number)
    left = _without(rows, vectors.existing_ids(store, chunk.fingerprint))
    done, refusals = rows.height - left.height, list[Refusal]()
    held: list[embedder.Piece] = []
    for piece in _pieces(store, left, encoders, workers=workers):
        held.append(piece)
        refusals.extend(Refusal(*failure) for failure in piece.failures)
        done += len(piece.ids) + len(piece.failures)
        if sum(len(piece.ids) for piece in held) >= COMMIT_IMAGES * len(encoders):
            _commit(chunk, store, held)
            held = []
        if on_progress is not None:
            on_progress(done, rows.height)
    _commit(chunk, store, held)
    return ChunkResult(refusals, images=rows.height, seconds=time.monotonic() - started)


def run_spread(
    chunk: EmbeddingChunk,
    store: Store,
    engine: Engine,
    worker: "VectorWorker",
    *,
    needs: Needs,
    on_progress: Callable[[int, int], None] | None = None,
) -> ChunkResult:
    """Embed one chunk by an engine's workers: these stage vectors, and this process alone appends them to the table.

    What is staged is not lost: it is committed before anything is embedded again.

    Args:
        chunk: One of `plan`'s.
        store: The workspace, which every worker must reach.
        engine: Where the workers are.
        worker: Loads the encoder of the chunk.
        needs: What a worker takes.
        on_progress: Called with (images done, images) from the calling thread.

    Raises:
        ConfigError: a worker staged vectors where this machine does not see them.
        LostWorkersError, TransientError: the engine's.
    """
    started = time.monotonic()
    left_over = staging.staged_keys(store, chunk.fingerprint)
    _commit_keys(chunk, store, left_over)
    rows = store.read_frame(chunk.plan_key).filter(pl.col("number") == chunk.number)
    left = _without(rows, vectors.existing_ids(store, chunk.fingerprint))
    size = GPU_PIECE_IMAGES if needs.gpus else PIECE_IMAGES
    pieces = [left.slice(start, size) for start in range(0, left.height, size)]
    done, refusals, held = rows.height - left.height, list[Refusal](), list[str]()
    for number, staged in engine.run(worker, pieces, needs=needs):
        refusals.extend(staged.refusals)
        done += pieces[number].height
        if staged.key is not None:
            held.append(staged.key)
        if len(held) * size >= _COMMIT_STAGED:
            _commit_keys(chunk, store, held)
            held = []
        if on_progress is not None:
            on_progress(done, rows.height)
    _commit_keys(chunk, store, held)
    return ChunkResult(refusals, images=rows.height, seconds=time.monotonic() - started)


@dataclass(frozen=True)
class Staged:
    """What a worker made of a piece: the key of its staged vectors, None without any, and the samples refused."""

    key: str | None
    refusals: list[Refusal]


@dataclass(frozen=True)
class VectorWorker:
    """What a worker of an engine needs to embed pieces of a workspace's pool.

    Attributes:
        store: The workspace.
        encoder: What embeds.
        machine: What the worker has: a device, and threads that decode.
        places: Local paths that it must see.
    """

    store: Store
    encoder: EncoderRef
    machine: Machine
    places: tuple[str, ...] = ()

    def __call__(self) -> Callable[[pl.DataFrame], Staged]:
        """Stages the vectors of rows of a plan; the network is loaded here, once."""
        places.check_seen(self.places)
        [network] = loading.on_devices(self.encoder, self.store, self.machine)
        return partial(_embed_piece, store=self.store, encoder=network, workers=self.machine.workers)


def _embed_piece(rows: pl.DataFrame, *, store: Store, encoder: Encoder, workers: int) -> Staged:
    pieces = list(embedder.embed(encoder, _images(store, rows), workers=workers))
    refusals = [Refusal(*failure) for piece in pieces for failure in piece.failures]
    return Staged(_stage(store, encoder.fingerprint, pieces), refusals)


def _commit(chunk: EmbeddingChunk, store: Store, pieces: Sequence[embedder.Piece]) -> None:
    """Append the pieces' vectors to the table."""
    key = _stage(store, chunk.fingerprint, pieces)
    if key is not None:
        _commit_keys(chunk, store, [key])


def _stage(store: Store, fingerprint: str, pieces: Sequence[embedder.Piece]) -> str | None:
    """Stage the pieces' vectors; the same samples get the same key. None if there is no vector."""
    ids = [sample_id for piece in pieces for sample_id in piece.ids]
    if not ids:
        return None
    key = digest_of(ids)[:16]
    staging.stage(store, fingerprint, key, ids, np.concatenate([piece.vectors for piece in pieces]))
    return key


def _commit_keys(chunk: EmbeddingChunk, store: Store, keys: Iterable[str]) -> None:
    """Append what is staged under the keys to the table. Raises ConfigError where another machine keeps it."""
    if lost := set(keys) - set(staging.staged_keys(store, chunk.fingerprint)):
        raise places.not_shared(store.path(f"{_folder(chunk.fingerprint)}/{min(lost)}.arrow"))
    with _committing:
        vectors.commit_staged(store, chunk.fingerprint, keys, chunk.dimensions)


def finish(store: Store, samples: pl.DataFrame, fingerprint: str, results: Sequence[ChunkResult]) -> Embedded:
    """After the last chunk: write refusals as quarantine rows, remove the plans, compact and index the table.

    Raises:
        TransientError: a live sample has neither a vector nor a refusal, so a chunk did not run.
    """
    refusals = [refusal for result in results for refusal in result.refusals]
    _write_refusals(store, samples, fingerprint, refusals)
    missing = _without(samples, vectors.existing_ids(store, fingerprint))
    lost = missing.height - len(refusals)
    if lost:
        raise TransientError(
            f"{store.root}: expected a vector or a refusal for each of {samples.height} samples, {lost} have neither; "
            "run again"
        )
    for name in store.names(_folder(fingerprint)):
        store.delete(f"{_folder(fingerprint)}/{name}")
    vectors.compact(store, fingerprint)
    vectors.build_index(store, fingerprint)
    return Embedded(
        table_version=vectors.table_version(store, fingerprint),
        vectors=samples.height - missing.height,
        refused_samples=missing.height,
        refused_locations=int(missing["locations"].sum()),
        images=sum(result.images for result in results),
        seconds=sum(result.seconds for result in results),
    )


def embeddable(store: Store, samples: pl.DataFrame, fingerprint: str) -> pl.DataFrame:
    """The samples that the encoder did not refuse."""
    return _without(samples, refused(store, fingerprint)["sample_id"])


def refused(store: Store, fingerprint: str) -> pl.DataFrame:
    """What the encoder refused when it last embedded: sample_id, source, object_uri, key, uri, reason, message."""
    key = _refusals_key(fingerprint)
    return store.read_frame(key) if store.exists(key) else pl.DataFrame(schema=dict.fromkeys(_REFUSALS, pl.String))


def _pieces(store: Store, rows: pl.DataFrame, encoders: Sequence[Encoder], *, workers: int) -> Iterator[embedder.Piece]:
    """The rows' vectors as they are ready; each of several devices has a thread and a range of rows of its own."""
    share = -(-rows.height // len(encoders))
    done: SimpleQueue[embedder.Piece | None] = SimpleQueue()
    stop = threading.Event()

    def embed(number: int) -> Iterator[embedder.Piece]:
        images = _images(store, rows.slice(number * share, share))
        return embedder.embed(encoders[number], images, workers=max(1, workers // len(encoders)))

    def work(number: int) -> None:
        try:
            for piece in embed(number):
                done.put(piece)
                if stop.is_set():
                    break
        except BaseException:
            stop.set()  # nothing of this chunk will be kept
            raise
        finally:
            done.put(None)

    if len(encoders) == 1:
        yield from embed(0)
        return
    with ThreadPoolExecutor(len(encoders), "wtl-embed") as threads:  # left only when all have ended
        working = [threads.submit(work, number) for number in range(len(encoders))]
        try:
            for _ in working:
                yield from iter(done.get, None)
        finally:
            stop.set()
    for future in working:
        future.result()


def _images(store: Store, rows: pl.DataFrame) -> Iterator[tuple[str, bytes | None]]:
    """The samples' bytes, part by part in row order; None for bytes that are gone."""
    for (part,), group in rows.group_by("part", maintain_order=True):
        ids = dict(zip(group["row"].to_list(), group["sample_id"].to_list(), strict=True))
        for row, data in live_pool.read_images(store, str(part), list(ids)):
            yield ids[row], data


def _write_refusals(store: Store, samples: pl.DataFrame, fingerprint: str, refusals: Sequence[Refusal]) -> None:
    """Replace the encoder's quarantine file by what it refuses now; samples that have a vector leave it."""
    key = _refusals_key(fingerprint)
    if not refusals:
        store.delete(key)
        return
    rows = pl.DataFrame([asdict(refusal) for refusal in refusals])
    store.write_frame(key, samples.select(_PLACE).join(rows, on="sample_id"))


def _without(samples: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    return samples.join(ids.to_frame("sample_id"), on="sample_id", how="anti", maintain_order="left")


def _folder(fingerprint: str) -> str:
    return f"{staging.FOLDER}/{fingerprint}"


def _refusals_key(fingerprint: str) -> str:
    return quarantine_key(f"embedding-{fingerprint}")


def _key(rows: pl.DataFrame) -> str:
    return digest_of(rows["sample_id"].to_list())[:16]
