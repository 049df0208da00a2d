"""Pools beyond one process's memory, ranked by regions: coverage beside the ranking at once, time, memory, bytes read.

    python tests/bench/bench_regions.py [--quick] [--rows 10000000] [--workers 2] [--work DIR] [--only real made large]

Writes tests/bench/reports/regions.md. Section `real` ranks the vectors of `--vectors`, an .npy file, at once and by
regions, and `made` as many generated ones as `--rows`, a million unless told otherwise; `large` ranks `--rows` vectors
of a LanceDB table by regions alone. Ten million take some 20 GB of disk below `--work`.
"""

import argparse
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report
from bench_scale import RATES, changed_lines
from bench_selection import product_rate

from wtl_core.embedding import staging, vectors
from wtl_core.engines.engine import Engine
from wtl_core.engines.local import LocalEngine
from wtl_core.recipe.selection import LadderParams, SelectionParams
from wtl_core.selection import ladder, ranking
from wtl_core.selection.by_regions.files import Files
from wtl_core.selection.by_regions.ranking import rank_by_regions
from wtl_core.selection.result import Ranking
from wtl_core.workspace.storage import Store, open_store

ENCODER = "b" * 64
D = 128
PERCENTS = (1, 5, 10, 40)


def generated(rows: int, *, seed: int = 0) -> Iterator[np.ndarray]:
    """Clusters of very different sizes, a fifth of the rows in bursts of up to 30 near-copies, (n, D) float16 parts."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(2000, D)).astype(np.float32)
    shares = draw.pareto(1.0, len(centres)) + 0.1
    for start in range(0, rows, 250_000):
        count = min(250_000, rows - start)
        part = centres[draw.choice(len(centres), count, p=shares / shares.sum())]
        part = part + 0.8 * draw.standard_normal((count, D), dtype=np.float32)
        row = 0
        while row < count // 5:
            burst = int(draw.integers(2, 31))
            part[row : row + burst] = part[row]
            row += burst
        part[:row] += 0.02 * draw.standard_normal((row, D), dtype=np.float32)
        yield (part / np.linalg.norm(part, axis=1, keepdims=True)).astype(np.float16)


def ids_of(rows: int, seed: int = 1) -> pl.Series:
    """Distinct ids as long as the workspace's, sorted, in no relation to what the rows hold."""
    keys = np.random.default_rng(seed).integers(0, 1 << 63, rows)
    return pl.Series([f"{key:016x}{row:048x}" for row, key in enumerate(keys.tolist())])


def beside(section: str, matrix: np.ndarray, sizes: tuple[int, ...], options: argparse.Namespace) -> None:
    """A pool ranked at once, and by regions of each of these sizes: a section of its own."""
    ids = ids_of(len(matrix))
    start = time.perf_counter()
    central = ranking.rank(matrix, SelectionParams(), sample_ids=ids.to_list())
    rows = [told("at once", central, central, matrix, ids, time.perf_counter() - start)]

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for row in range(0, len(matrix), 8192):
            yield np.arange(row, min(row + 8192, len(matrix))), matrix[row : row + 8192]

    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            found = rank_by_regions(
                batches,
                SelectionParams(region_size=size),
                sample_ids=ids,
                files=Files(open_store(folder), "regions"),
                engine=LocalEngine(options.workers),
            )
            taken = time.perf_counter() - start
            regions = len(list(Path(folder).rglob("compared-*")))
        rows.append(told(f"by {regions} regions", found, central, matrix, ids, taken))
    text = (
        f"{len(matrix):,} x {matrix.shape[1]}. Coverage is the ladder's, on held-out references; the least share of "
        "that at once is over the first 40 %."
    )
    report.write("regions", section, text, rows, is_quick=options.quick)


def told(
    who: str, found: Ranking, central: Ranking, matrix: np.ndarray, ids: pl.Series, taken: float
) -> dict[str, object]:
    """One row of a section."""
    rungs, at_once = (
        ladder.measure(matrix, ranked, LadderParams(), sample_ids=ids, scale=central.scale)
        for ranked in (found, central)
    )
    at = np.array(PERCENTS) - 1
    share = rungs.coverage / at_once.coverage
    return {
        "ranked": who,
        "seconds": f"{taken:.0f}",
        "coverage 1/5/10/40 %": " ".join(f"{value:.4f}" for value in rungs.coverage[at]),
        "random": " ".join(f"{value:.4f}" for value in rungs.random_coverage_mean[at]),
        "share of that at once": " ".join(f"{value:.4f}" for value in share[at]),
        "least": f"{share[:40].min():.4f}",
        "per cents under random": int((rungs.coverage < rungs.random_coverage_low)[:99].sum()),
        "coverage as the ranking says": " ".join(
            f"{found.coverage[len(matrix) * percent // 100 - 1]:.4f}" for percent in PERCENTS
        ),
    }


def real(options: argparse.Namespace) -> None:
    """Vectors of a file, both ways."""
    given = np.load(options.vectors).astype(np.float32)[: 5_000 if options.quick else None]
    unit = (given / np.linalg.norm(given, axis=1, keepdims=True)).astype(np.float16)
    beside(Path(options.vectors).parent.name, unit, (1_000,) if options.quick else (5_000, 20_000), options)


def made(options: argparse.Namespace) -> None:
    """Generated vectors with clusters and bursts, both ways."""
    matrix = np.concatenate(list(generated(20_000 if options.quick else options.rows)))
    beside(f"Generated, {len(matrix):,}", matrix, (5_000 if options.quick else options.size,), options)


def fill(store: Store, rows: int) -> pl.Series:
    """A table of generated vectors in the store, unless it is there; the ids, sorted."""
    ids = ids_of(rows)
    if vectors.count(store, ENCODER) != rows:
        vectors.drop(store, ENCODER)
        table = vectors.open_table(store, ENCODER, D)
        assert table is not None
        start = 0
        for part in generated(rows):
            named = pa.array(ids.slice(start, len(part)).to_list())
            values = pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), D)
            table.add(pa.table([named, values], schema=staging.schema(D)))
            start += len(part)
    return ids.sort()


class Usage:
    """Memory of this process and its children, and what they read."""

    def __init__(self) -> None:
        self.gigabytes, self.read = 0.0, {}  # type: float, dict[int, int]
        self._is_over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch while a block lasts."""
        before = psutil.Process().io_counters().read_chars
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._is_over.set()
            watcher.join()
            self.read[psutil.Process().pid] -= before

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._is_over.wait(0.2):
            total = 0
            for process in (own, *own.children(recursive=True)):
                try:
                    memory = process.memory_full_info() if process.pid != own.pid else process.memory_info()
                    total += getattr(memory, "pss", memory.rss)
                    self.read[process.pid] = process.io_counters().read_chars
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
            self.gigabytes = max(self.gigabytes, total / 1e9)


class Timed:
    """An engine, and the seconds in which it had work: all others are this process's alone."""

    def __init__(self, inner: Engine) -> None:
        self.inner, self.seconds = inner, 0.0

    def run(self, *arguments: Any, **named: Any) -> Iterator[tuple[int, Any]]:
        """As the engine's own."""
        start = time.perf_counter()
        yield from self.inner.run(*arguments, **named)
        self.seconds += time.perf_counter() - start


def large(options: argparse.Namespace) -> None:
    """A pool in LanceDB, ranked in the whole, and its ladder."""
    rows = 20_000 if options.quick else options.rows
    params = SelectionParams(region_size=5_000 if options.quick else options.size)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        store = open_store(options.work or folder)
        ids = fill(store, rows)
        files = Files(store, f"regions-{rows}")
        store.delete_folder(files.key)
        source = partial(vectors.stream, store, ENCODER, ids)
        usage, engine = Usage(), Timed(LocalEngine(options.workers))
        with usage.watched():
            start = time.perf_counter()
            ranked = rank_by_regions(source, params, sample_ids=ids, files=files, engine=engine)
            taken = time.perf_counter() - start
            measured = ladder.measure(source, ranked, LadderParams(), sample_ids=ids)
            ladder_seconds = time.perf_counter() - start - taken
        written = sum(path.stat().st_size for path in Path(store.path(files.key)).iterdir())
        (sizes,) = files.read("dealt", "sizes")
        store.delete_folder(files.key)
    sizes = sizes.sum(0).astype(np.float64)
    compared = float((sizes * np.where(sizes >= 30_000, 16 * 480 + sizes / 480, sizes)).sum())
    pairs = compared + sizes.sum() * (ranked.exact_until + 16 * len(sizes)) + rows * 10_000
    floor = 2 * pairs * (D + 32) / (product_rate(D + 32, "cpu") * 1e12)
    at = np.array(PERCENTS) - 1
    row = {
        "rows": f"{rows:,}",
        "workers": options.workers,
        "regions": int((sizes > 0).sum()),
        "largest": f"{int(sizes.max()):,}",
        "rank s": f"{taken:.0f}",
        "of it by workers": f"{engine.seconds:.0f}",
        "ladder s": f"{ladder_seconds:.0f}",
        "products alone s": f"{floor:.0f}",
        "ratio": f"{(taken + ladder_seconds) / floor:.2f}",
        "GB of memory, all processes": f"{usage.gigabytes:.2f}",
        "of this process": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f}",
        "GB read": f"{sum(usage.read.values()) / 1e9:.1f}",
        "GB of files": f"{written / 1e9:.1f}",
        "coverage 1/5/10/40 %": " ".join(f"{value:.4f}" for value in measured.coverage[at]),
        "random": " ".join(f"{value:.4f}" for value in measured.random_coverage_mean[at]),
    }
    if options.rates:
        alone = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        values = {
            "seconds_per_image": (taken + ladder_seconds - engine.seconds) / rows,
            "core_seconds_per_image": engine.seconds * options.workers / rows,
            "gib_per_image": alone / rows / 2**30,
            "gib_per_core": (usage.gigabytes * 1e9 - alone) / options.workers / 2**30,
        }
        RATES.write_text("".join(changed_lines(RATES.read_text(), {("regions", k): v for k, v in values.items()})))
    text = (
        f"Vectors of {D} numbers in LanceDB, generated: clusters of very different sizes, a fifth of them in bursts. "
        "All ranks, not only the first; products alone: all that ranking and ladder multiply, at this machine's best."
    )
    report.write("regions", f"{rows:,} vectors", text, [row], is_quick=options.quick)


SECTIONS = {"real": real, "made": made, "large": large}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", help="a folder that the table is kept in")
    parser.add_argument("--vectors", help="an .npy file with vectors, such as CIFAR-10's")
    parser.add_argument("--rates", action="store_true", help="of `large`, into the rates of `wtl plan`")
    parser.add_argument("--size", type=int, default=250_000, help="region_size of generated pools")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=["made", "large"])
    options = parser.parse_args()
    for section in options.only:
        SECTIONS[section](options)


if __name__ == "__main__":
    main()
