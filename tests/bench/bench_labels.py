"""Labels that come back: how fast a large file is entered, and how many wrong labels are found.

    python tests/bench/bench_labels.py [--quick] [--only speed errors] [--data FOLDER] [--seeds 10]

`speed` enters 100,000 labels into a pool of 1,000,000 images that is made of nothing but rows. `errors` needs FOLDER
(../shared/data/cifar10; without it nothing is done), as bench_selection_quality.py does. Writes
tests/bench/reports/labels.md.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report

from wtl_core.labelling import labels
from wtl_core.pool import part_file
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.storage import Store

Row = dict[str, object]
PART_IMAGES = 10_000


def make_pool(folder: Path, count: int) -> Store:
    """A workspace of two images, to whose pool `count` loose files in a thousand folders are added as rows."""
    from tests.conftest import make_jpeg  # here: the process that is measured does without torch
    from tests.plain_refresh import refresh
    from wtl_core.embedding import vectors

    (folder / "photos").mkdir()
    (folder / "photos" / "a.jpg").write_bytes(make_jpeg(1))
    (folder / "photos" / "b.jpg").write_bytes(make_jpeg(2))
    last = refresh(folder / "w", folder / "photos")
    store = Store(str(folder / "w"))
    listing = snapshots.read_snapshot(store, last.listing)
    [first, *_] = pl.read_parquet(store.path(part_file.pool_key(listing["part"][0]))).iter_slices(1)
    generator = np.random.default_rng(0)
    objects = [listing]
    for number in range(count // PART_IMAGES):
        part = f"{number:064x}"
        ids = [generator.bytes(32).hex() for _ in range(PART_IMAGES)]
        uris = [f"/data/pictures/camera-{row % 1000}/IMG_{number:04d}_{row:05d}.jpg" for row in range(PART_IMAGES)]
        names = {"sample_id": ids, "uri": uris, "object_uri": uris}
        rows = pl.concat([first] * PART_IMAGES).with_columns(
            *(pl.Series(name, values) for name, values in names.items()), part=pl.lit(part)
        )
        store.write_frame(part_file.pool_key(part), rows)
        objects.append(pl.concat([listing.head(1)] * PART_IMAGES).with_columns(uri=pl.Series(uris), part=pl.lit(part)))
        table = vectors.open_table(store, last.encoder)
        assert table is not None
        dimensions = table.schema.field("vector").type.list_size
        zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(dimensions * PART_IMAGES, np.float16)), dimensions)
        table.add(pa.table({"sample_id": ids, "vector": zeros}))
    key = snapshots.write_snapshot(store, pl.concat(objects))
    commits.write(store, last.model_copy(update={"number": last.number + 1, "listing": key}))
    return store


def enter(workspace: str, file: str) -> None:
    """In a process of its own: what `wtl labels add` does."""
    started = time.perf_counter()
    added = labels.add(Store(workspace), Path(file))
    print(added.added, time.perf_counter() - started, sum(os.times()[:2]), peak_gigabytes())


def peak_gigabytes() -> float:
    """This process's largest resident size; not `ru_maxrss`, which Linux begins at the parent's largest."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1e6


def measure_speed(*, is_quick: bool) -> None:
    pool, count = (100_000, 10_000) if is_quick else (1_000_000, 100_000)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_pool(folder, pool)
        uris = [
            f"/data/pictures/camera-{row % 1000}/IMG_{number:04d}_{row:05d}.jpg" for row, number in drawn(pool, count)
        ]
        for how, names in (
            ("by path", uris),
            ("by the end of a path", [uri.split("/", 3)[3] for uri in uris]),
            ("by file name", [uri.rsplit("/", 1)[1] for uri in uris]),
        ):
            classes = [f"class {row % 200}" for row in range(count)]
            pl.DataFrame({"path": names, "label": classes}).write_csv(folder / "labels.csv")
            shutil.rmtree(folder / "w" / "ledger", ignore_errors=True)
            command = [sys.executable, __file__, "--child", str(folder / "w"), str(folder / "labels.csv")]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            added, seconds, busy, peak = map(float, done.stdout.split())
            assert added == count, added
            rows.append(
                {
                    "images are named": how,
                    "seconds": f"{seconds:.1f}",
                    "with imports, processor": f"{busy:.1f}",
                    "peak": f"{peak:.2f} GB",
                }
            )
    text = f"`labels add` of {count:,} rows of CSV with 200 classes into a pool of {pool:,}."
    report.write("labels", "Speed", text, rows, is_quick=is_quick)


def drawn(pool: int, count: int) -> list[tuple[int, int]]:
    chosen = np.random.default_rng(1).choice(pool, count, replace=False)
    return [(int(row % PART_IMAGES), int(row // PART_IMAGES)) for row in chosen]


def measure_errors(folder: Path, *, seeds: int, is_quick: bool) -> None:
    """Labels of which one in twenty was flipped to another class: how many of the most doubtful ones are those."""
    from bench_selection_quality import load  # here: torch

    from wtl_core.labelling.label_errors import opinions

    data = load(folder)
    pools = [("balanced", size) for size in ((1_000,) if is_quick else (1_000, 5_000, 20_000))] + [
        ("long tail 50:1", 0)
    ]
    rows: list[Row] = []
    for name, size in pools:
        drawn: dict[str, list[float]] = {}
        for seed in range(seeds):
            generator = np.random.default_rng(seed)
            chosen = (
                generator.choice(len(data.train), size, replace=False) if size else long_tail(data.labels, generator)
            )
            values, right = data.train[chosen], data.labels[chosen].astype(np.int64)
            wrong = np.zeros(len(right), bool)
            wrong[generator.choice(len(right), len(right) // 20, replace=False)] = True
            given = np.where(wrong, (right + generator.integers(1, 10, len(right))) % 10, right)
            started = time.perf_counter()
            found = opinions(values, given, classes=10)
            seconds = time.perf_counter() - started
            listed = (found.best != given) & (found.favourite == found.best)
            first = np.argsort(found.doubt, kind="stable")
            count = int(wrong.sum())
            for what, value in (
                ("labels", len(right)),
                ("flipped", count),
                ("precision at the number flipped", wrong[first[:count]].mean()),
                ("at half of it", wrong[first[: count // 2]].mean()),
                ("listed", listed.sum()),
                ("flipped ones that are listed", wrong[listed].sum() / count),
                ("right class suggested for these", (found.best == right)[listed & wrong].mean()),
                ("seconds", seconds),
            ):
                drawn.setdefault(what, []).append(float(value))
        shares = ("precision", "at half", "flipped ones", "right class")
        rows.append(
            {"pool": name}
            | {
                what: f"{100 * np.mean(values):.1f} % (sd {100 * np.std(values, ddof=1):.1f})"
                if what.startswith(shares)
                else f"{np.mean(values):,.1f}"
                if what == "seconds"
                else f"{np.mean(values):,.0f}"
                for what, values in drawn.items()
            }
        )
    text = (
        f"CIFAR-10's vectors of a SimCLR network, {seeds} draws each; 5 % of the labels are flipped to another class, "
        "uniformly. Precision is the share of flipped labels among the most doubtful ones. The set's own labels count "
        "as right, which a few are not."
    )
    report.write("labels", "Label errors", text, rows, is_quick=is_quick)


def long_tail(labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Rows of classes whose sizes fall from 2,000 to 40."""
    sizes = (2_000 * 50.0 ** (-generator.permutation(10) / 9)).astype(int)
    rows = [generator.choice(np.flatnonzero(labels == label), size, replace=False) for label, size in enumerate(sizes)]
    return generator.permutation(np.concatenate(rows))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=["speed", "errors"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "cifar10")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--child", nargs=2)
    given = parser.parse_args()
    if given.child:
        enter(*given.child)
        return
    if "speed" in given.only:
        measure_speed(is_quick=given.quick)
    if "errors" in given.only and given.data.exists():
        measure_errors(given.data, seeds=2 if given.quick else given.seeds, is_quick=given.quick)


if __name__ == "__main__":
    main()
