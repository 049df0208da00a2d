"""The work of the grid: compute an order, evaluate the cells of a batch, and write each as soon as it is finished.

A call does what earlier ones have not finished; a loop continues from its last finished budget. Not here: what
there is to do (`grid`), how it is judged (`judges`, `network`, `loops`).
"""

import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain

import numpy as np
import torch

from wtl_core.benchmark import grid, grid_cells, judges, loops, network, strategies
from wtl_core.benchmark.budgets import budgets_of, loop_budgets, share_count
from wtl_core.benchmark.grid_cells import GridCell, Identity, Result
from wtl_core.benchmark.params import STEERED, BenchmarkParams
from wtl_core.benchmark.preparation import Prepared, load_array, load_ids, load_images
from wtl_core.errors import CorruptArtifactError
from wtl_core.machine import Progress
from wtl_core.selection import linear_probe
from wtl_core.workspace.storage import Store

Measure = Callable[[torch.Tensor, torch.Tensor], float]


def make_order(
    store: Store, prepared: Prepared, order: grid.Order, *, device: str, on_progress: Progress | None = None
) -> float:
    """Order a pool and keep it with the seconds that it took; those seconds."""
    ids = load_ids(store, prepared, order.pool.kind)
    inside = strategies.members(ids, share=order.share, seed=order.seed)
    vectors = load_array(store, prepared, f"{order.pool.kind}-vectors")[inside]
    held = [ids[row] for row in inside]
    near = order.pool.near_copy_distance
    if order.strategy == STEERED:
        labels = load_array(store, prepared, f"{order.pool.kind}-labels")[inside]
        rows, seconds = strategies.order_with_labels(
            vectors, held, labels, budgets=order.budgets, device=device, near_copy_distance=near,
            on_progress=on_progress,
        )  # fmt: skip
    else:
        started = time.perf_counter()
        rows = strategies.order_by_strategy(
            order.strategy, vectors, held, count=order.budgets[-1], seed=order.seed, device=device,
            near_copy_distance=near, on_progress=on_progress,
        )  # fmt: skip
        seconds = np.array([time.perf_counter() - started])
    buffer = io.BytesIO()
    np.savez(buffer, rows=inside[rows], seconds=seconds)
    store.write_bytes(order.key(), buffer.getvalue())
    return float(seconds[-1])


def run_batch(
    store: Store, prepared: Prepared, params: BenchmarkParams, batch: grid.Batch, *, device: str,
    on_progress: Progress | None = None,
) -> int:  # fmt: skip
    """Do a batch's unfinished cells and write each; how many were done now."""
    identity = grid.identity_of(prepared, params, device)
    there = grid_cells.finished(store)
    todo = [cell for cell in batch.cells if identity.key(cell) not in there]
    bench = Bench(store, prepared, params, batch.cells[0].pool, device)
    done = 0
    for cell in todo:
        if cell.strategy not in params.loops:
            grid_cells.write(store, identity, bench.judge(cell))
            done += 1
            if on_progress:
                on_progress(done, len(todo))
    looped = [cell for cell in todo if cell.strategy in params.loops]
    trained = dict.fromkeys((c.strategy, c.judge, c.seed) for c in looped if c.judge == c.model)
    also_judged = [cell for cell in looped if cell.judge != cell.model]
    results = chain.from_iterable(bench.loop(*key, identity=identity) for key in trained)
    for result in chain(results, (bench.judge_loop(cell, identity=identity) for cell in also_judged)):
        grid_cells.write(store, identity, result)
        done += 1
        if on_progress:
            on_progress(done, len(todo))
    return done


class Bench:
    """A pool and the test split on a device, for all cells of a batch."""

    def __init__(self, store: Store, prepared: Prepared, params: BenchmarkParams, kind: str, device: str) -> None:
        self.store, self.prepared, self.params, self.kind = store, prepared, params, kind
        self.device = torch.device(device)
        self.recipe = grid.recipe_of(params, device)
        self.labels = load_array(store, prepared, f"{kind}-labels")
        self.ids = load_ids(store, prepared, kind)
        self.images = load_images(store, prepared, f"{kind}-images")
        self.classes = len(prepared.classes)
        self.name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        self._tensors: dict[str, torch.Tensor] = {}

    def judge(self, cell: GridCell) -> Result:
        """One cell of a strategy that is no loop."""
        picks, selection_seconds = self.picks_of(cell)
        earlier = self._place(cell) if cell.strategy == STEERED else 0
        return self._judged(cell, picks, earlier, 1 + earlier, selection_seconds)

    def judge_loop(self, cell: GridCell, *, identity: Identity) -> Result:
        """One cell of a loop by the judge that does not choose; the cell of the judge that does is finished."""
        chosen = grid_cells.read(self.store, identity, replace(cell, judge=cell.model))
        if chosen is None:
            raise CorruptArtifactError(
                f"{cell.strategy}, {cell.labels:,} labels, seed {cell.seed}: expected its finished cell by "
                f"{cell.model}, found none; run the benchmark again"
            )
        picks = np.asarray(chosen["picks"], np.int64)
        return self._judged(cell, picks, chosen["rounds"], chosen["label_waits"], chosen["selection_seconds"])

    def _judged(self, cell: GridCell, picks: np.ndarray, rounds: int, waits: int, selection_seconds: float) -> Result:
        """The result of a cell whose picks are known."""
        rows = picks[self.labels[picks] >= 0]
        if not len(rows):
            accuracies = (0.0, 0.0 if self.prepared.counts["validation"] else float("nan"))
            return self._result(cell, picks, accuracies, rounds, waits, selection_seconds, 0.0)
        what = "images" if cell.judge == "scratch" else "vectors"
        chosen = judges.as_device(rows, self.device)
        labels = self._get("labels")[chosen]
        values = self._get(what)[chosen] if what == "vectors" else judges.as_device(self.images[rows], self.device)
        began = judges.clock(self.device)
        measure = self._trained(cell, values, labels)
        seconds = judges.clock(self.device) - began
        accuracies = self._on_both(what, measure)
        return self._result(cell, picks, accuracies, rounds, waits, selection_seconds, seconds)

    def loop(self, strategy: str, judge: str, seed: int, *, identity: Identity) -> Iterator[Result]:
        """The unfinished budgets of one loop, in order, continued from the last finished one."""
        size = len(self.labels)
        budgets = loop_budgets(self.params, size)
        inside, ids = self._members(seed)
        rounds = loops.run_loop(
            strategy,
            self._learner(strategy, judge),
            self.labels,
            loops.label_counts(budgets, rounds=self.params.loop_rounds),
            reported=budgets,
            start=inside[strategies.random_order(ids, seed=seed)],
            seed=seed,
            candidates=self.params.loop_candidates,
            last=self._last_round([GridCell(self.kind, strategy, judge, count, seed) for count in budgets], identity),
        )
        for outcome in rounds:
            if len(outcome.picks) in budgets:
                cell = GridCell(self.kind, strategy, judge, len(outcome.picks), seed)
                done = (outcome.rounds, outcome.label_waits, outcome.seconds, outcome.train_seconds)
                yield self._result(cell, outcome.picks, (outcome.accuracy, float("nan")), *done)

    def _last_round(self, wanted: list[GridCell], identity: Identity) -> loops.Round | None:
        """The last finished budget of those before the first unfinished one."""
        last = None
        for cell in wanted:
            row = grid_cells.read(self.store, identity, cell)
            if row is None:
                break
            last = loops.Round(
                np.asarray(row["picks"], np.int64), row["rounds"], row["label_waits"], row["selection_seconds"],
                row["accuracy"], row["train_seconds"],
            )  # fmt: skip
        return last

    def picks_of(self, cell: GridCell) -> tuple[np.ndarray, float]:
        """Rows to label, and the seconds that choosing took."""
        order = grid.order_of(self.prepared, self.params, cell)
        if order is not None:
            held = np.load(io.BytesIO(self.store.read_bytes(order.key())), allow_pickle=False)
            seconds = np.atleast_1d(held["seconds"])
            return held["rows"][: cell.labels], float(seconds[self._place(cell) if len(seconds) > 1 else 0])
        started = time.perf_counter()
        inside, ids = self._members(cell.seed)
        if cell.strategy == "class-balanced-random":
            rows = strategies.class_balanced(self.labels[inside], ids, seed=cell.seed)
        else:
            rows = strategies.random_order(ids, seed=cell.seed)
        return inside[rows[: cell.labels]], time.perf_counter() - started

    def _place(self, cell: GridCell) -> int:
        """The place of the cell's budget among all."""
        return budgets_of(self.params, len(self.labels)).index(cell.labels)

    def _members(self, seed: int) -> tuple[np.ndarray, list[str]]:
        """Rows of the seed's pool and their ids."""
        inside = strategies.members(self.ids, share=self.params.pool_share, seed=seed)
        return inside, [self.ids[row] for row in inside]

    def _trained(self, cell: GridCell, values: torch.Tensor, labels: torch.Tensor) -> Measure:
        """The cell's judge, trained on these values: a function from a split's values and labels to accuracy."""
        if cell.judge == "nearest":
            return lambda v, y: judges.nearest_accuracy(values, labels, v, y, classes=self.classes)
        if cell.judge == "probe":
            probe = linear_probe.fit_probe(values, labels, classes=self.classes)
            return lambda v, y: judges.probe_accuracy(probe, v, y)
        trained = network.train(values, labels, classes=self.classes, recipe=self.recipe, seed=cell.seed)
        return lambda x, y: network.accuracy(trained, x, y, has_flips=self.recipe.has_flips)

    def _on_both(self, what: str, measure: Measure) -> tuple[float, float]:
        """On the test and the validation split; NaN without one."""
        test = measure(self._get(what, "test"), self._get("labels", "test"))
        if not self.prepared.counts["validation"]:
            return test, float("nan")
        return test, measure(self._get(what, "validation"), self._get("labels", "validation"))

    def _learner(self, strategy: str, judge: str) -> loops.Learner:
        dropout = loops.DROPOUT if strategy == "mc-dropout" else 0.0
        test_labels = self._get("labels", "test")
        if judge == "probe":
            return loops.ProbeLearner(
                self._get("vectors"), self._get("labels"), self._get("vectors", "test"), test_labels,
                classes=self.classes, dropout=dropout,
            )  # fmt: skip
        return loops.ScratchLearner(
            self.images, self._get("labels"), self._get("images", "test"), test_labels,
            classes=self.classes, recipe=replace(self.recipe, dropout=dropout),
        )  # fmt: skip

    def _result(
        self, cell: GridCell, picks: np.ndarray, accuracies: tuple[float, float], rounds: int, waits: int,
        selection_seconds: float, train_seconds: float,
    ) -> Result:  # fmt: skip
        named = self.labels[picks]
        named = named[named >= 0]
        size = share_count(len(self.labels), self.params.pool_share)
        is_loop = cell.strategy in self.params.loops and cell.judge == cell.model
        return Result(
            cell, size, *accuracies, len(named), len(np.unique(named)), rounds, waits,
            selection_seconds, train_seconds, self.name, np.asarray(picks) if is_loop else np.zeros(0, np.int64),
        )  # fmt: skip

    def _get(self, what: str, split: str | None = None) -> torch.Tensor:
        """The pool's or a split's array on the device, loaded once; a split's vectors are by the pool's encoder."""
        name = f"{self.kind}-{split}-{what}" if split and what == "vectors" else f"{split or self.kind}-{what}"
        if name not in self._tensors:
            held = load_images if what == "images" else load_array
            self._tensors[name] = judges.as_device(held(self.store, self.prepared, name)[:], self.device)
        return self._tensors[name]
