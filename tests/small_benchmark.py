"""A benchmark of two classes on tiny images, for several test modules and for a process that is killed."""

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from wtl_core.benchmark import grid, preparation, work
from wtl_core.benchmark.params import BenchmarkParams
from wtl_core.benchmark.preparation import Prepared
from wtl_core.workspace.storage import Store, open_store

Finished: TypeAlias = tuple[Path, Store, Prepared, int]
"""A folder with the set, the store of its benchmark, what is prepared in it, and how many cells were judged."""


PARAMS = BenchmarkParams(
    encoder="pixels", side_px=16, budgets=(10, 30), loop_budget=30, seeds=3, loop_seeds=2, has_flips=False,
    strategies=("random", "class-balanced-random", "coverage", "margin"), judges=("nearest", "probe"),
)  # fmt: skip


def write_set(folder: Path, *, count: int = 150, label_seed: int = 0) -> Path:
    """Two classes, bright above or below; another `label_seed` deals the same labels out anew."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, count)
    shown = truth if not label_seed else np.random.default_rng(label_seed).permutation(truth)
    for number, (kind, label) in enumerate(zip(truth, shown, strict=True)):
        pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8)
        pixels[8 * kind : 8 * kind + 8] += 100
        place = folder / ("train" if number % 5 else "test") / str(label)
        place.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        (place / f"{number}.png").write_bytes(buffer.getvalue())
    return folder


def run_all(output: Path, dataset: Path, params: BenchmarkParams = PARAMS) -> tuple[Store, Prepared, int]:
    store = open_store(str(output))
    prepared = preparation.prepare(store, str(dataset), params, device="cpu")
    for order in grid.missing_orders(store, prepared, params):
        work.make_order(store, prepared, order, device="cpu")
    done = [work.run_batch(store, prepared, params, b, device="cpu") for b in batches(store, prepared, params)]
    return store, prepared, sum(done)


def batches(store: Store, prepared: Prepared, params: BenchmarkParams = PARAMS) -> list[grid.Batch]:
    return grid.plan_batches(store, prepared, params, device="cpu", least_seconds=0.5)
