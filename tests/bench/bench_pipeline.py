"""The whole refresh, timed: CIFAR-10 from Parquet, 100,000 images from raw tars, and a refresh with nothing new.

    python tests/bench/bench_pipeline.py [--only cifar|hundred|noop] [--quick]

Writes tests/bench/reports/pipeline.md. `cifar` and `hundred` need ../shared/data/cifar10 and are left out without it.
Every run is `wtl run` as a user types it: a process of its own, start-up, Prefect and report included.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import report

from tests.plain_ingest import write_tar
from wtl_core.encoders.cards import save_encoder
from wtl_core.encoders.encoder import default_format
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.workspace.storage import Store

CIFAR = Path(__file__).resolve().parents[3] / "shared" / "data" / "cifar10"
Row = dict[str, object]


def cifar(folder: Path, *, is_quick: bool) -> list[Row]:
    """60,000 photographs, encoder trained on the spot by the shipped recipe, then the same call again."""
    recipe = folder / "recipe.toml"
    recipe.write_text("[encoder]\nseconds = 20\n" if is_quick else "")
    call = [str(CIFAR), "--recipe", str(recipe)]
    first = run(folder / "w", call)
    before = listing(folder / "w")
    second = run(folder / "w", call)
    written = len(set(listing(folder / "w").items()) ^ set(before.items()))
    return [
        row("CIFAR-10, 60,000 images, encoder trained here", first),
        row(f"the same again, nothing new: {written} files written", second),
    ]


def hundred(folder: Path, *, is_quick: bool) -> list[Row]:
    """100,000 JPEGs of 64 px in 100 tars: shifted crops of CIFAR-10's 60,000; a ResNet-18 from a file, and `auto`."""
    count = 2_000 if is_quick else 100_000
    source = make_tars(folder / "source", count)
    weights = resnet18_file(folder / "encoder")
    given = run(folder / "w", [str(source), "--encoder", f"file:{weights}"])
    by_auto = run(folder / "auto", [str(source)])
    what = f"{count:,} images of 64 px in tars"
    return [row(f"{what}, ResNet-18 from a file, to the report", given), row(f"{what}, by `auto`", by_auto)]


def noop(folder: Path, *, is_quick: bool) -> list[Row]:
    """10,000 known shards (tars of one small image each), nothing new."""
    count = 500 if is_quick else 10_000
    source = folder / "source"
    source.mkdir(parents=True)
    for i in range(count):
        write_tar(source / f"{i:05d}.tar", [(f"{i}.jpg", tiny_jpeg(i))])
    first = run(folder / "w", [str(source), "--encoder", "pixels"])
    second = run(folder / "w", [])
    return [
        row(f"{count:,} shards of one image, first refresh", first),
        row(f"{count:,} known shards, nothing new", second),
    ]


def run(workspace: Path, arguments: list[str]) -> Row:
    """`wtl run` in a process of its own: its answer, its wall clock, and its peak memory."""
    wtl = str(Path(sys.executable).with_name("wtl"))
    start = time.perf_counter()
    with subprocess.Popen([wtl, "run", *arguments, "-w", str(workspace), "--json"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        answer: Row = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"wtl run {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return {**answer, "wall": time.perf_counter() - start, "gib": used.ru_maxrss / 2**20}


def listing(workspace: Path) -> dict[str, int]:
    """Every file of a workspace and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in workspace.rglob("*") if path.is_file()}


def row(what: str, done: Row) -> Row:
    """A line of the table; a refresh that had nothing to do has no stages."""
    seconds = done["seconds"] if done["new_samples"] else {}
    assert isinstance(seconds, dict)
    stages = ", ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    return {"what": what, "seconds": f"{done['wall']:.1f}", "stages": stages, "memory": f"{done['gib']:.2f} GiB"}


def make_tars(folder: Path, count: int) -> Path:
    """`count` distinct JPEGs of 64 px in tars of 1,000: crops of CIFAR-10's images, each shifted by a seeded offset."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    files = sorted(CIFAR.glob("*.parquet"))
    images = [image for file in files for image in pq.read_table(file, columns=["image"])["image"].to_pylist()]
    members: list[tuple[str, bytes]] = []
    for i in range(count):
        with Image.open(io.BytesIO(images[i % len(images)]["bytes"])) as image:
            left, top = (int(v) for v in rng.integers(0, 5, 2))
            crop = image.convert("RGB").crop((left, top, left + 28, top + 28)).resize((64, 64))
        buffer = io.BytesIO()
        crop.save(buffer, "JPEG", quality=90)
        members.append((f"{i:06d}.jpg", buffer.getvalue()))
        if len(members) == 1000 or i == count - 1:
            write_tar(folder / f"{i // 1000:03d}.tar", members)
            members = []
    return folder


def tiny_jpeg(seed: int) -> bytes:
    """A 16 px image that differs from every other seed's."""
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def resnet18_file(folder: Path) -> Path:
    """A ResNet-18 for 64 px with seeded random weights, kept as the project keeps encoders."""
    torch.manual_seed(0)
    shape = NetworkShape("resnet18", 64, 4)
    network = build_network(shape)
    store = Store(str(folder))
    number_format = default_format(torch.device("cpu"))
    fingerprint = save_encoder(
        store, network.state_dict(), shape=shape, preprocessing=Preprocessing(64), number_format=number_format, card={}
    )
    return folder / "encoders" / fingerprint / "weights.safetensors"


SECTIONS: dict[str, Callable[..., list[Row]]] = {"cifar": cifar, "hundred": hundred, "noop": noop}


def main() -> None:
    """Run the sections and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SECTIONS))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    for name, section in SECTIONS.items():
        if options.only not in (None, name) or (name != "noop" and not CIFAR.exists()):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows = section(Path(folder), is_quick=options.quick)
        report.write("pipeline", name, str(section.__doc__), rows, is_quick=options.quick)


if __name__ == "__main__":
    main()
