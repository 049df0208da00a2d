"""The ingest stage as tasks: parts of the pool, then its row accounts."""

from prefect import task

from tasks import artifacts
from tasks.progress import reported
from tasks.retries import STAGE
from wtl_core import pipeline
from wtl_core.pipeline import Run
from wtl_core.shards.part_file import PartCounts
from wtl_core.shards.plan import PartPlan


@task(name="ingest", **STAGE)
def ingest_parts(run: Run, parts: list[PartPlan]) -> list[PartCounts]:
    """Read shards, decode each image once, keep it or say why not."""
    with reported("ingest", "bytes") as on_progress:
        return pipeline.ingest_parts(run, parts, on_progress=on_progress)


@task(name="gather-pool", **STAGE)
def gather_pool(run: Run, ingested: list[list[PartCounts]]) -> dict[str, int]:
    """Row accounts of the live pool, once all parts are `ingested`; refuses a pool without a readable image."""
    counts = pipeline.gather_pool(run, [counts for batch in ingested for counts in batch])
    artifacts.publish_pool(run, counts)
    return counts
