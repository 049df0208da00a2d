"""How fast pools are ranked, beside other libraries' and beside the machine's own matrix products.

    python tests/bench/bench_selection.py [--quick] [--device cuda] [--only kcenter peers coverage million growth equal]

Writes tests/bench/reports/selection.md. Peers (lightly-mundig, apricot, submodlib) are named where they are missing.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report

from wtl_core.recipe.selection import LadderParams, SelectionParams
from wtl_core.selection import ladder, orders, ranking
from wtl_core.selection.coverage import pick_all
from wtl_core.selection.dense import kernel_matrix
from wtl_core.selection.farthest import FAR, farthest_first
from wtl_core.selection.kernels import ONE, kernel_table
from wtl_core.selection.neighbours import exact_distances, prepare
from wtl_core.selection.result import Ranking

Row = dict[str, object]


@dataclass(frozen=True)
class Bench:
    """What the command line asked for."""

    device: str
    is_quick: bool

    def size(self, full: int, quick: int) -> int:
        """A size, smaller in quick runs."""
        return quick if self.is_quick else full

    def write(self, section: str, text: str, rows: list[Row]) -> None:
        """Into the report; on a card into a section of its own."""
        card = "" if self.device == "cpu" else f" ({torch.cuda.get_device_name()})"
        report.write("selection", section + card, text, rows, is_quick=self.is_quick)


def clusters(rows: int, dimensions: int, *, groups: int = 500, spread: float = 0.7, seed: int = 0) -> np.ndarray:
    """Gaussian clusters on the unit sphere, float16, made a part at a time."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(groups, dimensions)).astype(np.float32)
    vectors = np.empty((rows, dimensions), np.float16)
    for start in range(0, rows, 50_000):
        count = min(50_000, rows - start)
        drawn = centres[generator.integers(0, groups, count)]
        drawn += spread * generator.standard_normal((count, dimensions), dtype=np.float32)
        vectors[start : start + count] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return vectors


def ids_of(rows: int) -> list[str]:
    return [f"{row:09d}" for row in range(rows)]


def seconds(work: Callable[[], object], device: str = "cpu") -> tuple[float, object]:
    """Wall seconds of one call, and what it returned."""
    start = time.perf_counter()
    done = work()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, done


def product_rate(dimensions: int, device: str) -> float:
    """TFLOP/s of this machine's bfloat16 products in the shape that selection uses: the best of five."""
    left = torch.randn(512, dimensions, device=device).bfloat16()
    right = torch.randn(32_768, dimensions, device=device).bfloat16()
    step = 2048 if device == "cpu" else 32_768

    def multiply() -> None:
        for start in range(0, len(right), step):
            torch.mm(left, right[start : start + step].T)

    multiply()
    best = min(seconds(multiply, device)[0] for _ in range(5))
    return 2 * 512 * len(right) * dimensions / best / 1e12


def warm_up(device: str) -> None:
    """Compile and load everything once, so that no figure holds compilation."""
    vectors = clusters(700, 32, groups=20)
    for path in ({}, {"exact_up_to": 100, "neighbours": 16}, {"exact_up_to": 100, "cells_from": 1000}):
        ranked = rank(vectors, device, **path)
    measure(vectors, ranked, device)
    farthest(vectors, 50, device)


def rank(vectors: np.ndarray, device: str, **params: object) -> Ranking:
    model = SelectionParams.model_validate(params)
    return ranking.rank(vectors, model, sample_ids=ids_of(len(vectors)), device=device)


def measure(vectors: np.ndarray, ranked: Ranking, device: str) -> ladder.Ladder:
    return ladder.measure(vectors, ranked, LadderParams(), sample_ids=ids_of(len(vectors)), device=device)


def farthest(vectors: np.ndarray, count: int, device: str) -> np.ndarray:
    points = prepare(vectors, device)
    none = np.zeros(0, np.int64)
    return farthest_first(points, count, given=none, nearest=np.full(len(vectors), FAR), first=0)[0]


def radius_of(vectors: np.ndarray, picks: np.ndarray) -> float:
    """The largest distance from a row to its nearest pick, in float32 of the vectors as given."""
    picked = torch.from_numpy(vectors[picks].astype(np.float32))
    largest = 0.0
    for start in range(0, len(vectors), 4096):
        block = torch.from_numpy(vectors[start : start + 4096].astype(np.float32))
        nearest = (block @ picked.T).argmax(1)
        rows = np.arange(start, start + len(block))
        distances = exact_distances(vectors, rows, picks[nearest.numpy()], vectors)
        largest = max(largest, float(distances.max()))
    return largest


def gigabytes() -> float:
    """The process's largest resident size so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


# Sections.


def kcenter(bench: Bench) -> None:
    """Farthest-first, a tenth of the pool, beside lightly-mundig in the same run."""
    rows, dimensions = bench.size(100_000, 10_000), 384
    count = rows // 10
    vectors = clusters(rows, dimensions)
    taken, picks = seconds(lambda: farthest(vectors, count, bench.device), bench.device)
    floor = 2 * count * rows * 416 / product_rate(416, bench.device) / 1e12
    table: list[Row] = [
        {"who": "wtl", "seconds": f"{taken:.2f}", "radius": f"{radius_of(vectors, picks):.4f}", "floor": f"{floor:.2f}"}
    ]
    if bench.device == "cpu":
        table.append(_mundig(vectors, count, taken))
    text = f"{count:,} of {rows:,} x {dimensions} (500 Gaussian clusters, unit length); floor: the products alone."
    bench.write("k-center", text, table)


def _mundig(vectors: np.ndarray, count: int, ours: float) -> Row:
    try:
        import lightly_mundig
    except ImportError:
        return {"who": "lightly-mundig", "seconds": "not installed"}
    selection = lightly_mundig.Selection()
    selection.add_diversifying_strategy(embeddings=vectors.astype(np.float32).tolist(), strength=1.0)
    taken, picks = seconds(
        lambda: selection.run_selection(preselected_indices=[], n_total_samples=len(vectors), n_samples_to_select=count)
    )
    radius = radius_of(vectors, np.asarray(picks))
    return {"who": "lightly-mundig", "seconds": f"{taken:.2f} ({taken / ours:.1f} x)", "radius": f"{radius:.4f}"}


def peers(bench: Bench) -> None:
    """Facility location as others offer it, on the same kernel; their clocks start with the kernel matrix made."""
    rows, count = bench.size(10_000, 2_000), bench.size(1_000, 200)
    vectors = clusters(rows, 128, groups=100)
    alone = _seconds_to_pick(vectors, count)
    taken, ranked = seconds(lambda: rank(vectors, "cpu", has_duplicate_weights=False, budget=count))
    assert isinstance(ranked, Ranking)
    kernel = kernel_matrix(prepare(vectors), kernel_table("gaussian", ranked.scale)).astype(np.float32) / ONE
    objective = lambda picks: float(kernel[np.asarray(picks)].max(0).sum(dtype=np.float64)) / rows  # noqa: E731
    own = objective(ranked.rows[:count])
    table: list[Row] = [
        {"who": f"wtl, {count:,} picks of the kernel made", "seconds": f"{alone:.2f}", "objective": f"{own:.6f}"},
        {"who": "wtl, kernel and whole order", "seconds": f"{taken:.2f}", "objective": f"{own:.6f}"},
    ]
    for name, work in (("apricot", _apricot), ("submodlib", _submodlib)):
        try:
            other, picks = seconds(lambda work=work: work(kernel, count))
        except ImportError:
            table.append({"who": name, "seconds": "not installed"})
            continue
        times = f"{other:.2f} ({other / alone:.1f} x)"
        table.append({"who": name, "seconds": times, "objective": f"{objective(picks):.6f}"})
    text = f"{count:,} picks of {rows:,} x 128, Gaussian kernel; clocks start once it is made, but in the second row."
    bench.write("Facility location beside apricot and submodlib", text, table)


def _seconds_to_pick(vectors: np.ndarray, count: int) -> float:
    """Of the picks alone with their certificate, as the peers' clocks run: by what `rank` has made."""
    made: list[Any] = []

    def keep(*given: Any, **options: Any) -> Any:
        made.append(given)
        return pick_all(*given, **options)

    with patch.object(orders, "pick_all", keep):
        rank(vectors, "cpu", has_duplicate_weights=False, budget=count)
    return seconds(lambda: pick_all(*made[0], until=count))[0]


def _apricot(kernel: np.ndarray, count: int) -> np.ndarray:
    from apricot import FacilityLocationSelection

    wide = kernel.astype(np.float64)
    return np.asarray(FacilityLocationSelection(count, metric="precomputed", optimizer="lazy").fit(wide).ranking)


def _submodlib(kernel: np.ndarray, count: int) -> np.ndarray:
    from submodlib import FacilityLocationFunction

    function = FacilityLocationFunction(n=len(kernel), mode="dense", sijs=kernel, separate_rep=False)
    picks = function.maximize(budget=count, optimizer="LazyGreedy", show_progress=False)
    return np.asarray([row for row, _ in picks])


def coverage(bench: Bench) -> None:
    """The whole order and its ladder."""
    rows = bench.size(100_000, 20_000)
    vectors = clusters(rows, 512)
    before = gigabytes()
    first, ranked = seconds(lambda: rank(vectors, bench.device), bench.device)
    assert isinstance(ranked, Ranking)
    second, rungs = seconds(lambda: measure(vectors, ranked, bench.device), bench.device)
    assert isinstance(rungs, ladder.Ladder)
    rate = product_rate(544, bench.device)
    floor = (2 * rows * rows * 544 + 2 * 10_000 * rows * 544) / rate / 1e12
    row: Row = {
        "rank s": f"{first:.1f}",
        "ladder s": f"{second:.1f}",
        "floor s": f"{floor:.1f}",
        "ratio": f"{(first + second) / floor:.2f}",
        "TFLOP/s": f"{rate:.3f}",
        "GB (before)": f"{gigabytes():.2f} ({before:.2f})",
        "exact until": ranked.exact_until,
        "coverage 1/5/10 %": " ".join(f"{rungs.coverage[p - 1]:.4f}" for p in (1, 5, 10)),
        "random": " ".join(f"{rungs.random_coverage_mean[p - 1]:.4f}" for p in (1, 5, 10)),
        "proven share": " ".join(f"{rungs.optimum_share[p - 1]:.3f}" for p in (1, 5, 10)),
    }
    text = f"Whole order of {rows:,} x 512 with its ladder on 10,000 held-out references; floor: the products alone."
    bench.write("Coverage, the whole order", text, [row])


def million(bench: Bench) -> None:
    """A million's whole order, and what the cells cost in coverage on parts that can be ranked by all pairs."""
    rows = bench.size(1_000_000, 40_000)
    vectors = clusters(rows, 512)
    taken, ranked = seconds(
        lambda: rank(vectors, bench.device, **({"cells_from": 10_000} if bench.is_quick else {})), bench.device
    )
    assert isinstance(ranked, Ranking)
    row: Row = {"rows": f"{rows:,}", "seconds": f"{taken:.1f}", "GB": f"{gigabytes():.2f}"}
    for size, beside in ((bench.size(30_000, 5_000), {"exact_up_to": 30_000}), (bench.size(100_000, 10_000), {})):
        part = vectors[:size]
        exact, cheap = rank(part, bench.device, **beside), rank(part, bench.device, exact_up_to=100, cells_from=1000)
        counts = [size * percent // 100 for percent in (1, 5, 10)]
        shares = [true_coverage(part, cheap, count) / true_coverage(part, exact, count) for count in counts]
        name = "the whole matrix" if beside else "the graph of all pairs"
        row[f"{size:,}: coverage over that by {name}, 1/5/10 %"] = " ".join(f"{share:.4f}" for share in shares)
    bench.write("Coverage of a million", f"{rows:,} x 512, the shipped parameters; on a card all pairs.", [row])


def true_coverage(vectors: np.ndarray, ranked: Ranking, count: int) -> float:
    """Coverage of a prefix on 10,000 rows, by plain float32."""
    picked = torch.from_numpy(vectors[ranked.rows[:count]].astype(np.float32))
    rows = torch.from_numpy(vectors[:: max(1, len(vectors) // 10_000)].astype(np.float32))
    nearest = torch.cat([(part @ picked.T).amax(1) for part in rows.split(1024)])
    distances = (2 - 2 * nearest).clamp_min(0).sqrt().double()
    return float(torch.exp(-((distances / ranked.scale) ** 2)).mean())


def growth(bench: Bench) -> None:
    """Seconds by size, with the exponent of all sizes together; the curve as a picture beside the report."""
    sizes = [10_000, 20_000, 50_000, 100_000, 250_000, 1_000_000] if not bench.is_quick else [5_000, 10_000]
    taken = []
    for rows in sizes:
        vectors = clusters(rows, 512)
        taken.append(seconds(lambda vectors=vectors: rank(vectors, bench.device), bench.device)[0])
    exponent = float(np.polyfit(np.log(sizes), np.log(taken), 1)[0])
    table: list[Row] = [
        {"rows": f"{rows:,}", "seconds": f"{took:.2f}"} for rows, took in zip(sizes, taken, strict=True)
    ]
    text = (
        f"Whole orders, 512 dimensions: the time grows as N^{exponent:.2f}. Up to 16,000 rows by the whole matrix, "
        "from 250,000 on by cells. The picture: selection_growth.svg."
    )
    bench.write("Growth", text, table)
    if not bench.is_quick:
        draw_growth(sizes, taken, exponent)


def draw_growth(sizes: list[int], taken: list[float], exponent: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="rows", ylabel="seconds", xscale="log", yscale="log")
    axes.plot(sizes, taken, "o-", label=f"whole order, N^{exponent:.2f}")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(report.FOLDER / "selection_growth.svg", metadata={"Date": None})


def equal(bench: Bench) -> None:
    """Whether this device gives the processor's ranking."""
    table: list[Row] = []
    for rows in (3_000, bench.size(30_000, 6_000)):
        vectors = clusters(rows, 512, groups=100)
        one, other = rank(vectors, "cpu", exact_up_to=5_000), rank(vectors, bench.device, exact_up_to=5_000)
        count = rows // 10
        same = one.rows == other.rows
        row: Row = {"rows": f"{rows:,}", "same until rank": int(same.argmin()) if not same.all() else rows}
        shared = np.intersect1d(one.rows[:count], other.rows[:count])
        row["shared in first 10 %"] = f"{len(shared) / count:.4f}"
        row["coverage difference, largest"] = f"{np.abs(one.coverage - other.coverage).max():.1e}"
        row["paths"] = f"{one.numeric_path}, {other.numeric_path}"
        table.append(row)
    bench.write("The same ranking on another device", "Rows up to 5,000 by the whole matrix, more by the graph.", table)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "equal": equal,
    "kcenter": kcenter,
    "peers": peers,
    "coverage": coverage,
    "growth": growth,
    "million": million,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes, printed only")
    parser.add_argument("--device", default=report.default_device())
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS))
    arguments = parser.parse_args()
    bench = Bench(arguments.device, arguments.quick)
    warm_up(bench.device)
    for name in arguments.only or [name for name in SECTIONS if name != "equal" or bench.device != "cpu"]:
        SECTIONS[name](bench)


if __name__ == "__main__":
    main()
