"""What a ranking is worth: accuracy on its picks beside random's and other objectives', on real vectors.

    python tests/bench/bench_selection_quality.py [--data FOLDER] [--quick] [--only balanced longtail ...] [--seeds 10]

    [--device cuda] [--workers 8] [--methods coverage k-center]

FOLDER (../shared/data/cifar10; without it nothing is done) holds `train-embeddings.npy`, `test-embeddings.npy` and the
Parquet shards with labels, in the same row order. `--only tail` takes other sets' vectors from bench_proof's output.
Labels score the picks; no choice sees them. Writes tests/bench/reports/selection_quality.md.
"""

import argparse
import hashlib
import heapq
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import report

from wtl_core.benchmark import judges
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import ranking
from wtl_core.selection.dense import kernel_matrix
from wtl_core.selection.identity import content_keys, shuffled
from wtl_core.selection.kernels import ONE, WEIGHT_ONE, kernel_table, median_scale
from wtl_core.selection.linear_probe import fit_probe
from wtl_core.selection.neighbours import Graph, Points, exact_graph, level_distances, level_of, prepare
from wtl_core.selection.neighbours_cuda import exact_graph_on_cuda
from wtl_core.selection.ranking import Steering
from wtl_core.selection.steering import whole_weights
from wtl_core.selection.student import quantile

CIFAR = ROOT.parent / "shared" / "data" / "cifar10"
BUDGETS = (50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000)
PERCENTS = (1, 2, 5, 10, 15, 20, 25, 30, 35, 40, 50, 60, 70, 80, 90)
RANDOM_DRAWS = 5
RIVALS = ("k-center", "probability-coverage", "typicality", "stratified-random")
Row = dict[str, object]


@dataclass(frozen=True)
class Data:
    """Unit vectors of a pool and of held-out images, with labels that only scores see."""

    train: np.ndarray
    labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def load(folder: Path) -> Data:
    """Vectors and labels in row order of the shards taken by name."""
    train, test = (unit(np.load(folder / f"{part}-embeddings.npy").astype(np.float32)) for part in ("train", "test"))
    return Data(train, _labels(folder, "train"), test, _labels(folder, "test"))


def _labels(folder: Path, part: str) -> np.ndarray:
    """From the shards, or from `<part>-labels.npy` for a machine that cannot read them."""
    if (folder / f"{part}-labels.npy").exists():
        return np.load(folder / f"{part}-labels.npy")
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"{part}-*.parquet"))
    return np.concatenate([pq.read_table(file, columns=["label"])["label"].to_numpy() for file in files])


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def sample(data: Data, seed: int, share: float = 0.9) -> Data:
    """A random part of the pool: each seed is another pool, so that rankings vary as random draws do."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(data.train))[: int(share * len(data.train))])
    return Data(data.train[rows], data.labels[rows], data.test, data.test_labels)


def long_tail(data: Data, seed: int, ratio: float = 50.0, burst_share: float = 1 / 3) -> Data:
    """Class sizes falling by 50 to 1, a share of the images as bursts of 2 to 12 near-copies."""
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(data.train))
    classes = generator.permutation(10)
    kept = []
    for place, label in enumerate(classes):
        rows = order[data.labels[order] == label]
        kept.append(rows[: int(len(rows) * ratio ** (-place / 9))])
    rows = np.concatenate(kept)
    copies = np.where(generator.random(len(rows)) < burst_share, generator.integers(2, 13, len(rows)), 1)
    repeated = np.repeat(rows, copies)
    noise = generator.standard_normal((len(repeated), data.train.shape[1]), dtype=np.float32)
    vectors = unit(data.train[repeated] + 0.1 / np.sqrt(data.train.shape[1]) * noise)
    return Data(vectors, data.labels[repeated], data.test, data.test_labels)


def order_by(data: Data, params: dict[str, object], device: str) -> np.ndarray:
    """A ranking's rows."""
    if params.get("objective") == "mundig":
        return _mundig(data.train)
    # Ids as in a workspace, where they say nothing of class or burst: ties of gains go by them.
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(data.train))]
    params = dict(params)
    tail, density = params.pop("tail", None), params.pop("density", None)
    if density is not None:
        return _rank_by_density(data, ids, device)
    if tail is not None:
        head = order_by(data, {}, device)[: len(ids) // 4]
        model = SelectionParams.model_validate({"objective": tail})
        return ranking.rank(data.train, model, sample_ids=ids, steering=Steering(frozen=head), device=device).rows
    return ranking.rank(data.train, SelectionParams.model_validate(params), sample_ids=ids, device=device).rows


def _rank_by_density(data: Data, ids: list[str], device: str) -> np.ndarray:
    """Coverage with weights that rise with the distance to the 20th neighbour: sparse regions count for more."""
    levels = look(prepare(data.train, device), 21, near_level=0).levels
    reach = level_distances()[levels[:, -1]]
    weights = np.clip(reach / np.median(reach), 0.1, 10.0)
    return ranking.rank(
        data.train, SelectionParams(), sample_ids=ids, steering=Steering(weights=weights), device=device
    ).rows


def look(points: Points, neighbours: int, *, near_level: int) -> Graph:
    """Neighbours on either device."""
    work = exact_graph_on_cuda if points.right.is_cuda else exact_graph
    return work(points, neighbours, near_level=near_level)


def _mundig(vectors: np.ndarray) -> np.ndarray:
    import lightly_mundig

    selection = lightly_mundig.Selection()
    selection.add_diversifying_strategy(embeddings=vectors.tolist(), strength=1.0)
    picks = selection.run_selection(
        preselected_indices=[], n_total_samples=len(vectors), n_samples_to_select=min(5000, len(vectors))
    )
    return np.asarray(picks)


def random_order(data: Data, seed: int) -> np.ndarray:
    return shuffled(content_keys([f"{row:06d}" for row in range(len(data.train))]), seed, 99)


def scores(data: Data, order: np.ndarray, budgets: list[int], device: str) -> np.ndarray:
    """Accuracy in points of a linear probe and of 20-NN at each budget, (budgets, 2); NaN past the order's end."""
    train, test = (torch.from_numpy(part).to(device) for part in (data.train, data.test))
    labels = torch.from_numpy(data.labels).to(device)
    test_labels = torch.from_numpy(data.test_labels).to(device)
    found = np.full((len(budgets), 2), np.nan)
    for place, budget in enumerate(budgets):
        if budget > len(order):
            continue
        rows = torch.from_numpy(order[:budget].copy()).to(device)
        for measure, predict in enumerate((linear_probe, nearest_vote)):
            predicted = predict(train[rows], labels[rows], test)
            found[place, measure] = 100 * float((predicted == test_labels).double().mean())
    return found


def linear_probe(picked: torch.Tensor, labels: torch.Tensor, test: torch.Tensor) -> torch.Tensor:
    """Ridge regression onto one-hot labels, the penalty chosen by leave-one-out error in closed form."""
    inputs = picked.double()
    mean = inputs.mean(0)
    centred = inputs - mean
    targets = torch.nn.functional.one_hot(labels, 10).double()
    offset = targets.mean(0)
    values, basis = torch.linalg.eigh(centred.T @ centred)
    projected = centred @ basis
    answers = projected.T @ (targets - offset)
    best, weights = float("inf"), basis @ answers
    for penalty in 10.0 ** np.arange(-3, 3.5, 0.5):
        shrunk = 1.0 / (values.clamp_min(0) + penalty)
        fitted = projected @ (shrunk[:, None] * answers) + offset
        leverage = (projected**2 * shrunk).sum(1) + 1.0 / len(picked)
        error = float((((targets - fitted) / (1 - leverage).clamp_min(1e-6)[:, None]) ** 2).mean())
        if error < best:
            best, weights = error, basis @ (shrunk[:, None] * answers)
    return ((test.double() - mean) @ weights + offset).argmax(1)


def nearest_vote(picked: torch.Tensor, labels: torch.Tensor, test: torch.Tensor, neighbours: int = 20) -> torch.Tensor:
    """The vote of the 20 nearest picks, weighted by exp(cosine / 0.07) as is usual for such vectors."""
    answers = []
    for part in test.split(2000):
        cosine, near = (part @ picked.T).topk(min(neighbours, len(picked)))
        votes = torch.zeros(len(part), 10, device=part.device)
        votes.scatter_add_(1, labels[near], torch.exp((cosine - 1) / 0.07))
        answers.append(votes.argmax(1))
    return torch.cat(answers)


def paired(differences: np.ndarray, digits: int = 2) -> str:
    """Mean and 95 % interval over seeds; nothing where an order ended before."""
    if np.isnan(differences).any():
        return ""
    count = len(differences)
    half = quantile(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    return f"{differences.mean():+.{digits}f} ± {half:.{digits}f}"


@dataclass(frozen=True)
class Job:
    """One pool and every method on it: what a worker process is handed."""

    folder: Path
    kind: str
    seed: int
    methods: dict[str, dict[str, object]]
    budgets: list[int]
    device: str
    threads: int
    share: float


def run_job(job: Job) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Mean scores of some random orders and scores of each method's, (budgets, 2) each."""
    torch.set_num_threads(job.threads)
    data = sample(load(job.folder), job.seed, job.share)
    pool = data if job.kind == "balanced" else long_tail(data, job.seed)
    drawn = [random_order(pool, RANDOM_DRAWS * job.seed + draw) for draw in range(RANDOM_DRAWS)]
    random = np.mean([scores(pool, order, job.budgets, job.device) for order in drawn], axis=0)
    own = {
        name: scores(pool, order_by(pool, params, job.device), job.budgets, job.device)
        for name, params in job.methods.items()
    }
    return random, own


def run_held_out(job: Job) -> np.ndarray:
    """How picks cover the test images, the ranking's less random's mean: (percents, 4)."""
    torch.set_num_threads(job.threads)
    data = sample(load(job.folder), job.seed, job.share)
    pool = data if job.kind == "balanced" else long_tail(data, job.seed)
    ids = [hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(pool.train))]
    ranked = ranking.rank(pool.train, SelectionParams(), sample_ids=ids, device=job.device)
    randoms = [random_order(pool, RANDOM_DRAWS * job.seed + draw) for draw in range(RANDOM_DRAWS)]
    found = np.stack([_covers(pool, order, ranked.scale, job.device) for order in (ranked.rows, *randoms)])
    return np.asarray(found[0] - found[1:].mean(0))


def _covers(data: Data, order: np.ndarray, scale: float, device: str) -> np.ndarray:
    """Coverage of the test images, and mean, 90 % quantile and maximum of their distance to a pick, (percents, 4)."""
    train, test = (torch.from_numpy(part).to(device) for part in (data.train, data.test))
    best = torch.full((len(test),), -1.0, device=device)
    figures, begin = [], 0
    for percent in PERCENTS:
        end = int(percent * len(order) / 100 + 0.5)
        picks = train[torch.from_numpy(order[begin:end].copy()).to(device)]
        best = torch.maximum(best, torch.cat([(part @ picks.T).amax(1) for part in test.split(2000)]))
        begin, distance = end, (2 - 2 * best).clamp_min(0).sqrt()
        spread = [distance.mean(), distance.quantile(0.9), distance.max()]
        figures.append([float(figure) for figure in (torch.exp(-((distance / scale) ** 2)).mean(), *spread)])
    return np.asarray(figures)


def over_pools(work: Callable[[Job], Any], jobs: list[Job], workers: int) -> list[Any]:
    """The work on every pool, side by side."""
    if workers > 1:
        with get_context("spawn").Pool(workers) as processes:
            return processes.map(work, jobs, chunksize=1)
    return [work(job) for job in jobs]


def held_out(jobs: list[Job], workers: int) -> list[Row]:
    """The ranking against random on images that were never in the pool: rows by per cent."""
    found = np.stack(over_pools(run_held_out, jobs, workers))
    names = ("coverage", "mean distance", "90 % radius", "largest radius")
    return [
        {"per cent": percent, **{name: paired(found[:, place, at], digits=4) for at, name in enumerate(names)}}
        for place, percent in enumerate(PERCENTS)
    ]


def compare(jobs: list[Job], workers: int) -> list[Row]:
    """Each method less random, and coverage less each rival, paired over pools: rows by method, columns by budget."""
    results = over_pools(run_job, jobs, workers)
    random = np.stack([result[0] for result in results])
    columns = [str(budget) for budget in jobs[0].budgets]
    rows: list[Row] = []
    for measure, name in enumerate(("linear", "20-NN")):
        means = [f"{mean:.1f}" for mean in random[:, :, measure].mean(0)]
        rows.append({"method": f"random, {name}", **dict(zip(columns, means, strict=True))})
    for method in jobs[0].methods:
        own = np.stack([result[1][method] for result in results])
        for measure, name in enumerate(("linear", "20-NN")):
            cells = [paired((own - random)[:, place, measure]) for place in range(len(columns))]
            rows.append({"method": f"{method}, {name}", **dict(zip(columns, cells, strict=True))})
    if "coverage" not in jobs[0].methods:
        return rows
    ours = np.stack([result[1]["coverage"] for result in results])
    for rival in [method for method in jobs[0].methods if method != "coverage"]:
        theirs = np.stack([result[1][rival] for result in results])
        for measure, name in enumerate(("linear", "20-NN")):
            cells = [paired((ours - theirs)[:, place, measure]) for place in range(len(columns))]
            rows.append({"method": f"coverage less {rival}, {name}", **dict(zip(columns, cells, strict=True))})
    return rows


def methods_beside(params: dict[str, object]) -> dict[str, dict[str, object]]:
    """Coverage and its rivals."""
    methods = {"coverage": params, **{name: {"objective": name} for name in RIVALS}}
    try:
        import lightly_mundig  # noqa: F401
    except ImportError:
        return methods
    return {**methods, "mundig": {"objective": "mundig"}}


ABLATION: dict[str, dict[str, object]] = {
    "default: gaussian, s = d50": {},
    "gaussian, s = 0.75 d50": {"scale_factor": 0.75},
    "gaussian, s = 1.5 d50": {"scale_factor": 1.5},
    "laplace, s = d50": {"kernel": "laplace"},
    "laplace, s = d50 / 2": {"kernel": "laplace", "scale_factor": 0.5},
    "cosine": {"kernel": "cosine"},
    "no duplicate weights": {"has_duplicate_weights": False},
    "near-duplicates up to 0.15": {"near_duplicate_distance": 0.15},
    "near-duplicates up to 0.25": {"near_duplicate_distance": 0.25},
    "no head (graph only)": {"head": 0},
    "64 neighbours": {"neighbours": 64},
    "weights by 20-NN distance": {"density": 1.0},
    "random from 25 % on": {"tail": "random"},
    "k-center from 25 % on": {"tail": "k-center"},
}


TAIL_PERCENTS = (1, 5, 10, 20, 30, 40, 50, 60, 70)
PROBED = (10, 30, 50, 70)
HELD_OUT = 2000  # test images at most
TAIL_ROWS = 3000  # of a pool at most: picks compare all pairs
TAIL_SETS = {
    "CIFAR-10": ("", ""),
    "clothing": ("labels-clothing", "balanced"),
    "CIFAR-10, long tail 50:1": ("", "long tail"),
    "Fashion-MNIST, long tail 50:1": ("labels-fashion-tail", "long-tail"),
    "digits": ("labels-digits", "balanced"),
    "digits, long tail 50:1 and bursts": ("labels-digits", "long-tail-bursts"),
    "Fashion-MNIST": ("labels-fashion", "balanced"),
    "CIFAR-10, long tail 50:1 and bursts": ("", "long tail and bursts"),
}
"""The folder of bench_proof's output that holds a set's vectors, none for CIFAR-10's own, and the kind of pool."""


def tail_pool(folder: Path, prepared: Path, name: str, seed: int) -> tuple[Data, float | None] | None:
    """A draw of a set, and the distance of its near-duplicates where it was measured; None where it is not at hand."""
    section, kind = TAIL_SETS[name]
    if not section:
        data = sample(load(folder), seed)
        data = long_tail(data, seed, burst_share=1 / 3 if kind.endswith("bursts") else 0.0) if kind else data
        return sample(data, seed, TAIL_ROWS / len(data.train)), None
    for found in sorted((prepared / section).glob("prepared-*")):
        pools = json.loads((found / "prepared.json").read_text())["pools"]
        near = {pool["kind"]: pool["near_copy_distance"] for pool in pools}
        parts = (f"{kind}-vectors", f"{kind}-labels", f"{kind}-test-vectors", "test-labels")
        vectors, labels, test, test_labels = (np.load(found / f"{part}.npy") for part in parts)
        data = Data(unit(vectors.astype(np.float32)), labels, unit(test.astype(np.float32)), test_labels)
        return sample(data, seed, min(0.8, TAIL_ROWS / len(data.train))), near[kind]
    return None


@numba.njit(cache=True)
def lazy_greedy(
    matrix: np.ndarray, weights: np.ndarray, itself: np.ndarray, apart: int, alone: np.ndarray, shares: np.ndarray
) -> np.ndarray:
    """Exact greedy in plain form, (N,) rows.

    By rank, a pick's value to itself counts as `itself` (N,), or `shares` (N,) of `alone` (N,), by row, do not count.
    Of rows that repeat no pick, by `apart`, a sixteenth of what a repeat would cover of itself counts in any case.
    """
    count = len(weights)
    best, order, stamps = np.zeros(count, np.int64), np.empty(count, np.int64), np.full(count, -1)
    heap = [(-(np.int64(2) ** 62), row) for row in range(count)]
    for rank in range(count):
        while stamps[heap[0][1]] != rank:
            row = heap[0][1]
            gain = np.int64(0)
            for other in range(count):
                gain += max(np.int64(matrix[row, other]) - best[other], 0) * weights[other]
            own = 32767 - best[row]
            gain -= min(own - (min(own, apart) + 15) // 16, 32767 - itself[rank]) * weights[row]
            stamps[row] = rank
            heapq.heapreplace(heap, (np.int64(shares[rank] * alone[row]) - gain, row))
        order[rank] = heapq.heappop(heap)[1]
        best = np.maximum(best, matrix[order[rank]])
    return order


def tail_orders(pool: Data, near: float | None, rules: list[str]) -> tuple[dict[str, np.ndarray], float]:
    """The order by each rule of the tail, the one in use first, and the kernel's scale."""
    ids = np.argsort([hashlib.sha256(str(row).encode()).hexdigest() for row in range(len(pool.train))])
    points, count = prepare(pool.train[ids]), len(ids)
    scale = median_scale(points, np.arange(count))
    near_level, table = level_of(ranking.near_distance(near, scale)), kernel_table("gaussian", scale)
    copies = np.zeros(count, np.int64)
    matrix = kernel_matrix(points, table, near_level=near_level, near=copies)
    weights = whole_weights(np.ones(count), copies).astype(np.int64)
    others = np.where(np.eye(count, dtype=bool), 0, matrix).max(1).astype(np.int64)
    alone = np.maximum(ONE - 1 - others, 0) * weights
    beyond = np.sort(np.where(matrix < table[near_level], matrix, 0), axis=1)
    first, second = (int(np.median(beyond[:, -place])) for place in (1, 2))
    ranks = np.arange(count)
    faded = np.minimum(1.0, ranks / (count - ranks))
    begin, end = int(0.25 * weights.sum() / WEIGHT_ONE), int(0.45 * count)
    by_share = {
        "two thresholds": 0.5 * (ranks >= begin) + 0.5 * (ranks >= end),
        "no tail": np.zeros(count),
        "two thresholds, without steps": np.clip((ranks - begin) / max(1, end - begin), 0.0, 1.0),
        "alone, fading": faded,
    }
    by_value = {
        "in use": (ONE - np.minimum(1.0, 2 * faded) * (ONE - second)).astype(np.int64),
        "first neighbour": np.full(count, first),
        "second neighbour": np.full(count, second),
        "first neighbour, fading": (ONE - faded * (ONE - first)).astype(np.int64),
        "second neighbour, fading": (ONE - faded * (ONE - second)).astype(np.int64),
        "scale, fading": (ONE - faded * (ONE - int(table[level_of(scale)]))).astype(np.int64),
    }
    wanted = rules or [*by_share, *by_value]
    whole, nothing, apart = np.full(count, ONE), np.zeros(count), ONE - int(table[near_level])
    orders = {
        name: lazy_greedy(matrix, weights, itself, apart, alone, nothing)
        for name, itself in by_value.items()
        if name in {"in use", *wanted}
    }
    for name, share in by_share.items():
        if name in wanted:
            orders[name] = lazy_greedy(matrix, weights, whole, 0, alone, share)
    return {name: ids[order] for name, order in orders.items()}, scale


def tail_accuracy(pool: Data, order: np.ndarray) -> np.ndarray:
    """Accuracy by 20-NN and probe, (2, TAIL_PERCENTS), NaN where not taken."""
    train, test = torch.from_numpy(pool.train), torch.from_numpy(pool.test[:HELD_OUT])
    labels, answers = (torch.from_numpy(part.astype(np.int64)) for part in (pool.labels, pool.test_labels[:HELD_OUT]))
    classes = int(max(labels.max(), answers.max())) + 1
    found = np.full((2, len(TAIL_PERCENTS)), np.nan)
    for place, percent in enumerate(TAIL_PERCENTS):
        rows = torch.from_numpy(order[: max(1, int(percent * len(order) / 100 + 0.5))].copy())
        given = train[rows], labels[rows]
        found[0, place] = 100 * judges.nearest_accuracy(*given, test, answers, classes=classes)
        if percent in PROBED:
            found[1, place] = 100 * judges.probe_accuracy(fit_probe(*given, classes=classes), test, answers)
    return found


def tail_coverage(pool: Data, order: np.ndarray, scale: float) -> np.ndarray:
    """Coverage of images held out at each per cent, in points, (100,)."""
    similar = pool.test[:HELD_OUT] @ pool.train[order].T
    ends = [max(1, int(percent * len(order) / 100 + 0.5)) for percent in range(1, 101)]
    best = np.maximum.accumulate(np.maximum.reduceat(similar, [0, *ends[:-1]], axis=1), axis=1)
    return np.asarray(100 * np.exp(-(2 - 2 * best).clip(0) / scale**2).mean(0))


def tail(folder: Path, prepared: Path, name: str, seeds: int, rules: list[str]) -> list[Row]:
    """Each rule less the one in use, paired over draws, and how it covers images held out, less random picks."""
    accuracy: dict[str, list[np.ndarray]] = {}
    coverage: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        drawn = tail_pool(folder, prepared, name, seed)
        if drawn is None:
            return []
        orders, scale = tail_orders(*drawn, rules)
        shuffles = [np.random.default_rng([seed, draw]).permutation(len(drawn[0].train)) for draw in range(3)]
        random = np.mean([tail_coverage(drawn[0], order, scale) for order in shuffles], axis=0)
        for rule, order in orders.items():
            covered = tail_coverage(drawn[0], order, scale)
            accuracy.setdefault(rule, []).append(tail_accuracy(drawn[0], order))
            coverage.setdefault(rule, []).append(covered - random)
            coverage.setdefault(f"{rule}, itself", []).append(covered)
        print(f"{name}: {seed + 1} of {seeds} draws", flush=True)
    columns = [str(percent) for percent in TAIL_PERCENTS]
    rows: list[Row] = []
    used = np.stack(accuracy["in use"])
    for judge, means in zip(("20-NN", "probe"), used.mean(0), strict=True):
        cells = ["" if np.isnan(mean) else f"{mean:.1f}" for mean in means]
        rows.append({"figure": judge, "rule": "in use", **dict(zip(columns, cells, strict=True))})
        for rule in list(accuracy)[1:]:
            less = (np.stack(accuracy[rule]) - used)[:, 0 if judge == "20-NN" else 1]
            cells = [paired(less[:, place]) for place in range(len(columns))]
            rows.append({"figure": judge, "rule": rule, **dict(zip(columns, cells, strict=True))})
    for rule in accuracy:
        less = np.stack(coverage[rule])
        cells = [paired(less[:, percent - 1]) for percent in TAIL_PERCENTS]
        gains = np.diff(np.mean(coverage[f"{rule}, itself"], axis=0))[4:60]  # from 5 to 65 %
        step = float((np.maximum(gains[1:], gains[:-1]) / np.minimum(gains[1:], gains[:-1]).clip(1e-4)).max())
        worst = int(less.mean(0)[:99].argmin())
        last = {"least": f"{less.mean(0)[worst]:+.2f} at {worst + 1} %", "step": f"{step:.1f}"}
        rows.append({"figure": "held out", "rule": rule, **dict(zip(columns, cells, strict=True)), **last})
    rows[0] |= {"least": "", "step": ""}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=CIFAR)
    parser.add_argument("--quick", action="store_true", help="few pools and budgets, printed only")
    parser.add_argument("--only", nargs="+", choices=["balanced", "longtail", "heldout", "ablation", "tail"])
    parser.add_argument("--prepared", type=Path, default=ROOT / "test-output" / "proof", help="bench_proof's output")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", help="some of those compared, in a section of their own")
    parser.add_argument("--device", default=report.default_device())
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--share", type=float, default=0.9, help="of the images, drawn anew for each pool")
    arguments = parser.parse_args()
    if not (arguments.data / "train-embeddings.npy").is_file():
        print(f"left out: {arguments.data} holds no train-embeddings.npy; name a folder that does by --data")
        return
    seeds = 3 if arguments.quick else arguments.seeds
    threads = max(1, torch.get_num_threads() // arguments.workers)
    budgets = [50, 250, 1000, 5000] if arguments.quick else list(BUDGETS)

    def section(title: str, kind: str, methods: dict[str, dict[str, object]], pools: int) -> None:
        # The tail pools hold some 28,000 images: every budget fits.
        if arguments.methods:
            methods = {name: params for name, params in methods.items() if name in arguments.methods}
            title = f"{title}, {', '.join(methods)} alone"
        jobs = [
            Job(arguments.data, kind, seed, methods, budgets, arguments.device, threads, arguments.share)
            for seed in range(pools)
        ]
        text = (
            f"Points above random (the mean of {RANDOM_DRAWS} draws a pool), mean and 95 % interval over {pools} "
            "pools, paired. mundig is asked for 5,000 picks."
        )
        rows = compare(jobs, arguments.workers)
        report.write("selection_quality", f"{title} ({pools} pools)", text, rows, is_quick=arguments.quick)

    def held_out_section(kind: str) -> None:
        jobs = [
            Job(arguments.data, kind, seed, {}, [], arguments.device, threads, arguments.share) for seed in range(seeds)
        ]
        text = (
            f"The ranking less random (mean of {RANDOM_DRAWS} draws) on the 10,000 test images, which are in no pool: "
            f"mean and 95 % interval over {seeds} pools. Coverage should be above zero, distances below."
        )
        rows = held_out(jobs, arguments.workers)
        report.write("selection_quality", f"Images held out, {kind}", text, rows, is_quick=arguments.quick)

    wanted = arguments.only or ["balanced", "longtail", "heldout", "ablation", "tail"]
    if "balanced" in wanted:
        section("Balanced", "balanced", methods_beside({}), seeds)
    if "longtail" in wanted:
        section("Long tail 50:1 with bursts", "long tail", methods_beside({}), seeds)
    if "heldout" in wanted:
        held_out_section("balanced")
        held_out_section("long tail")
    if "ablation" in wanted:
        section("Ablation, balanced", "balanced", ABLATION, min(seeds, 5))
        section("Ablation, long tail", "long tail", ABLATION, min(seeds, 5))
    for name in TAIL_SETS if "tail" in wanted else ():
        if rows := tail(arguments.data, arguments.prepared, name, seeds, arguments.methods or []):
            text = (
                "By per cent of the pool. Accuracy in points, each rule less the one in use; coverage of images held "
                f"out in points, less random picks: mean and 95 % interval over {seeds} draws. `least` is the lowest "
                "of all per cents, `step` the largest ratio of what two neighbouring ones add from 5 to 65 %."
            )
            title = f"The tail: {name}{', other rules' if arguments.methods else ''}"
            report.write("selection_quality", title, text, rows, is_quick=arguments.quick)


if __name__ == "__main__":
    main()
