"""The ingest stage as tasks: parts of the pool, then its row accounts."""

from prefect import task

from tasks.progress import reported
from tasks.retries import STAGE
from wtl_core import pipeline
from wtl_core.pipeline import Run
from wtl_core.shards.plan import PartPlan


@task(name="ingest", **STAGE)
def ingest_parts(run: Run, parts: list[PartPlan]) -> int:
    """Read shards and decode each image once; returns images kept."""
    with reported("ingest", "images") as on_progress:
        return pipeline.ingest_parts(run, parts, on_progress=on_progress)


@task(name="gather-pool", **STAGE)
def gather_pool(run: Run, ingested: list[int]) -> dict[str, int]:
    """Row accounts of the live pool, once all parts are `ingested`; refuses a pool without a readable image."""
    return pipeline.gather_pool(run)
