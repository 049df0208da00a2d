"""The two ends of a refresh as tasks: the plan, and the commit that makes the result the workspace's present."""

from collections.abc import Sequence
from typing import Any

from prefect import task

from tasks.prefect_side import artifacts, run_names
from tasks.prefect_side.retries import STAGE
from tasks.settings import machine
from wtl_core import pipeline
from wtl_core.embedding.chunks import Embedded
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import planning
from wtl_core.report import summary
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.lease import Lease
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store


@task(name="plan", **STAGE)
def plan_refresh(
    store: Store,
    sources: list[str],
    recipe: Recipe | None,
    *,
    allow_removal: bool,
    forget: Sequence[str] = (),
    include_known: bool = False,
) -> Run:
    """List the sources, all other known ones too if asked, and compare them with the last commit."""
    sources = planning.with_known(store, sources, forget) if include_known else sources
    run = pipeline.plan_refresh(store, sources, recipe, machine(), allow_removal=allow_removal, forget=forget)
    run_names.name_plan(run.changes)
    return run


@task(name="commit", **STAGE)
def commit(
    run: Run,
    *,
    counts: dict[str, int],
    encoder: EncoderRef,
    embedded: Embedded,
    selection: SelectionRef,
    seconds: dict[str, float],
    held: Lease,
) -> Commit:
    """Write the report and, last of all, the commit object."""
    held.check()
    return pipeline.commit(run, counts=counts, encoder=encoder, embedded=embedded, selection=selection, seconds=seconds)


def finish(run: Run, record: Commit | None) -> dict[str, Any]:
    """What a refresh answers: the new commit's result, or the last one's where there was nothing to do."""
    shown = record if record is not None else run.last
    assert shown is not None
    if record is not None:
        artifacts.publish_stages(run.store, record)
    run_names.name_result(run.changes, 0 if record is None else record.counts["new_samples"])
    return summary.summary(run.store, shown, is_new=record is not None)
