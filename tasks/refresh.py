"""The two ends of a refresh as tasks: the plan, and the commit that makes the result the workspace's current state."""

from collections.abc import Sequence

from prefect import task

from tasks.prefect_side import artifacts, run_names
from tasks.prefect_side.retries import STAGE
from tasks.settings import machine, settings
from wtl_core import pipeline
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh.outcome import Results
from wtl_core.refresh.sources import with_known
from wtl_core.report import summary
from wtl_core.report.summary import Summary
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.lease import Lease
from wtl_core.workspace.run import Run
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
    """List the sources, with `include_known` all other known ones too, and compare them with the last commit."""
    sources = with_known(store, sources, forget) if include_known else sources
    run = pipeline.plan_refresh(store, sources, recipe, machine(), allow_removal=allow_removal, forget=forget)
    run_names.name_plan(run.changes)
    return run


@task(name="record", **STAGE)
def make_record(run: Run, results: Results) -> Commit:
    """The record of the refresh, not yet written: its accounts, the encoder's age, how many picks changed."""
    return pipeline.make_record(run, results)


@task(name="report", **STAGE)
def write_report(run: Run, record: Commit, held: Lease) -> Commit:
    """Write the report of the refresh; the record with the seconds that this took."""
    held.check()
    return pipeline.write_report(run, record)


@task(name="commit", **STAGE)
def commit(run: Run, record: Commit, held: Lease) -> None:
    """Write the record, last of all: it makes the refresh the workspace's present."""
    held.check()
    pipeline.commit(run, record)


def publish_result(run: Run, record: Commit | None) -> Summary:
    """Publish what the refresh did in the Prefect UI, as artifacts and as the run's name; return what `wtl run` prints.

    Without a `record` there was nothing to do: the last commit's result stands, and its artifacts are there already.
    """
    last = record or run.last
    assert last is not None
    if record is not None:
        artifacts.publish_stages(run.store, record)
        artifacts.publish_report(run.store, record, pipeline.draw_contact_sheet(run, record), settings().report_url)
    run_names.name_result(run.changes, 0 if record is None else record.counts.new_samples)
    return summary.summary(run.store, last, is_new=record is not None)
