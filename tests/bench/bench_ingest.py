"""How fast shards become parts, against a bare decode-and-digest loop and a peer; listing, comparing, memory.

    python tests/bench/bench_ingest.py [--quick] [--only ratio shards peer noop million memory]

Writes tests/bench/reports/ingest.md. Photographs are crops of those that scikit-image and scikit-learn ship. All
sections together take some ten minutes on 2 cores and 11 GB of temporary disk.
"""

import argparse
import hashlib
import importlib.util
import io
import os
import re
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report

from wtl_core.machine import Machine
from wtl_core.pool import live_pool
from wtl_core.pool.part_plan import plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.refresh.sources import each_once, split_by_owner
from wtl_core.shards import discover
from wtl_core.shards.objects import SourceObject
from wtl_core.workspace.storage import open_store

Row = tuple[str, str, str, str]
COLUMNS = ("what", "measured", "goal", "how")
PARAMS = IngestParams()


def photographs(count: int, size: tuple[int, int], quality: int = 90) -> list[bytes]:
    """JPEG crops of real photographs, some of them repeated with other bytes behind their end marker."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    sources = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]
    sources += [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    rng = np.random.default_rng(0)
    files = []
    for i in range(min(count, 1000)):
        image = Image.fromarray(sources[i % len(sources)])
        share = rng.uniform(0.3, 0.9)
        width = int(min(image.width, image.height * size[0] / size[1]) * share)
        height = width * size[1] // size[0]
        left, top = rng.integers(0, image.width - width), rng.integers(0, image.height - height)
        buffer = io.BytesIO()
        crop = image.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.LANCZOS)
        crop.save(buffer, "JPEG", quality=quality)
        files.append(buffer.getvalue())
    return [files[i % len(files)] + i.to_bytes(4, "big") for i in range(count)]


def write_tar(path: Path, files: list[bytes], first: int = 0) -> None:
    """A WebDataset-like tar."""
    with tarfile.open(path, "w") as archive:
        for i, data in enumerate(files, first):
            info = tarfile.TarInfo(f"{i:08d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def decode_and_digest(files: list[bytes]) -> float:
    """Seconds of the bare loop: SHA-256 of the bytes and torchvision's decoder, on one thread."""
    import torch
    import torchvision.io as tvio

    start = time.perf_counter()
    for data in files:
        hashlib.sha256(data).hexdigest()
        tvio.decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), tvio.ImageReadMode.RGB)
    return time.perf_counter() - start


def ingest_source(source: Path, workspace: Path, workers: int) -> float:
    """Seconds from listing to finished parts."""
    from wtl_core.pool import ingest  # planning needs no torch, and its memory is measured here without it

    start = time.perf_counter()
    plans = plan_parts(discover.list_source(str(source)), PARAMS)
    ingest.run_many(plans, open_store(str(workspace)), PARAMS, Machine(workers=workers))
    return time.perf_counter() - start


def measure_ratio(folder: Path, quick: bool) -> list[Row]:
    """One core against the bare loop over the same bytes, turn by turn, since a machine's speed drifts."""
    import torch

    torch.set_num_threads(1)
    rows = []
    for size, count, goal in (((64, 64), 6000, 35), ((500, 375), 800, 50)):
        files = photographs(count // 4 if quick else count, size)
        source = folder / f"ratio-{size[0]}"
        source.mkdir()
        write_tar(source / "a.tar", files)
        ingest_source(source, folder / "warm", 1)
        bare, ours = [], []
        for turn in range(5):
            bare.append(decode_and_digest(files))
            ours.append(ingest_source(source, folder / f"ratio-{size[0]}-{turn}", 1))
        fastest = [min(bare) / len(files), min(ours) / len(files)]
        name = f"one core, {size[0]} x {size[1]} px JPEG"
        figure = f"{1 / fastest[1]:,.0f}/s of {1 / fastest[0]:,.0f}/s: {fastest[0] / fastest[1]:.0%}"
        rows.append((name, figure, f">= {goal} %", f"{len(files)} images, the faster of 5 turns each"))
    return rows


def build_hundred_tars(folder: Path, quick: bool) -> tuple[Path, int]:
    """100 tars of 1,000 images of 64 px."""
    source, per_tar = folder / "hundred", 200 if quick else 1000
    if not source.exists():
        source.mkdir()
        files = photographs(100 * per_tar, (64, 64))
        for i in range(100):
            write_tar(source / f"{i:03d}.tar", files[i * per_tar : (i + 1) * per_tar], i * per_tar)
    return source, 100 * per_tar


def measure_shards(folder: Path, quick: bool) -> list[Row]:
    """100,000 small images in 100 tars, all cores; loading the pool they make."""
    source, count = build_hundred_tars(folder, quick)
    workers = os.cpu_count() or 1
    seconds = ingest_source(source, folder / "hundred-w", workers)
    plans = plan_parts(discover.list_source(str(source)), PARAMS)
    start = time.perf_counter()
    loaded = live_pool.load(open_store(str(folder / "hundred-w")), snapshot_rows(plans))
    load_seconds = time.perf_counter() - start
    assert loaded.counts.samples == count
    name = f"{count:,} JPEGs of 64 px in 100 tars"
    return [
        (name, f"{seconds:.1f} s ({count / seconds:,.0f}/s)", "< 30 s", f"{workers} workers, their start included"),
        (f"loading the pool of {count:,}", f"{load_seconds:.2f} s", "", "twins and near-duplicate groups included"),
    ]


PEER = """
import hashlib, io, sys, time
from datasets import Image, load_dataset
start, count = time.perf_counter(), 0
data = load_dataset("webdataset", data_files={"train": sys.argv[1:]}, split="train", streaming=True)
for row in data.cast_column("jpg", Image(decode=False)):
    hashlib.sha256(row["jpg"]["bytes"]).hexdigest()
    import PIL.Image
    PIL.Image.open(io.BytesIO(row["jpg"]["bytes"])).convert("RGB")
    count += 1
print(count / (time.perf_counter() - start))
"""


def measure_peer(folder: Path, quick: bool) -> list[Row]:
    """Hugging Face datasets' WebDataset reader over the same tars, only decoding and digesting."""
    if importlib.util.find_spec("datasets") is None:
        return [("peer: datasets", "not installed", "faster than it", "pip install datasets")]
    source, _ = build_hundred_tars(folder, quick)
    tars = sorted(str(path) for path in source.iterdir())[: 20 if quick else 10]
    part = folder / "peer"
    part.mkdir()
    for path in tars:
        os.link(path, part / Path(path).name)
    count = 0
    for path in tars:
        with tarfile.open(path) as archive:
            count += len(archive.getmembers())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    rates, ours = [], []
    for turn in range(3):
        done = subprocess.run([sys.executable, "-c", PEER, *tars], capture_output=True, text=True, env=environment)
        if done.returncode:
            return [("peer: datasets", "failed", "faster than it", done.stderr.strip().splitlines()[-1][:100])]
        rates.append(float(done.stdout))
        ours.append(count / ingest_source(part, folder / f"peer-w{turn}", 1))
    figure = f"{max(ours):,.0f}/s against {max(rates):,.0f}/s: {max(ours) / max(rates):.1f} x"
    note = f"one core each, {count:,} of the 64 px images; the peer reads, decodes and digests, and measures nothing"
    return [("side by side with datasets", figure, "> 1 x", note)]


def measure_noop(folder: Path, quick: bool) -> list[Row]:
    """What a refresh does first over 10,000 known shards: list, compare."""
    source = folder / "known"
    source.mkdir()
    for i in range(1000 if quick else 10_000):
        path = source / f"{i // 100:03d}"
        path.mkdir(exist_ok=True)
        (path / f"{i:05d}.tar").write_bytes(b"")
    snapshot = snapshot_rows(plan_parts(discover.list_source(str(source)), PARAMS))
    snapshot.write_parquet(folder / "snapshot.parquet")
    start = time.perf_counter()
    changes = discover.diff(discover.list_source(str(source)), pl.read_parquet(folder / "snapshot.parquet"))
    seconds = time.perf_counter() - start
    assert len(changes.kept) == len(snapshot)
    return [(f"listing and comparing {len(snapshot):,} known shards", f"{seconds:.2f} s", "< 10 s", "local folder")]


def generated(count: int) -> Iterator[SourceObject]:
    """Objects of a bucket as its listing gives them, one at a time."""
    for i in range(count):
        uri = f"s3://bucket/data/{i // 1000:05d}/{i:09d}.jpg"
        mtime_ns = 1_700_000_000_000_000_000 + i
        yield SourceObject("s3://bucket/data", uri, "loose", 20_000 + i % 1000, mtime_ns, f"{i * 7919:032x}")


def plan_million(count: str, snapshot: str) -> None:
    """In a process of its own: plan all objects as new; keep a snapshot where a thousandth differs and 5 are gone."""
    listing = discover.as_frame(generated(int(count)))
    start = time.perf_counter()
    plans = plan_parts(listing, PARAMS)
    rows = snapshot_rows(plans)
    print(time.perf_counter() - start, len(plans))
    is_other = pl.int_range(pl.len()) % 1000 == 0
    rows = rows.with_columns(etag=pl.when(is_other).then(pl.lit("old")).otherwise(pl.col("etag")))
    gone = rows[:5].with_columns(uri=pl.col("uri") + ".gone")
    pl.concat([rows, gone]).write_parquet(snapshot, compression="zstd")


def compare_million(count: str, snapshot: str) -> None:
    """In a process of its own: what a refresh does before it plans, from a listing that comes one object at a time."""
    start = time.perf_counter()
    listing = each_once([discover.as_frame(generated(int(count)))])
    listed = time.perf_counter() - start
    start = time.perf_counter()
    known = pl.read_parquet(snapshot)  # by a name, as `refresh.plan` has it until its end
    listing, mine, _ = split_by_owner(listing, known, ["s3://bucket/data"])
    changes = discover.diff(listing, mine)
    compared = time.perf_counter() - start
    assert (len(changes.gone), len(changes.changed)) == (5, int(count) // 1000)
    print(listed, compared, peak_gigabytes())


def measure_million(folder: Path, quick: bool) -> list[Row]:
    """A million generated objects: made into a listing, planned, and compared with their snapshot."""
    count = 100_000 if quick else 1_000_000
    planned, parts = in_child("plan", str(count), str(folder / "snapshot.parquet"))
    # three times: what the allocator gives back differs by some 10 % between runs
    runs = np.array([in_child("compare", str(count), str(folder / "snapshot.parquet")) for _ in range(3)])
    listed, compared, peak = runs.max(0)
    together, how = f"{listed + compared:.1f} s, {peak:.2f} GB", f"comparing alone {compared:.1f} s; worst of 3 runs"
    return [
        (f"{count:,} objects listed and compared", together, "< 120 s, < 1 GB", how),
        (f"{count:,} objects planned as all new", f"{planned:.1f} s", "", f"{parts:,.0f} parts"),
    ]


def ingest_big(source: str, workspace: str) -> None:
    """In a process of its own: one tar is one part, so the work is done in this process, by threads."""
    ingest_source(Path(source), Path(workspace), os.cpu_count() or 1)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(peak_gigabytes(), used.ru_utime + used.ru_stime)


def measure_memory(folder: Path, quick: bool) -> list[Row]:
    """Peak memory of a process that ingests one large tar."""
    files = photographs(500, (1000, 800), quality=97)
    goal = (300 if quick else 5_000) * 1_000_000
    source = folder / "big"
    source.mkdir()
    count = 0
    with tarfile.open(source / "big.tar", "w") as archive:
        while (source / "big.tar").stat().st_size < goal:
            data = files[count % len(files)] + count.to_bytes(8, "big")
            info = tarfile.TarInfo(f"{count:08d}.jpg")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            count += 1
    size = (source / "big.tar").stat().st_size
    start = time.perf_counter()
    peak, spent = in_child("big", str(source), str(folder / "big-w"))
    seconds = time.perf_counter() - start
    name, figure = f"peak memory of a {size / 1e9:.1f} GB tar", f"{peak:.2f} GB, {seconds:.0f} s"
    busy = f"{spent / seconds:.1f} cores busy on average"
    return [(name, figure, "< 1.5 GB", f"{count:,} images of 1000 x 800 px; {busy}")]


CHILDREN: dict[str, Callable[[str, str], None]] = {"plan": plan_million, "compare": compare_million, "big": ingest_big}


def in_child(*arguments: str) -> list[float]:
    """The figures that one of `CHILDREN` prints in a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--child", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def peak_gigabytes() -> float:
    """This process's largest resident size; not `ru_maxrss`, which Linux begins at the parent's largest."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e9


SECTIONS: dict[str, Callable[[Path, bool], list[Row]]] = {
    "ratio": measure_ratio,
    "shards": measure_shards,
    "peer": measure_peer,
    "noop": measure_noop,
    "million": measure_million,
    "memory": measure_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work, printed only")
    parser.add_argument("--only", nargs="*", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CHILDREN[options.child[0]](*options.child[1:])
        return
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="wtl-bench-") as folder:
            found = SECTIONS[name](Path(folder), options.quick)
        rows: list[dict[str, object]] = [dict(zip(COLUMNS, row, strict=True)) for row in found]
        report.write("ingest", name, str(SECTIONS[name].__doc__), rows, is_quick=options.quick)


if __name__ == "__main__":
    main()
