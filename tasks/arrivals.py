"""Arrivals as tasks: look, tell the server once for each listing, wait for quiet, drop the runs that this one covers.

The id of the event `wtl.shards.arrived` is derived from workspace, last commit and listing: telling it again changes
nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.events.filters import EventFilter, EventIDFilter, EventOccurredFilter
from prefect.exceptions import PrefectHTTPStatusError
from prefect.runtime import deployment, flow_run
from prefect.states import Cancelled

from tasks.prefect_side.crashes import is_started_by_event
from tasks.prefect_side.event_resources import workspace_resource
from tasks.prefect_side.retries import STAGE
from wtl_core.errors import TransientError
from wtl_core.refresh import arrivals, planning
from wtl_core.refresh.arrivals import Arrivals
from wtl_core.workspace.storage import Store

ARRIVED, FAMILIAR = "wtl.shards.arrived", "wtl.shards.familiar"
_TOLD_DAYS = 7
"""Prefect keeps events that long by default."""


@task(name="look", **STAGE)
def look_for_arrivals(store: Store, sources: list[str], *, include_known: bool = False) -> Arrivals:
    """List the sources, all other known ones too if asked, and compare them with the last refresh; reads no image."""
    sources = planning.with_known(store, sources) if include_known else sources
    return arrivals.look(store, sources)


@task(name="was-judged", **STAGE)
def was_judged(store: Store, seen: Arrivals, *, again_after_seconds: float) -> bool:
    """Whether this listing was told, or found familiar, less than `again_after_seconds` ago.

    A listing that is still not refreshed after that is judged again: its run may have failed for a reason that has
    passed since.
    """
    with get_client(sync_client=True) as client:
        return _next_number(client, store, seen, again_after_seconds) is None


@task(name="announce", **STAGE)
def announce(store: Store, seen: Arrivals, *, is_novel: bool, again_after_seconds: float) -> bool:
    """Emit `wtl.shards.arrived` for this listing, or `wtl.shards.familiar`, which starts no run; whether it was new."""
    with get_client(sync_client=True) as client:
        number = _next_number(client, store, seen, again_after_seconds)
        if number is not None:
            _post(client, _event(store, seen, number, ARRIVED if is_novel else FAMILIAR))
    return number is not None and is_novel


@task(name="wait-until-quiet", **STAGE)
def wait_until_quiet(
    store: Store, sources: list[str], quiet_seconds: float, *, include_known: bool = False, forget: Sequence[str] = ()
) -> None:
    """Let a drop of many shards end before it is read, then cancel queued runs whose arrivals this run will list."""
    sources = planning.with_known(store, sources, forget) if include_known else sources
    arrivals.wait_until_quiet(store, sources, quiet_seconds=quiet_seconds)
    _cancel_covered_runs(store, sources)


def _next_number(client: SyncPrefectClient, store: Store, seen: Arrivals, again_after_seconds: float) -> int | None:
    """How often this listing was told already; None if the last time was too short ago to tell it again."""
    number = 0
    while (told := _told_at(client, _event_id(store, seen, number))) is not None:
        if datetime.now(UTC) - told < timedelta(seconds=again_after_seconds):
            return None
        number += 1
    return number


def _event_id(store: Store, seen: Arrivals, number: int) -> UUID:
    """The commit's number is in it because a listing can come again: a file that was added is deleted."""
    return uuid5(NAMESPACE_URL, f"{store.root} {seen.number} {seen.listing} {number}")


def _event(store: Store, seen: Arrivals, number: int, name: str) -> dict[str, Any]:
    return {
        "id": str(_event_id(store, seen, number)),
        "occurred": datetime.now(UTC).isoformat(),
        "event": name,
        "resource": {"prefect.resource.id": workspace_resource(store.root), "prefect.resource.name": store.root},
        "related": [],
        "payload": {
            "workspace": store.root,
            "sources": list(seen.sources),
            "count": seen.count,
            "gone": seen.gone,
            "bytes": seen.bytes,
            "listing": seen.listing,
        },
    }


def _told_at(client: SyncPrefectClient, event_id: UUID) -> datetime | None:
    """When the server received the event; None if it has not."""
    since = datetime.now(UTC) - timedelta(days=_TOLD_DAYS)
    wanted = EventFilter(
        id=EventIDFilter(id=[event_id]),
        occurred=EventOccurredFilter(since=since, until=datetime.now(UTC) + timedelta(days=1)),
    )
    found = client.read_events(filter=wanted, limit=1).events
    return found[0].occurred if found else None


def _post(client: SyncPrefectClient, event: dict[str, Any]) -> None:
    """Hand the event over and see that the server took it, which Prefect's own `emit_event` does not tell."""
    try:
        client.request("POST", "/events", json=[event])
    except PrefectHTTPStatusError as error:
        raise TransientError(
            f"the Prefect server did not take the event {event['event']}: {error}; it is sent again"
        ) from error


def _cancel_covered_runs(store: Store, sources: list[str]) -> None:
    """Cancel queued runs of this deployment that an event started and whose sources this run lists now."""
    mine, deployment_id = flow_run.get_id(), deployment.get_id()
    if mine is None or deployment_id is None:
        return
    with get_client(sync_client=True) as client:
        waiting = client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[UUID(str(deployment_id))])),
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
            ),
        )
        for run in waiting:
            is_other = str(run.id) != str(mine) and is_started_by_event(run)
            if is_other and _covers(store, sources, run.parameters):
                message = f"Covered by the run {flow_run.get_name()}, which listed the sources after this arrival."
                client.set_flow_run_state(run.id, Cancelled(message=message), force=True)


def _covers(store: Store, sources: list[str], parameters: dict[str, Any]) -> bool:
    """Whether a run of `sources`, which may be a person's of one folder, lists all that one with `parameters` would."""
    if planning.source_uri(str(parameters.get("workspace"))) != store.root:
        return False
    named = parameters.get("sources") or []
    theirs = planning.with_known(store, named) if parameters.get("known_too") else named
    return set(arrivals.touched(store, theirs)) <= set(arrivals.touched(store, sources))
