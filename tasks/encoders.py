"""The encoder stage as a task: the workspace's own, a pretrained one by name, or one trained on the pool."""

from prefect import task

from tasks.progress import reported
from tasks.retries import STAGE
from wtl_core import pipeline
from wtl_core.pipeline import EncoderRef, Run


@task(name="encoder", **STAGE)
def ensure_encoder(run: Run, counts: dict[str, int]) -> EncoderRef:
    """The encoder that the recipe names, trained here if the workspace has none; `counts` says the pool is there."""
    with reported("encoder", "steps") as on_progress:
        return pipeline.ensure_encoder(run, on_progress=on_progress)
