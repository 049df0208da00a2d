"""The benchmark as tasks: prepare, order the pools, evaluate batches of cells, write the page."""

import base64
from pathlib import Path

from prefect import task
from prefect.artifacts import create_image_artifact, create_markdown_artifact

from tasks.prefect_side import run_names
from tasks.prefect_side.device import device_tags
from tasks.prefect_side.progress import reported
from tasks.prefect_side.retries import STAGE
from tasks.settings import machine
from wtl_core.benchmark import grid, preparation, summary, work
from wtl_core.benchmark.grid import Batch, Order
from wtl_core.benchmark.params import BenchmarkParams
from wtl_core.benchmark.preparation import Prepared
from wtl_core.benchmark.summary import Summary
from wtl_core.workspace.storage import Store


@task(name="prepare-benchmark", tags=device_tags(), **STAGE)
def prepare_benchmark(store: Store, dataset: str, params: BenchmarkParams, vectors: str | None) -> Prepared:
    """The set, its vectors and its pools."""
    here = machine()
    folder = None if vectors is None else Path(vectors)
    return preparation.prepare(
        store, dataset, params, device=here.device, workers=here.workers, vectors=folder, stage=reported
    )


@task(name="plan-orders", **STAGE)
def plan_orders(store: Store, prepared: Prepared, params: BenchmarkParams) -> list[list[Order]]:
    """Orders that are not there yet, those of one pool and strategy together."""
    together: dict[tuple[str, str], list[Order]] = {}
    for order in grid.missing_orders(store, prepared, params):
        together.setdefault((order.pool.kind, order.strategy), []).append(order)
    return list(together.values())


@task(
    name="order-pool", task_run_name="order {orders[0].pool.kind} by {orders[0].strategy}", tags=device_tags(), **STAGE
)
def order_pool(store: Store, prepared: Prepared, orders: list[Order]) -> float:
    """One strategy's orders of one pool; their seconds."""
    with reported("ordering", "rows compared") as on_progress:
        made = [
            work.make_order(store, prepared, order, device=machine().device, on_progress=on_progress)
            for order in orders
        ]
    return sum(made)


@task(name="plan-cells", **STAGE)
def plan_cells(store: Store, prepared: Prepared, params: BenchmarkParams, ordered: list[float]) -> list[Batch]:
    """Unfinished cells in batches that are worth a task, once all pools are `ordered`."""
    return grid.plan_batches(store, prepared, params, device=machine().device)


@task(name="judge", task_run_name="judge batch {batch.number}", tags=device_tags(), **STAGE)
def judge_batch(store: Store, prepared: Prepared, params: BenchmarkParams, batch: Batch) -> int:
    """A batch of cells, each kept as it is finished."""
    with reported("judging", "cells") as on_progress:
        return work.run_batch(store, prepared, params, batch, device=machine().device, on_progress=on_progress)


@task(name="summarise", **STAGE)
def summarise(
    store: Store, prepared: Prepared, params: BenchmarkParams, judged: list[int], *, command: str = ""
) -> Summary:
    """The page, the table and the pictures, once all batches are `judged`; also as artifacts."""
    made = summary.write(store, prepared, params, device=machine().device, command=command)
    create_markdown_artifact(
        key="benchmark",
        markdown=store.read_bytes(made.markdown).decode(),
        description=f"Benchmark of {prepared.dataset}",
    )
    for picture in made.pictures:
        encoded = base64.b64encode(store.read_bytes(picture)).decode()
        create_image_artifact(
            key=f"benchmark-{Path(picture).stem}",
            image_url=f"data:image/png;base64,{encoded}",
            description=Path(picture).stem,
        )
    run_names.name_benchmark(prepared.dataset, new=sum(judged), cells=made.cells, missing=made.missing)
    return made
