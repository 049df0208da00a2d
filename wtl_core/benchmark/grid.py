"""The grid: which orders and cells there are, which are missing, and how they are packed into tasks.

What is finished is known from the files alone: each order and each cell has one. Not here: the work (`work`), its
fan-out (the flow), the files of cells (`grid_cells`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from wtl_core.benchmark import grid_cells, network, strategies
from wtl_core.benchmark.budgets import budgets_of, loop_budgets
from wtl_core.benchmark.grid_cells import GridCell, Identity
from wtl_core.benchmark.network import ScratchRecipe
from wtl_core.benchmark.params import RANKED, STEERED, WITHOUT_VECTORS, BenchmarkParams
from wtl_core.benchmark.preparation import PoolRef, Prepared
from wtl_core.recipe.base import digest_of
from wtl_core.workspace import selections
from wtl_core.workspace.storage import Store

_CPU_IMAGES, _CUDA_IMAGES = 1500, 60_000  # of 32 px, trained on per second from scratch, roughly
_LEAST_SECONDS = 20.0  # of a task: from some ten seconds on it is worth its overhead


@dataclass(frozen=True)
class Order:
    """One strategy's order of one pool.

    Attributes:
        pool: What is ordered.
        strategy: By what.
        seed: Of the strategy's draws, and of the share.
        budgets: Rising; there are as many picks as the last of them, or more. `coverage+labels` gets labels at each.
        share: Of the pool.
        labelled: Digest of the set with its labels.
    """

    pool: PoolRef
    strategy: str
    seed: int
    budgets: tuple[int, ...]
    share: float
    labelled: str

    def key(self) -> str:
        """Where it lies; labels enter where they have a say (the oracle's order is never stored)."""
        count = self.budgets[-1] if self.strategy in strategies.LIMITED else None
        identity: list[object] = [strategies.VERSION, self.pool.digest, self.strategy, self.seed, count, self.share]
        if self.strategy in RANKED:
            identity.append(selections.VERSION)
        if self.strategy == STEERED:
            identity += [selections.VERSION, self.budgets, self.labelled]
        return f"orders/{digest_of(identity)[:32]}.npz"


@dataclass(frozen=True)
class Batch:
    """Cells that one task does, some ten seconds or more of work; loops come whole, budgets rising."""

    number: int
    cells: tuple[GridCell, ...]
    seconds: float


def all_cells(prepared: Prepared, params: BenchmarkParams) -> list[GridCell]:
    """Every cell of the grid; seeds outermost, so that an early end leaves whole pairs."""
    found = []
    for seed in range(params.seeds):
        for pool in prepared.pools:
            counts = budgets_of(params, pool.size)
            for judge in params.judges:
                for strategy in params.orders:
                    found += [GridCell(pool.kind, strategy, judge, count, seed) for count in counts]
                if seed >= params.loop_seeds or (judge == "nearest" and "probe" not in params.judges):
                    continue
                for strategy in params.loops:
                    found += [GridCell(pool.kind, strategy, judge, c, seed) for c in loop_budgets(params, pool.size)]
    return found


def missing_orders(store: Store, prepared: Prepared, params: BenchmarkParams) -> list[Order]:
    """Orders that cells need and that are not there; the cheap random ones are made when they are needed."""
    there = {f"orders/{name}" for name in store.names("orders")}
    wanted = {order_of(prepared, params, cell): None for cell in all_cells(prepared, params)}
    return [order for order in wanted if order is not None and order.key() not in there]


def plan_batches(
    store: Store, prepared: Prepared, params: BenchmarkParams, *, device: str, least_seconds: float = _LEAST_SECONDS
) -> list[Batch]:
    """The unfinished cells, packed so that a task is worth its overhead."""
    there, identity = grid_cells.finished(store), identity_of(prepared, params, device)
    groups: dict[tuple[object, ...], list[GridCell]] = {}
    for cell in all_cells(prepared, params):
        if identity.key(cell) not in there:
            is_loop = cell.strategy in params.loops
            key = (cell.pool, cell.model, cell.seed, cell.strategy) if is_loop else tuple(asdict(cell).values())
            groups.setdefault(key, []).append(cell)
    batches: list[Batch] = []
    held: list[GridCell] = []
    seconds = 0.0
    for group in groups.values():
        if held and group[0].pool != held[0].pool:
            batches, held, seconds = [*batches, Batch(len(batches), tuple(held), seconds)], [], 0.0
        held += group
        seconds += _estimate(group, params, device, is_loop=group[0].strategy in params.loops)
        if seconds >= least_seconds:
            batches, held, seconds = [*batches, Batch(len(batches), tuple(held), seconds)], [], 0.0
    return [*batches, Batch(len(batches), tuple(held), seconds)] if held else batches


def identity_of(prepared: Prepared, params: BenchmarkParams, device: str) -> Identity:
    """What cells depend on beside themselves."""
    shared = [prepared.digest, strategies.VERSION, params.pool_share]
    seen = [params.seen_px] if params.seen_px < params.side_px else []
    return Identity(
        pools={pool.kind: digest_of([*shared, pool.digest]) for pool in prepared.pools},
        images={pool.kind: digest_of([*shared, pool.images_digest]) for pool in prepared.pools},
        scratch=digest_of([network.VERSION, asdict(recipe_of(params, device)), *seen]),
        loop=digest_of([params.loop_rounds, params.loop_candidates]),
        budgets={pool.kind: budgets_of(params, pool.size) for pool in prepared.pools},
        ranking=digest_of(["selection", selections.VERSION]),
        device=torch.device(device).type,
    )


def recipe_of(params: BenchmarkParams, device: str) -> ScratchRecipe:
    """The from-scratch network's recipe on this machine."""
    width = params.scratch_width or network.width_for(device)
    return ScratchRecipe(
        width,
        effort=params.scratch_effort,
        has_flips=params.has_flips,
        largest_batch=network.largest_batch_for(device),
    )


def order_of(prepared: Prepared, params: BenchmarkParams, cell: GridCell) -> Order | None:
    """The stored order that a cell needs; None where it is drawn on the spot, or made by a loop."""
    if cell.strategy in params.loops or cell.strategy in WITHOUT_VECTORS:
        return None
    pool = prepared.pool(cell.pool)
    is_drawn = cell.strategy in strategies.SEEDED or params.pool_share < 1.0
    seed = cell.seed if is_drawn else 0
    budgets = tuple(budgets_of(params, pool.size))
    return Order(pool, cell.strategy, seed, budgets, params.pool_share, prepared.digest)


def _estimate(group: Sequence[GridCell], params: BenchmarkParams, device: str, *, is_loop: bool) -> float:
    """Seconds, roughly: it only decides what shares a task."""
    rounds = params.loop_rounds if is_loop else 1
    total = 0.0
    for cell in group:
        if cell.judge == "scratch":
            batch, steps = recipe_of(params, device).schedule(cell.labels)
            rate = _CPU_IMAGES if torch.device(device).type == "cpu" else _CUDA_IMAGES
            total += rounds * (1.0 + batch * steps / rate * (params.seen_px / 32) ** 2)
        else:
            total += rounds * (0.1 + cell.labels / 50_000)
    return total
