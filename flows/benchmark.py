"""The flow `benchmark`: strategies x budgets x seeds on a labelled set, and a page about who wins where."""

from dataclasses import asdict
from typing import Any

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.benchmark import judge_batch, order_pool, plan_cells, plan_orders, prepare_benchmark, summarise
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.time_limits import limited
from wtl_core.benchmark.params import BenchmarkParams
from wtl_core.workspace.storage import open_store


@flow(
    name="benchmark",
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]  # generic in what futures give
    on_failure=[show_failure],
)
@limited
def benchmark(
    dataset: str,
    output: str,
    params: BenchmarkParams | None = None,
    vectors: str | None = None,
    command: str = "",
    time_limit_hours: float = 0,
) -> dict[str, Any]:
    """Compare strategies with random picks and with active learning.

    Args:
        dataset: A folder of classes, Parquet with `image` and `label`, `torchvision:NAME` or `sklearn:digits`.
        output: A local folder; cells that are finished there are not computed again.
        params: Strategies, budgets, pools, judges and seeds.
        vectors: A folder with `train-embeddings.npy` and one for each further split instead of an encoder.
        command: The command line to show on the page, so that its figures can be reproduced.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
    """
    store, params = open_store(output), params or BenchmarkParams()
    prepared = prepare_benchmark(store, dataset, params, vectors)
    orders = plan_orders(store, prepared, params)
    ordered = order_pool.map(unmapped(store), unmapped(prepared), orders).result()
    batches = plan_cells(store, prepared, params, ordered)
    judged = judge_batch.map(unmapped(store), unmapped(prepared), unmapped(params), batches).result()
    return asdict(summarise(store, prepared, params, judged, command=command))
