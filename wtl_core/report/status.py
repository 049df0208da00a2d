"""What a workspace holds now, and who is writing to it. Reads only."""

from dataclasses import asdict
from typing import Any

from wtl_core.training import succession
from wtl_core.workspace import commits, lease, ledger, selections
from wtl_core.workspace.storage import Store

_PERCENTS = ("1", "5", "10")


def run(store: Store) -> dict[str, Any]:
    """The latest commit in a few words, the ledger's length, and the owner of the lease if there is one."""
    last = commits.latest(store)
    owner = lease.read_owner(store)
    writer = None if owner is None else {"host": owner.host, "pid": owner.pid, "is_alive": lease.is_alive(owner)}
    shown: dict[str, Any] = {"workspace": store.root, "writer": writer, "ledger": ledger.length(store)}
    if last is None:
        return {**shown, "refresh": None}
    return {
        **shown,
        "refresh": last.number,
        "created": last.created,
        "sources": last.sources,
        "encoder": {"name": last.encoder_name, "fingerprint": last.encoder},
        "encoder_advice": succession.advice(last.encoder_age, last.recipe.encoder),
        "counts": last.counts.model_dump(),
        "budget": last.budget,
        "ranking": asdict(selections.summary(store, last.selection)),
        "coverage": {p: last.coverage[p] for p in _PERCENTS if p in last.coverage},
        "random_coverage": {p: last.random_coverage[p] for p in _PERCENTS if p in last.random_coverage},
        "selection": store.path(last.selection),
        "report": store.path(last.report),
    }
