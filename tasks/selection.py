"""The selection stage as a task: rank, measure the ladder, and show both."""

from prefect import task

from tasks.prefect_side import artifacts
from tasks.prefect_side.device import device_tags
from tasks.prefect_side.progress import reported
from tasks.prefect_side.retries import STAGE
from wtl_core import pipeline
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef


@task(name="select", tags=device_tags(), **STAGE)
def select(run: Run, encoder: EncoderRef) -> SelectionRef:
    """Rank the pool by coverage and compare it with random at every per cent."""
    with reported("selection", "samples compared") as on_progress:
        selection = pipeline.select(run, encoder, on_progress=on_progress)
    artifacts.publish_ranking(run, selection)
    return selection
