"""A labelling tool as tasks: hand out the next batch, take finished labels back. An artifact shows what was done."""

from dataclasses import asdict

from prefect import task
from prefect.events import emit_event

from tasks.prefect_side import artifacts, run_names
from tasks.prefect_side.event_resources import workspace_resource
from tasks.prefect_side.retries import STAGE
from tasks.settings import open_project
from wtl_core.errors import ConfigError
from wtl_core.labelling.tools import hand_out, take_back
from wtl_core.labelling.tools.hand_out import HandedOut
from wtl_core.labelling.tools.params import ToolParams
from wtl_core.labelling.tools.take_back import TakenBack
from wtl_core.workspace import commits
from wtl_core.workspace.lease import Lease
from wtl_core.workspace.storage import Store

RETURNED = "wtl.labels.arrived"


def wanted(labelling: ToolParams | None) -> ToolParams:
    """The project of a labelling tool. Raises ConfigError if the site names none."""
    if labelling is None:
        raise ConfigError("expected a project of a labelling tool, found none; name it in [labelling] of the site file")
    return labelling


def is_ranked(store: Store) -> bool:
    """Whether there is a ranking to hand out from; until the first refresh has ended there is none."""
    found = commits.latest(store) is not None
    if not found:
        run_names.rename("no ranking yet")
    return found


@task(name="hand-out", **STAGE)
def hand_out_batch(store: Store, params: ToolParams, held: Lease | None) -> HandedOut:
    """Push the next batch if the project's queue is low; without a lease only look whether there is something to push.

    A retry pushes nothing twice: what the failed attempt has pushed is found in the project.
    """
    with open_project(params) as project:
        check = (lambda: None) if held is None else held.check
        return hand_out.run(store, project, params, check=check, is_dry=held is None)


@task(name="take-back", **STAGE)
def take_labels_back(store: Store, params: ToolParams, held: Lease | None) -> TakenBack:
    """Enter the labels that are new or changed in the project; without a lease only look whether there are any."""
    if held is not None:
        held.check()
    with open_project(params) as project:
        return take_back.run(store, project, params, is_dry=held is None)


def publish_handed_out(done: HandedOut) -> None:
    """Show what was handed out, as an artifact and as the run's name."""
    run_names.name_hand_out(done)
    artifacts.publish_tool("hand-out", done.project, asdict(done))


def publish_taken_back(store: Store, done: TakenBack) -> None:
    """Show what came back, as an artifact and as the run's name; new labels send the event that starts a refresh."""
    run_names.name_take_back(done)
    artifacts.publish_tool("take-back", done.project, asdict(done))
    if done.entry and (done.added or done.corrected):
        resource = {"prefect.resource.id": workspace_resource(store.root), "prefect.resource.name": store.root}
        emit_event(RETURNED, resource=resource, payload={"added": done.added, "corrected": done.corrected})
