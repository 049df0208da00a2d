"""The flow `watch`: list the sources and, if shards have arrived, send the event that starts a refresh."""

from typing import Any

from prefect import flow

from tasks.arrivals import announce, look_for_arrivals, was_announced
from tasks.novelty import is_novel_enough
from tasks.prefect_side.failures import show_failure
from tasks.prefect_side.run_names import name_watch
from tasks.prefect_side.time_limits import limited
from tasks.workspaces import open_for_refresh


@flow(name="watch", flow_run_name="looking", on_failure=[show_failure])
@limited
def watch(
    workspace: str,
    sources: list[str] | None = None,
    at_least: int = 1,
    novelty: float | None = None,
    again_after_seconds: float = 3600,
    time_limit_hours: float = 0,
    known_too: bool = False,
) -> dict[str, Any]:
    """Emit `wtl.shards.arrived` when something in the sources is new, changed or gone.

    Args:
        workspace: A folder or an `s3://` prefix.
        sources: What to list; all sources that the workspace knows if none is named.
        at_least: Least number of new and changed objects that starts a refresh; fewer wait for more, or for the night.
        novelty: Send the event only if at least this share of the new images is far from everything that is labelled.
            Objects that are gone send it either way.
        again_after_seconds: Send the event again if no refresh has taken in the arrival within this many seconds.
        time_limit_hours: The run fails when it is still at work after this many hours; 0 for no limit.
        known_too: List all other known sources as well, and not the named ones alone.
    """
    store = open_for_refresh(workspace)
    seen = look_for_arrivals(store, sources or [], include_known=known_too)
    is_due = seen.is_pending and (seen.count >= at_least or seen.gone > 0)
    is_announced = False
    if is_due and not was_announced(store, seen, again_after_seconds=again_after_seconds):
        is_novel = novelty is None or not seen.count or is_novel_enough(store, seen, novelty)
        is_announced = announce(store, seen, is_novel=is_novel, again_after_seconds=again_after_seconds)
    name_watch(seen, is_announced=is_announced)
    counts = {"new": seen.new, "changed": seen.changed, "gone": seen.gone, "bytes": seen.bytes}
    return {**counts, "is_announced": is_announced}
