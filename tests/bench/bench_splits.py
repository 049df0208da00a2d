"""What a split by groups is worth: by how much a model flatters itself on a test side, and how long a split takes.

    python tests/bench/bench_splits.py [--quick] [--only flattery speed] [--data FOLDER] [--work FOLDER] [--seeds 20]

`flattery` makes two pools with bursts of other images of FOLDER (../shared/data/cifar10; without it, it does nothing),
embeds both, splits each in both ways, and judges what is taught by the training side of one pool on its own test side
and on the whole other pool: the difference is by how much it flatters itself. `speed` splits vectors in clusters.
Writes tests/bench/reports/splits.md.
"""

import argparse
import io
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report
import torch
from bench_selection_quality import linear_probe, nearest_vote

from tests.plain_refresh import refresh
from wtl_core.benchmark import datasets, pools
from wtl_core.embedding import vectors
from wtl_core.labelling import split_groups, splits
from wtl_core.labelling.split_draw import draw_sides
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe
from wtl_core.selection.identity import content_keys, draw
from wtl_core.workspace import snapshots
from wtl_core.workspace.storage import Store

SHARES = [0.8, 0.0, 0.2]
ENCODER = "package:efficientnet-lite0"
Row = dict[str, object]


def make_pools(data: Path, folder: Path, scenes: int) -> tuple[Store, pl.DataFrame]:
    """A workspace of two pools with bursts; of each image its `pool`, `label`, `scene`, and what `Pool.samples` has."""
    train = datasets.load(str(data), side_px=32, folder=folder).train
    chosen = np.random.default_rng(0).permutation(len(train))[: 2 * scenes]
    tables = []
    (folder / "source").mkdir(exist_ok=True)
    for name, rows in (("a", chosen[:scenes]), ("b", chosen[scenes:])):
        pool = pools.make("bursts", train.take(np.sort(rows)), seed=1)
        images = []
        for row in range(len(pool.labels)):
            buffer = io.BytesIO()
            Image.fromarray(pool.images[row].transpose(1, 2, 0)).save(buffer, "PNG")
            images.append({"bytes": buffer.getvalue(), "path": f"{name}{row}.png"})
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        if not (file := folder / "source" / f"{name}.parquet").exists():
            pq.write_table(pa.table({"image": pa.array(images, kind)}), file)
        keys = [image["path"] for image in images]
        tables.append(pl.DataFrame({"name": keys, "pool": name, "label": pool.labels, "scene": pool.origin}))
    last = refresh(folder / "w", folder / "source", recipe=Recipe.model_validate({"encoder": {"name": ENCODER}}))
    store = Store(str(folder / "w"))
    samples = live_pool.load(store, snapshots.read_snapshot(store, last.listing)).samples
    named = samples.with_columns(name=pl.col("uri").str.extract(r"([^/#]*)$"))
    return store, named.join(pl.concat(tables), on="name").sort("sample_id")


def measure_flattery(data: Path, work: Path | None, *, seeds: int, is_quick: bool) -> None:
    with nullcontext(work) if work else tempfile.TemporaryDirectory() as name:
        store, table = make_pools(data, Path(name).resolve(), 300 if is_quick else 2_000)
        last = splits.cut.latest_refresh(store)
        recipe, encoder = last.recipe, last.encoder
        receipt = splits.selections.read_receipt(store, last.selection)
        distance, _ = splits.link_distances(store, recipe, encoder, receipt["near_copy_distance"])
        matrix = vectors.load(store, encoder, table["sample_id"].to_list())
    unit = torch.from_numpy(matrix.astype(np.float32))
    labels = torch.from_numpy(table["label"].to_numpy().copy())
    flattery: dict[tuple[str, str], list[list[float]]] = {}
    cut: dict[str, list[float]] = {}
    for own in ("a", "b"):
        here = np.flatnonzero((table["pool"] == own).to_numpy())
        there = np.flatnonzero((table["pool"] != own).to_numpy())
        samples = table[here.tolist()].with_columns(split=pl.lit(None, pl.String))
        groups = split_groups.find(samples, matrix[here], distance=distance, group_by=[], shares=SHARES, device="cpu")
        sizes = np.bincount(groups.of)
        scenes = samples["scene"].to_numpy()
        for seed in range(seeds):
            group_keys = content_keys([f"{seed}-{group}" for group in range(len(sizes))])
            sides, _ = draw_sides(sizes, np.zeros(len(sizes), np.int64), group_keys, shares=SHARES)
            naive = (
                draw(content_keys([f"{seed}-{key}" for key in samples["sample_id"]]), seed, 99) / 2.0**64 >= SHARES[0]
            )
            for how, is_test in (("by groups", sides[groups.of] == 2), ("image by image", naive)):
                taught, judged = here[~is_test], here[is_test]
                both = [len(set(is_test[scenes == scene].tolist())) > 1 for scene in np.unique(scenes)]
                cut.setdefault(how, []).append(float(np.sum(both)))
                for model, predict in (("20 nearest neighbours", nearest_vote), ("linear probe", linear_probe)):
                    right = [
                        100 * float((predict(unit[taught], labels[taught], unit[rows]) == labels[rows]).double().mean())
                        for rows in (judged, there)
                    ]
                    flattery.setdefault((how, model), []).append(right)
    rows: list[Row] = []
    for (how, model), found in flattery.items():
        values = np.array(found)
        by_seed = (values[:, 0] - values[:, 1]).reshape(2, seeds).mean(0)
        rows.append(
            {
                "split": how,
                "bursts cut": f"{np.mean(cut[how]):.1f}",
                "model": model,
                "on its test side": f"{values[:, 0].mean():.1f} %",
                "on the other pool": f"{values[:, 1].mean():.1f} %",
                "flatters itself by": f"{by_seed.mean():+.1f} points (sd {by_seed.std(ddof=1):.1f})",
            }
        )
    text = (
        f"Two pools of CIFAR-10, each of {len(scenes):,} images: {len(np.unique(scenes)):,} scenes, of which a tenth "
        f"has 4 to 40 near-copies (shifted, brighter or darker, noisy). {ENCODER}, links within {distance:.3f}, "
        f"80 % training and 20 % test, {seeds} draws, each in both pools. The other pool has no scene in common."
    )
    report.write("splits", "Flattery", text, rows, is_quick=is_quick)


def measure_speed(*, is_quick: bool) -> None:
    rows: list[Row] = []
    for count in (10_000,) if is_quick else (100_000, 1_000_000):
        generator = np.random.default_rng(0)
        values = generator.standard_normal((200, 128), np.float32)[generator.integers(0, 200, count)]
        values += 1.5 * generator.standard_normal(values.shape, np.float32)
        burst = generator.choice(count, count // 5, replace=False)
        values[burst] = values[generator.choice(count // 100, count // 5)]
        values[burst] += 0.05 * generator.standard_normal((count // 5, 128), np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        samples = pl.DataFrame(
            {
                "sample_id": [f"{row:064x}" for row in range(count)],
                "split": pl.Series([None] * count, dtype=pl.String),
                "pixel_digest": [f"{row:032x}" for row in range(count)],
                "metadata": [f'{{"recording": {row // 50}}}' if row % 10 == 0 else None for row in range(count)],
                "phash": generator.integers(1, 2**63, count).astype(np.uint64),
            }
        )
        started, busy = time.perf_counter(), time.process_time()
        found = split_groups.find(
            samples,
            values.astype(np.float16),
            distance=0.1,
            group_by=["recording"],
            shares=[0.8, 0.1, 0.1],
            device=report.default_device(),
        )
        linked = time.perf_counter()
        sizes = np.bincount(found.of)
        keys = content_keys(samples["sample_id"].gather(np.unique(found.of, return_index=True)[1]).to_list())
        sides, _ = draw_sides(sizes, np.zeros(len(sizes), np.int64), keys, shares=[0.8, 0.1, 0.1])
        rows.append(
            {
                "images": f"{count:,}",
                "groups": f"{len(sizes):,}",
                "links": f"{linked - started:.1f} s",
                "draw": f"{time.perf_counter() - linked:.1f} s",
                "processor": f"{time.process_time() - busy:.1f} s",
                "shares": " / ".join(f"{(sides[found.of] == side).mean():.3%}" for side in range(3)),
            }
        )
    text = (
        "Vectors of 128 numbers in 200 clusters, a fifth of them in bursts, a tenth in recordings. All pairs are "
        "compared up to 250,000 images, near k-means cells above."
    )
    report.write("splits", "Speed", text, rows, is_quick=is_quick)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="*", default=["flattery", "speed"])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "cifar10")
    parser.add_argument("--work", type=Path, help="keeps the two pools, so that they are embedded once")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    if "flattery" in options.only and options.data.is_dir():
        measure_flattery(
            options.data, options.work, seeds=2 if options.quick else options.seeds, is_quick=options.quick
        )
    if "speed" in options.only:
        measure_speed(is_quick=options.quick)


if __name__ == "__main__":
    main()
