"""Arrivals as tasks: list the sources, send one event per listing, wait for quiet, cancel needless runs.

The id of the event `wtl.shards.arrived` is derived from workspace, last commit and listing, so that the server drops a
copy that is sent again.
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
from wtl_core.refresh import arrivals
from wtl_core.refresh.arrivals import Arrivals
from wtl_core.refresh.sources import source_uri, with_known
from wtl_core.workspace.storage import Store

ARRIVED, FAMILIAR = "wtl.shards.arrived", "wtl.shards.familiar"
_EVENT_DAYS = 7
"""Prefect keeps events that long by default."""


@task(name="look", **STAGE)
def look_for_arrivals(store: Store, sources: list[str], *, include_known: bool = False) -> Arrivals:
    """List the sources, all other known ones too if asked, and compare them with the last refresh; reads no image."""
    sources = with_known(store, sources) if include_known else sources
    return arrivals.look(store, sources)


@task(name="was-judged", **STAGE)
def was_announced(store: Store, seen: Arrivals, *, again_after_seconds: float) -> bool:
    """Whether an event of this listing, arrived or familiar, was sent less than `again_after_seconds` ago.

    A listing that no refresh has taken in after that time is announced again: its run may have failed for a reason that
    no longer holds.
    """
    with get_client(sync_client=True) as client:
        return _next_number(client, store, seen, again_after_seconds) is None


@task(name="announce", **STAGE)
def announce(store: Store, seen: Arrivals, *, is_novel: bool, again_after_seconds: float) -> bool:
    """Send `wtl.shards.arrived` for this listing if it is novel, else `wtl.shards.familiar`, which starts no run.

    Returns:
        Whether the former was sent; False also where it was sent less than `again_after_seconds` ago.
    """
    with get_client(sync_client=True) as client:
        number = _next_number(client, store, seen, again_after_seconds)
        if number is not None:
            _post(client, _event(store, seen, number, ARRIVED if is_novel else FAMILIAR))
    return number is not None and is_novel


@task(name="wait-until-quiet", **STAGE)
def wait_until_quiet(
    store: Store, sources: list[str], quiet_seconds: float, *, include_known: bool = False, forget: Sequence[str] = ()
) -> None:
    """Wait until no shard has landed for `quiet_seconds`, then cancel queued runs whose arrivals this run will list."""
    sources = with_known(store, sources, forget) if include_known else sources
    arrivals.wait_until_quiet(store, sources, quiet_seconds=quiet_seconds)
    _cancel_needless_runs(store, sources)


def _next_number(client: SyncPrefectClient, store: Store, seen: Arrivals, again_after_seconds: float) -> int | None:
    """How many events of this listing were sent; None if the last one is less than `again_after_seconds` old."""
    number = 0
    while (received := _received_at(client, event_id(store, seen, number))) is not None:
        if datetime.now(UTC) - received < timedelta(seconds=again_after_seconds):
            return None
        number += 1
    return number


def event_id(store: Store, seen: Arrivals, number: int) -> UUID:
    """The id of the event number `number` of a listing, from 0.

    The last commit's number is part of it, because a listing can come back: a file is added, and deleted again.
    """
    return uuid5(NAMESPACE_URL, f"{store.root} {seen.number} {seen.listing} {number}")


def _event(store: Store, seen: Arrivals, number: int, name: str) -> dict[str, Any]:
    return {
        "id": str(event_id(store, seen, number)),
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


def _received_at(client: SyncPrefectClient, event_id: UUID) -> datetime | None:
    """When the server received the event; None if it has not."""
    since = datetime.now(UTC) - timedelta(days=_EVENT_DAYS)
    wanted = EventFilter(
        id=EventIDFilter(id=[event_id]),
        occurred=EventOccurredFilter(since=since, until=datetime.now(UTC) + timedelta(days=1)),
    )
    found = client.read_events(filter=wanted, limit=1).events
    return found[0].occurred if found else None


def _post(client: SyncPrefectClient, event: dict[str, Any]) -> None:
    """Send the event and check that the server took it, which Prefect's own `emit_event` does not do."""
    try:
        client.request("POST", "/events", json=[event])
    except PrefectHTTPStatusError as error:
        raise TransientError(
            f"the Prefect server did not take the event {event['event']}: {error}; it will be sent again"
        ) from error


def _cancel_needless_runs(store: Store, sources: list[str]) -> None:
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
            if is_other and lists_all_of(store, sources, run.parameters):
                message = f"Not needed: the run {flow_run.get_name()} lists the sources after this arrival."
                client.set_flow_run_state(run.id, Cancelled(message=message), force=True)


def lists_all_of(store: Store, sources: list[str], parameters: dict[str, Any]) -> bool:
    """Whether a run of `sources` lists all that another run of the flow `refresh` with these `parameters` would list.

    A person may have started the former for one folder alone.
    """
    if source_uri(str(parameters.get("workspace"))) != store.root:
        return False
    named = parameters.get("sources") or []
    theirs = with_known(store, named) if parameters.get("known_too") else named
    return set(arrivals.touched(store, theirs)) <= set(arrivals.touched(store, sources))
