"""Names of flow runs that say what happened: the first thing that the list of runs shows."""

import logging
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run

from wtl_core.machine import duration
from wtl_core.refresh.arrivals import Arrivals
from wtl_core.workspace.run import ObjectChanges

if TYPE_CHECKING:
    from wtl_core.labelling.tools.hand_out import HandedOut
    from wtl_core.labelling.tools.take_back import TakenBack
    from wtl_core.upkeep.maintenance import Maintained  # imports lancedb, which a watch does without

_LONGEST = 100

_logger = logging.getLogger("wtl_core.run_names")


def rename(name: str) -> None:
    """Rename the current flow run; without effect outside a flow run."""
    context, identity = FlowRunContext.get(), flow_run.get_id()
    if identity is None or context is None:
        return
    rename_run(str(identity), name)
    if isinstance(context.flow_run, FlowRun):
        context.flow_run.name = name


def rename_run(identity: str, name: str) -> None:
    """Rename a flow run, the name cut to a readable length. An error of the server is logged, and not raised."""
    shown = name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_name(UUID(identity), shown)
    except Exception as error:  # noqa: BLE001, a refresh that has committed must not fail for its name
        _logger.warning("the run could not be renamed to %r: %s", shown, error)


def name_plan(changes: ObjectChanges) -> None:
    """Name a refresh that is at work after what it found in its sources."""
    rename(_changed(changes) + ": at work")


def name_result(changes: ObjectChanges, new_samples: int) -> None:
    """Name a refresh after what it did, such as `3 new shards, 12,408 new images`."""
    rename(f"{_changed(changes)}, {_count(new_samples, 'new image')}")


def name_training(card: dict[str, Any], *, is_new: bool) -> None:
    """Name a run after the `card` of the encoder that it made, such as `trained resnet9 on 12,408 images, 5 min`."""
    is_trained = card["method"] == "contrastive"
    made, network = ("trained", card["plan"]["shape"]["kind"]) if is_trained else ("fitted", card["network"])
    # The card of a network that an earlier version fitted lacks the pool's size.
    what = f"{network} on {_count(card.get('images', card.get('fitted_on', 0)), 'image')}"
    rename(f"{made} {what}, {duration(card['seconds_since_last_start'])}" if is_new else f"{what}: {made} before")


def name_maintenance(done: "Maintained") -> None:
    """Name house-keeping after what it did, such as `12 files deleted, 340 vectors dropped, 1 table compacted`."""
    counts = {
        "file deleted": sum(done.deleted.values()),
        "vector dropped": done.vectors_dropped,
        "table compacted": done.tables_compacted,
        "table dropped": done.tables_dropped,
    }
    parts = [f"{_count(count, what.split()[0])} {what.split()[1]}" for what, count in counts.items() if count]
    rename(", ".join(parts) or "nothing to delete or compact")


def name_benchmark(dataset: str, *, new: int, cells: int, missing: int) -> None:
    """Name a benchmark after what it measured, such as `cifar10: 40 new cells of 120, 2 missing`."""
    rename(f"{dataset}: {_count(new, 'new cell')} of {cells:,}" + (f", {missing:,} missing" if missing else ""))


def name_hand_out(done: "HandedOut") -> None:
    """Name a look at a labelling tool's queue after what it did, such as `180 pushed, 20 waited`."""
    rename(done.told())


def name_take_back(done: "TakenBack") -> None:
    """Name a look at a labelling tool's annotations after what it did, such as `40 labels taken, 160 images wait`."""
    rename(done.told())


def name_watch(seen: Arrivals, *, is_announced: bool) -> None:
    """Name a look of the watch after what it found, and whether it has sent the event that starts a refresh."""
    if not seen.is_pending:
        rename(f"nothing new in {_count(seen.objects, 'shard')}")
        return
    found = _changed(seen)
    what_next = "event sent" if is_announced else "waiting, or event sent before"
    rename(f"{found}, {_size(seen.bytes)}: {what_next}")


def _changed(changes: ObjectChanges | Arrivals) -> str:
    counts = {"new": changes.new, "changed": changes.changed, "gone": changes.gone}
    return ", ".join(_count(count, f"{kind} shard") for kind, count in counts.items() if count) or "no new shard"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
