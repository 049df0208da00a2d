"""The flow `take-back`: enter labels that were finished in the labelling tool's project, and let a refresh follow."""

from typing import Any

from prefect import flow

from tasks.labelling import is_ranked, publish_taken_back, take_labels_back, wanted
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.time_limits import limited
from tasks.workspaces import hold, open_for_refresh
from wtl_core.labelling.tools.params import ToolParams


@flow(name="take-back", flow_run_name="looking", on_failure=[show_failure])
@limited
def take_back(
    workspace: str, labelling: ToolParams | None = None, patience_seconds: float = 0, time_limit_hours: float = 0
) -> dict[str, Any]:
    """Enter the labels that are new or changed in the labelling tool; if there are any, the event of labels is sent.

    Args:
        workspace: A folder or an `s3://` prefix.
        labelling: The tool's project, as `[labelling]` of the site file has it.
        patience_seconds: Wait this many seconds for another writer of the workspace to end; then the run is refused.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
    """
    params, store = wanted(labelling), open_for_refresh(workspace)
    if not is_ranked(store):
        return {}
    done = take_labels_back(store, params, None)
    if done.taken:
        with hold(store, patience_seconds) as held:
            done = take_labels_back(store, params, held)
    publish_taken_back(store, done)
    return done.to_json()
