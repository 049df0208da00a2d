"""Kept picks: a person has looked at them and wants them labelled. Entered in the ledger and taken back.

This changes no ranking: it tells others, and tomorrow the same person, what has been looked through.
"""

from collections.abc import Sequence

from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


def keep(store: Store, ids: Sequence[str], *, request: str | None = None) -> int:
    """Enter samples as kept, those that are not yet, and on what. Returns how many; without any no entry is made."""
    kept = set(ledger.kept_ids(ledger.read(store)))
    new = [sample_id for sample_id in ids if sample_id not in kept]
    if new:
        ledger.append(store, "kept", new, request=request)
    return len(new)


def undo(store: Store, ids: Sequence[str]) -> int:
    """Take that back of the samples that are kept. Returns how many."""
    kept = set(ledger.kept_ids(ledger.read(store)))
    old = [sample_id for sample_id in ids if sample_id in kept]
    if old:
        ledger.append(store, "unkept", old)
    return len(old)
