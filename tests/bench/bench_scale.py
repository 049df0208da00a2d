"""What size does: a refresh of 1,000 new images in a workspace of a million, and how each stage grows with the pool.

    python tests/bench/bench_scale.py [--only refresh|growth] [--samples 1000000] [--folder DIR] [--quick]

Writes tests/bench/reports/scale.md. Images are generated: tars of 1,000 small JPEGs, in clusters, a tenth of them in
bursts of five. Every run is `wtl run` as a user types it. With --folder the large workspace is kept and used again.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).parent)]

import numpy as np
import report
from bench_pipeline import Row, run
from PIL import Image

from tests.plain_ingest import write_tar

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


def refresh(folder: Path, samples: int) -> list[Row]:
    """A first refresh of the whole pool by `pixels`, then 1,000 new images, then nothing new."""
    source, workspace = folder / "source", folder / "w"
    shards = samples // SHARD
    make_shards(source, range(shards))
    rows = []
    if not workspace.exists():
        done = run(workspace, [str(source), "--encoder", "pixels"])
        rows.append(line(f"first refresh of {samples:,} images", done))
    arrived = len(list(source.glob("*.tar")))
    make_shards(source, range(arrived, arrived + 1))
    rows.append(line(f"{SHARD:,} new images", run(workspace, [])))
    rows.append(line("nothing new", run(workspace, [])))
    return rows


def line(what: str, done: Row) -> Row:
    """Wall clock, peak memory, and each stage's seconds."""
    stages = done["seconds"]
    assert isinstance(stages, dict)
    return {
        "what": what,
        "wall, s": round(float(str(done["wall"])), 1),
        **{f"{stage}, s": round(value, 1) for stage, value in stages.items()},
        "peak, GiB": round(float(str(done["gib"])), 2),
    }


def main() -> None:
    """Run the sections and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    samples = 10_000 if options.quick else options.samples
    with tempfile.TemporaryDirectory() as temporary:
        rows = refresh(options.folder or Path(temporary), samples)
    report.write("scale", f"A refresh of {samples:,} images", str(refresh.__doc__), rows, is_quick=options.quick)


if __name__ == "__main__":
    main()
