"""The two ends of a refresh as tasks: the plan, and the commit that makes the result the workspace's present."""

from contextlib import AbstractContextManager
from typing import Any

from prefect import task

from tasks import artifacts
from tasks.retries import STAGE
from tasks.settings import machine, settings
from wtl_core import commits, lease, pipeline, workspace
from wtl_core.commits import Commit
from wtl_core.embedding_parts import Embedded
from wtl_core.lease import Lease
from wtl_core.pipeline import EncoderRef, Run
from wtl_core.recipe import Recipe
from wtl_core.selections import SelectionRef
from wtl_core.storage import Store


def open_for_refresh(uri: str) -> Store:
    """The store of a workspace that is there or can be made."""
    return workspace.probe_workspace(uri, endpoint_url=settings().s3_endpoint_url)


def hold(store: Store) -> AbstractContextManager[Lease]:
    """Be the workspace's only writer for the block; refused while another live process is."""
    return lease.hold(store)


@task(name="plan", **STAGE)
def plan_refresh(store: Store, sources: list[str], recipe: Recipe | None, *, allow_removal: bool) -> Run:
    """List the sources and compare them with the last commit."""
    return pipeline.begin(store, sources, recipe, machine(), allow_removal=allow_removal)


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
    record = pipeline.commit(
        run, counts=counts, encoder=encoder, embedded=embedded, selection=selection, seconds=seconds
    )
    artifacts.publish_stages(run.store, record)
    return record


def summary(run: Run, record: Commit | None) -> dict[str, Any]:
    """What a refresh answers: the new commit's result, or the last one's where there was nothing to do."""
    shown = record if record is not None else run.last
    assert shown is not None
    return commits.summary(run.store, shown, is_new=record is not None)
