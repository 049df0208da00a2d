"""The ingest stage as tasks: parts of the pool, then its row accounts."""

from prefect import task

from tasks.prefect_side import artifacts
from tasks.prefect_side.progress import reported
from tasks.prefect_side.retries import STAGE
from wtl_core import pipeline
from wtl_core.workspace.accounts import PoolAccounts
from wtl_core.workspace.run import Run


@task(name="ingest", **STAGE)
def ingest_parts(run: Run, batch: int) -> int:
    """Read shards, decode each image once, keep it or record why not; returns how many parts there are."""
    part = f"{batch + 1} of {run.batches}" if run.batches > 1 else ""
    with reported("ingest", "bytes", part=part) as on_progress:
        return len(pipeline.ingest_parts(run, batch, on_progress=on_progress))


@task(name="gather-pool", **STAGE)
def gather_pool(run: Run) -> PoolAccounts:
    """Row accounts of the pool that the parts make; refuses a pool without a readable image."""
    accounts = pipeline.gather_pool(run)
    artifacts.publish_pool(run, accounts)
    return accounts
