"""Ingest and embedding by the engines: processes of this machine beside actors of a Ray cluster on it.

    python tests/bench/bench_engines.py [--only ingest|embedding] [--images 50000] [--repeats 3] [--quick]

Writes tests/bench/reports/engines.md. Reads ../shared/data/cifar10, its training images: 50,000 at most. A cluster is
there before the clock starts. What workers take to start is measured by a run with nothing left to do; figures are
shown with it and without. Needs a machine with nothing else at work.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import report

from wtl_core import pipeline
from wtl_core.embedding import chunks
from wtl_core.encoders import loading
from wtl_core.engines.engine import Needs
from wtl_core.engines.opening import open_engine
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.pool.part_plan import plan_parts
from wtl_core.recipe.recipe import Recipe
from wtl_core.shards import discover
from wtl_core.workspace.storage import Store

CIFAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"
PARAMS = Recipe().ingest.model_copy(update={"part_images": 2500})
CORES = 2
QUICK = {"ingest": 15_000, "embedding": 2_048}
"""Images; fewer are not ingested by workers."""


def write_shards(folder: Path, images: int) -> Path:
    """Parquet shards of 2,500 training images each."""
    folder.mkdir()
    left = images
    for file in sorted(CIFAR.glob("train-*.parquet")):
        for number, batch in enumerate(pq.ParquetFile(file).iter_batches(2500)):
            if left > 0:
                shard = batch.slice(0, left)
                left -= shard.num_rows
                with pq.ParquetWriter(folder / f"{file.stem}-{number}.parquet", shard.schema) as writer:
                    writer.write_batch(shard)
    return folder


def bench_ingest(source: Path, work: Path, repeats: int) -> tuple[str, dict[str, tuple[list[float], list[float]]]]:
    """The same parts by both engines in turn; seconds of the stage, and of workers that find all parts made."""
    plans = plan_parts(discover.list_source(str(source)), PARAMS)
    machines = [Machine(workers=CORES), Machine(workers=CORES, engine="ray")]
    connect(CORES)
    times: dict[str, tuple[list[float], list[float]]] = {machine.engine: ([], []) for machine in machines}
    for number in range(repeats):
        for machine in machines:
            store = Store(str(work / f"{machine.engine}-{number}"))
            whole, start = times[machine.engine]
            whole.append(seconds(lambda s=store, m=machine: ingest.run_many(plans, s, PARAMS, m)))
            worker = ingest.PartWorker(store, PARAMS, ())
            start.append(seconds(lambda w=worker, m=machine: drain(open_engine(m).run(w, plans[:CORES]))))
    return f"{len(plans)} parts of 2,500 images of 32 px, {CORES} workers.", times


def bench_embedding(source: Path, work: Path, repeats: int) -> tuple[str, dict[str, tuple[list[float], list[float]]]]:
    """One worker of a core, two of them, and the local engine on two cores."""
    recipe = Recipe.model_validate({"encoder": {"name": "auto"}})
    here = Machine(workers=CORES)
    run = pipeline.plan_refresh(Store(str(work / "w")), [str(source)], recipe, here)
    for batch in range(run.batches):
        pipeline.ingest_parts(run, batch)
    encoder = pipeline.ensure_encoder(run)
    samples = pipeline.load_pool(run).samples
    times: dict[str, tuple[list[float], list[float]]] = {}
    for _ in range(repeats):
        for workers in (1, 2):
            connect(workers)
            engine = open_engine(Machine(workers=workers, engine="ray"))
            worker = chunks.VectorWorker(run.store, encoder, Machine(workers=1))
            [chunk] = chunks.plan(run.store, samples, encoder, images=samples.height)
            whole, start = times.setdefault(f"ray, {workers} of one core", ([], []))
            whole.append(
                seconds(lambda c=chunk, e=engine, w=worker: chunks.run_spread(c, run.store, e, w, needs=Needs()))
            )
            few = [samples.head(1).select("sample_id", "part", "row")] * workers
            start.append(seconds(lambda e=engine, w=worker, f=few: drain(e.run(w, f))))
            forget(run.store, encoder.fingerprint)
        [chunk] = chunks.plan(run.store, samples, encoder, images=samples.height)
        whole, start = times.setdefault("local, two cores", ([], []))
        start.append(seconds(lambda: loading.on_devices(encoder, run.store, here)))
        networks = loading.on_devices(encoder, run.store, here)
        whole.append(start[-1] + seconds(lambda c=chunk, n=networks: chunks.run(c, run.store, n, workers=CORES)))
        loading.release()
        forget(run.store, encoder.fingerprint)
    return f"{samples.height:,} images of 32 px, {encoder.name} ({encoder.side_px or 'its own'} px).", times


def connect(cores: int) -> None:
    """See that a cluster of so many cores is up."""
    from wtl_core.engines.ray import RayEngine

    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
    drain(RayEngine(None, cpus=cores, gpus=0).run(nothing, [0]))


def nothing() -> type[int]:
    """Makes a worker that does nothing."""
    return int


def forget(store: Store, fingerprint: str) -> None:
    """Drop all vectors."""
    from wtl_core.embedding import vectors

    vectors.drop(store, fingerprint)


def drain(results: Iterable[object]) -> None:
    """Wait for all results."""
    for _ in results:
        pass


def seconds(call: object) -> float:
    """Wall clock of a call."""
    started = time.perf_counter()
    call()  # type: ignore[operator]
    return time.perf_counter() - started


def rows_of(times: dict[str, tuple[list[float], list[float]]]) -> list[dict[str, object]]:
    """A row for each engine: medians, and how they stand to the first."""
    medians = {name: (statistics.median(whole), statistics.median(start)) for name, (whole, start) in times.items()}
    first, first_start = next(iter(medians.values()))
    return [
        {
            "engine": name,
            "seconds": f"{whole:.1f}",
            "of them workers starting": f"{start:.1f}",
            "to the first row": f"{whole / first:.2f}",
            "both without start": f"{(whole - start) / (first - first_start):.2f}",
        }
        for name, (whole, start) in medians.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["ingest", "embedding"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    benches = {"ingest": bench_ingest, "embedding": bench_embedding}
    for name, bench in benches.items():
        if options.only in (None, name) and CIFAR.is_dir():
            with tempfile.TemporaryDirectory() as folder:
                images = QUICK[name] if options.quick else options.images
                source = write_shards(Path(folder) / "source", images)
                text, times = bench(source, Path(folder), repeats)
                report.write("engines", name, text, rows_of(times), is_quick=options.quick)


if __name__ == "__main__":
    main()
