"""Embedding killed at random moments and started again: no vector missing, none twice, none from another encoder.

This file is also the script that the tests run: a process that forks workers, which embed a small pool with two
encoders by what the pipeline calls, `embedding_parts`.
"""

import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wtl_core.embedding.embedder import embed
from wtl_core.encoders.cards import save_encoder
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.encoders.resolve import resolve
from wtl_core.workspace.storage import Store

HERE = Path(__file__).resolve()
POOL, PART = 96, 24


@dataclass(frozen=True)
class Prepared:
    """A workspace with an ingested pool and two encoders of the same shape, which no length tells apart."""

    root: Path
    samples: str
    encoders: list[str]
    images: dict[str, bytes]


def prepare(folder: Path) -> Prepared:
    from wtl_core import pipeline
    from wtl_core.machine import Machine

    images = {}
    (folder / "source").mkdir()
    for seed in range(POOL):
        data = make_png(seed)
        images[hashlib.sha256(data).hexdigest()] = data
        (folder / "source" / f"{seed}.png").write_bytes(data)
    store = Store(str(folder / "prepared"))
    run = pipeline.plan_refresh(store, [str(folder / "source")], None, Machine())
    for batch in range(run.batches):
        pipeline.ingest_parts(run, batch)
    pipeline.load_pool(run).samples.write_parquet(folder / "samples.parquet")
    return Prepared(
        folder / "prepared", str(folder / "samples.parquet"), [make_encoder(store, seed) for seed in (1, 2)], images
    )


def make_png(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def make_encoder(store: Store, seed: int) -> str:
    torch.manual_seed(seed)
    shape = NetworkShape("resnet9", 8)
    weights = build_network(shape).state_dict()
    return save_encoder(
        store, weights, shape=shape, preprocessing=Preprocessing(16), number_format="float32", card={"method": "none"}
    )


def embed_pool(root: str, samples_path: str, fingerprints: list[str]) -> None:
    """What is killed: each encoder in turn embeds what it has no vector for."""
    import polars as pl

    from wtl_core.embedding import chunks, compaction, embedder
    from wtl_core.encoders.encoder_ref import EncoderRef

    torch.set_num_threads(1)
    compaction.MAX_AT_WORK = 4  # so that compaction is killed too
    chunks.COMMIT_IMAGES = PART // 2  # so that a part is killed between its commits
    embedder.piece_rows = lambda encoder, workers: PART // 2
    store, samples = Store(root), pl.read_parquet(samples_path)
    for fingerprint in fingerprints:
        encoder = resolve(fingerprint, store, device="cpu")
        ref = EncoderRef(fingerprint, "ssl", fingerprint, encoder.dimensions, None)
        planned = chunks.plan(store, samples, ref, images=PART)
        results = [chunks.run(chunk, store, [encoder], workers=1) for chunk in planned]
        chunks.finish(store, samples, fingerprint, results)


def serve() -> None:
    """Fork a worker for each line on stdin; its pid, then its exit status, on stdout.

    A parent that has imported everything forks, since fifty cold starts would take minutes. It uses nothing of polars
    or LanceDB itself: threads that are at work do not survive a fork.
    """
    warnings.simplefilter("ignore", RuntimeWarning)  # LanceDB on being forked
    importlib.import_module("wtl_core.embedding.chunks")
    list(embed(resolve("pixels", Store("."), device="cpu"), [("warm", make_png(0))]))
    while line := sys.stdin.readline():
        pid = os.fork()
        if pid == 0:
            say(f"{os.getpid()}\nready")
            embed_pool(*json.loads(line))
            os._exit(0)
        sys.stdin.readline()  # until then an ended worker keeps its pid, so that no other process is ever killed
        _, status = os.waitpid(pid, 0)
        say(str(os.waitstatus_to_exitcode(status)))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


class Workers:
    """The other end of `serve`."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self.write, self.read = server.stdin, server.stdout

    def work(self, order: tuple[str, str, list[str]], *, kill_after: float | None) -> tuple[bool, float]:
        """One worker, killed after so many seconds if it still lives then; whether it ended by itself, and seconds."""
        print(json.dumps(order), file=self.write, flush=True)
        pid = int(self.read.readline())
        assert self.read.readline() == "ready\n"
        started = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            os.kill(pid, signal.SIGKILL)
        print("wait", file=self.write, flush=True)
        status = self.read.readline().strip()
        assert status in ("0", "-9"), status
        return status == "0", time.monotonic() - started


@contextmanager
def workers() -> Iterator[Workers]:
    environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1", "RUST_LOG": "error"}
    server = subprocess.Popen(
        [sys.executable, str(HERE)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    served = Workers(server)
    try:
        yield served
    finally:
        served.write.close()
        server.wait(timeout=60)
        served.read.close()


def kill_at_random(folder: Path, kills: int) -> int:
    """Spend the kills, each on what the last one left; a round ends with a worker that did. Rounds behind the first.

    Encoders take turns at being first, so that each meets the other's half-finished work.
    """
    prepared = prepare(folder)
    random = np.random.default_rng(0)
    with workers() as served:
        root = fresh_copy(prepared, folder / "undisturbed")
        is_done, longest = served.work((root, prepared.samples, prepared.encoders), kill_after=None)
        assert is_done
        expected = read_vectors(prepared, root)
        check_own(prepared, expected)
        rounds = attempt = 0
        while kills:
            root, is_done = fresh_copy(prepared, folder / f"round-{rounds}"), False
            while not is_done:
                order = prepared.encoders[:: -1 if attempt % 2 else 1]
                kill_after = random.uniform(0, longest) if kills else None
                is_done, _ = served.work((root, prepared.samples, order), kill_after=kill_after)
                kills, attempt = kills - (not is_done), attempt + 1  # who ended before was not killed
            rounds += 1
            found = read_vectors(prepared, root)
            assert all(np.array_equal(found[name], expected[name]) for name in prepared.encoders)
    return rounds


def fresh_copy(prepared: Prepared, root: Path) -> str:
    shutil.copytree(prepared.root, root)
    return str(root)


def read_vectors(prepared: Prepared, root: str) -> dict[str, np.ndarray]:
    """Each encoder's vectors in the order of the ids; the tables hold each id once, and nothing else is left."""
    from wtl_core.embedding import staging, vectors

    store, ids = Store(root), sorted(prepared.images)
    for name in prepared.encoders:
        table = vectors.open_table(store, name)
        assert table is not None
        assert sorted(table.search().select(["sample_id"]).to_arrow()["sample_id"].to_pylist()) == ids
        assert store.names(f"{staging.FOLDER}/{name}") == []
    assert sorted(store.names("vectors")) == sorted(f"{vectors.table_name(name)}.lance" for name in prepared.encoders)
    return {name: vectors.load(store, name, ids) for name in prepared.encoders}


def check_own(prepared: Prepared, found: dict[str, np.ndarray]) -> None:
    """See that an undisturbed run gives each encoder's vectors, and that these are not each other's."""
    for name in prepared.encoders:
        encoder = resolve(name, Store(str(prepared.root)), device="cpu")
        pieces = embed(encoder, [(key, prepared.images[key]) for key in sorted(prepared.images)])
        own = np.concatenate([piece.vectors for piece in pieces]).astype(np.float32)
        likeness = {other: (own * found[other].astype(np.float32)).sum(axis=1) for other in prepared.encoders}
        assert all((values.min() > 0.999) == (other == name) for other, values in likeness.items())


def test_killed_at_random_moments_no_vector_is_missing_double_or_another_encoders(tmp_path: Path) -> None:
    assert kill_at_random(tmp_path, 5) >= 1


@pytest.mark.slow
def test_killed_at_fifty_random_moments_no_vector_is_missing_double_or_another_encoders(tmp_path: Path) -> None:
    assert kill_at_random(tmp_path, 50) >= 3


if __name__ == "__main__":
    serve()
