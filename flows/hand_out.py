"""The flow `hand-out`: push the next batch into the labelling tool's project when few tasks wait there."""

from typing import Any

from prefect import flow

from tasks.labelling import hand_out_batch, is_ranked, publish_handed_out, wanted
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.time_limits import limited
from tasks.workspaces import hold, open_for_refresh
from wtl_core.labelling.tools.params import ToolParams


@flow(name="hand-out", flow_run_name="looking", on_failure=[show_failure])
@limited
def hand_out(
    workspace: str, labelling: ToolParams | None = None, patience_seconds: float = 0, time_limit_hours: float = 0
) -> dict[str, Any]:
    """Keep the labelling tool's queue filled with the images that are next, each once.

    Args:
        workspace: A folder or an `s3://` prefix.
        labelling: The tool's project, as `[labelling]` of the site file has it.
        patience_seconds: Wait this many seconds for another writer of the workspace to end; then the run is refused.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
    """
    params, store = wanted(labelling), open_for_refresh(workspace)
    if not is_ranked(store):
        return {}
    done = hand_out_batch(store, params, None)
    if done.is_due:
        with hold(store, patience_seconds) as held:
            done = hand_out_batch(store, params, held)
    publish_handed_out(done)
    return done.to_json()
