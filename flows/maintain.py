"""The flow `maintain`: delete what the last refreshes do not need, and compact the tables."""

from prefect import flow

from tasks.maintain import maintain_workspace
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.time_limits import limited
from tasks.workspaces import hold, open_existing
from wtl_core.upkeep.maintenance import Maintained


@flow(name="maintain", on_failure=[show_failure])
@limited
def maintain(
    workspace: str, keep: int = 10, keep_days: float = 7, patience_seconds: float = 0, time_limit_hours: float = 0
) -> Maintained:
    """House-keeping; changes no result.

    The last `keep` refreshes stay whole. Of older ones commit and receipt stay; their parts, rankings, ladders, reports
    and encoders go.

    Args:
        workspace: A folder or an `s3://` prefix.
        keep: Refreshes that must stay whole, so that they can be replayed.
        keep_days: Age in days up to which old versions of a vector table and unfinished trainings stay.
        patience_seconds: Wait this many seconds for another writer of the workspace to end; then the run is refused.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
    """
    store = open_existing(workspace)
    with hold(store, patience_seconds) as held:
        return maintain_workspace(store, held, keep=keep, keep_days=keep_days)
