"""Prefect's events of assets that a run has materialised: pool, vectors and ranking of a workspace.

The open-source server has no page for assets; their events are in the event feed, and artifacts of the same names link
to them.
"""

from typing import Any

from prefect.events import Event, emit_event

MADE = "prefect.asset.materialization.succeeded"


def materialised(root: str, what: str, payload: dict[str, Any]) -> Event | None:
    """Send the event that `what` (`pool`, `vectors`, `ranking`) of the workspace at `root` was brought up to date."""
    key = asset_key(root, what)
    return emit_event(MADE, resource={"prefect.resource.id": key, "prefect.resource.name": what}, payload=payload)


def asset_key(root: str, what: str) -> str:
    """The asset's key: where it lies, as a URI."""
    return f"{root}/{what}" if "://" in root else f"file://{root}/{what}"
