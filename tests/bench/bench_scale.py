"""What size does: a refresh of 1,000 new images in a workspace of a million, and how each stage grows with the pool.

    python tests/bench/bench_scale.py [--samples 1000000] [--rates] [--quick]

Writes tests/bench/reports/scale.md. Images are generated: tars of 1,000 small JPEGs, in clusters, a tenth of them in
bursts of five. Every run is `wtl run` as a user types it. With --rates it also
writes the rates of `wtl plan`.
"""

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

import numpy as np
import report
from bench_pipeline import Row, run
from PIL import Image

from tests.conftest import make_jpeg
from tests.plain_ingest import write_tar
from wtl_core.encoders.resolve import resolve
from wtl_core.machine import this_machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import forecast
from wtl_core.refresh.source_sample import Sample, draw, images_per_second
from wtl_core.refresh.sources import Scope, list_objects
from wtl_core.workspace.storage import Store

RATES = Path(forecast.__file__).with_name("rates.toml")
SIDE, SHARD, CLUSTERS, BURST = 16, 1000, 400, 5


def make_shards(folder: Path, numbers: range) -> Path:
    """One tar of `SHARD` images for each number; the same number always gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    centres = np.random.default_rng(7).integers(0, 256, (CLUSTERS, 4, 4, 3))
    for number in numbers:
        path = folder / f"{number:06d}.tar"
        if not path.exists():
            write_tar(path, list(images(number, centres)))
    return folder


def images(number: int, centres: np.ndarray) -> Iterator[tuple[str, bytes]]:
    """The images of a shard: a cluster's colours, varied; every tenth image begins a burst of nearly equal ones."""
    rng = np.random.default_rng([1, number])
    varied = centres[0]
    for place in range(SHARD):
        if place % (10 * BURST) >= BURST or place % (10 * BURST) == 0:
            varied = centres[rng.integers(CLUSTERS)] + rng.normal(0, 40, (4, 4, 3))
        pixels = np.kron(varied, np.ones((SIDE // 4, SIDE // 4, 1))) + rng.normal(0, 6, (SIDE, SIDE, 3))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
        yield f"{number:06d}-{place:04d}.jpg", buffer.getvalue()


def growth(folder: Path, sizes: list[int]) -> list[Row]:
    """By `pixels`: a first refresh, 1,000 more images, and nothing new; memory is the run's own process."""
    rows = []
    for size in sizes:
        workspace, source = folder / f"w{size}", make_shards(folder / f"source{size}", range(size // SHARD))
        rows.append(line("first", size, run(workspace, [str(source), "--encoder", "pixels"])))
        make_shards(source, range(size // SHARD, size // SHARD + 1))
        rows.append(line("1,000 more", size, run(workspace, [])))
        nothing = run(workspace, [])
        rows.append(line("nothing new", size, {**nothing, "seconds": {}}))
    return rows


def line(what: str, size: int, done: Row) -> Row:
    """Wall clock of the process and of each stage, and its peak memory."""
    stages = done["seconds"]
    assert isinstance(stages, dict)
    return {
        "images": f"{size:,}",
        "refresh": what,
        "wall, s": round(float(str(done["wall"])), 1),
        **{f"{stage}, s": round(value, 2) for stage, value in stages.items()},
        "peak, GiB": round(float(str(done["gib"])), 2),
    }


def exponents(rows: list[Row]) -> list[Row]:
    """By which power of the pool's size each figure grows, from the last but one size to the last."""
    found: list[Row] = []
    for what in ("first", "1,000 more"):
        before, last = [row for row in rows if row["refresh"] == what][-2:]
        sizes = [int(str(row["images"]).replace(",", "")) for row in (before, last)]
        powers: Row = {"images": f"{sizes[0]:,} to {sizes[1]:,}", "refresh": f"{what}, by the power"}
        for name, high in last.items():
            low = before[name]
            if isinstance(low, float) and isinstance(high, float) and min(low, high) > 0:
                powers[name] = round(float(np.log(high / low) / np.log(sizes[1] / sizes[0])), 2)
        found.append(powers)
    return found


def measure_rates(folder: Path, rows: list[Row]) -> str:
    """The text of `rates.toml`: rates of one core from samples of generated sources, and curves from the rows."""
    found = [sampled(folder / f"rates-{side}", side) for side in (64, 640)]
    seconds, megabytes = ([getattr(one, name) for one in found] for name in ("seconds_per_image", "megabytes"))
    per_image = [total / one.images for total, one in zip(megabytes, found, strict=True)]
    per_megabyte = max((seconds[1] - seconds[0]) / (per_image[1] - per_image[0]), 0.0)
    store, workers = Store(str(folder / "rates-w")), this_machine().workers
    network = resolve("package:efficientnet-lite0", store, device="cpu", side_px=96)
    plain = resolve("pixels", store, device="cpu")
    first, more = ([row for row in rows if row["refresh"] == what] for what in ("first", "1,000 more"))
    once = [max(round(float(str(a["report, s"])) - float(str(b["report, s"])), 2), 0.01)
            for a, b in zip(first, more, strict=True)]  # fmt: skip
    sizes = [int(str(row["images"]).replace(",", "")) for row in more]
    values: dict[tuple[str, str], object] = {
        ("", "measured"): f"{report.machine()}; {datetime.now(UTC):%Y-%m-%d}; commit {report.commit()}",
        ("ingest", "seconds_per_image"): max(seconds[0] - per_megabyte * per_image[0], 1e-6),
        ("ingest", "seconds_per_megabyte"): per_megabyte,
        ("embedding", "package"): images_per_second(network, found[0].files, workers=workers),
        ("embedding", "pixels"): images_per_second(plain, found[0].files, workers=workers),
        ("selection", "seconds"): [row["selection, s"] for row in more],
        ("report", "seconds"): [row["report, s"] for row in more],
        ("map", "seconds"): once,
        **{(table, "rows"): sizes for table in ("selection", "report", "map")},
        **{(table, "gib"): [row["peak, GiB"] for row in more] for table in ("selection", "report", "map")},
    }
    return "".join(changed_lines(RATES.read_text(), values))


def changed_lines(text: str, values: dict[tuple[str, str], object]) -> Iterator[str]:
    """The lines of a TOML file with other values, by table and name; comments stay."""
    table, left = "", dict(values)
    for written in text.splitlines(keepends=True):
        table = written.split("]")[0][1:] if written.startswith("[") else table
        name, equals, old = written.partition(" = ")
        if not equals or (table, name) not in left:
            yield written
            continue
        value = left.pop((table, name))
        shown = json.dumps(value) if isinstance(value, (str, list)) else f"{value:.3g}"
        comment = old.partition(" # ")[2].rstrip()
        yield f"{name} = {shown}" + (f" # {comment}" if comment else "") + "\n"
    assert not left, left


def sampled(folder: Path, side: int) -> Sample:
    """A sample of 400 generated JPEGs of this side."""
    folder.mkdir(parents=True)
    for number in range(400):
        (folder / f"{number}.jpg").write_bytes(make_jpeg(number, side))
    return draw(list_objects(Store(str(folder / "w")), Scope([str(folder)], [], [])), Recipe().ingest)


def main() -> None:
    """Run, write the report, and with --rates the rates of `wtl plan`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--rates", action="store_true")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    sizes = [1000, 10_000] if options.quick else [1000, 10_000, 100_000, options.samples]
    with tempfile.TemporaryDirectory() as folder:
        rows = growth(Path(folder), sizes)
        report.write("scale", "Refreshes", str(growth.__doc__), [*rows, *exponents(rows)], is_quick=options.quick)
        if options.rates:
            text = measure_rates(Path(folder), rows)
            print(text) if options.quick else RATES.write_text(text)


if __name__ == "__main__":
    main()
