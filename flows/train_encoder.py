"""The flow `train-encoder`: train the workspace's next encoder, then refresh, so that it takes over when complete."""

from prefect import flow

from flows.refresh import refresh
from tasks.encoders import train_next
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.time_limits import limited
from tasks.workspaces import hold, open_existing
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.report.summary import Summary


@flow(name="train-encoder", on_failure=[show_failure])
@limited
def train_encoder(
    workspace: str, encoder: EncoderParams | None = None, patience_seconds: float = 0, time_limit_hours: float = 0
) -> Summary:
    """Train on the pool as the last refresh left it; until the refresh behind it ends, the old ranking stands.

    Args:
        workspace: A folder or an `s3://` prefix that has been refreshed before.
        encoder: How to train; as the last refresh's recipe says if not given. `start` continues from another encoder.
        patience_seconds: Wait this many seconds for another writer of the workspace to end; then the run is refused.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
    """
    store = open_existing(workspace)
    with hold(store, patience_seconds):
        train_next(store, encoder)
    result: Summary = refresh(workspace, patience_seconds=patience_seconds)
    return result
