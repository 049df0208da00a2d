"""What a person decides on picks, entered in the ledger: keep, skip as unusable or redundant, open again.

Every decision is an entry, under the workspace's lease and by the functions that the command line uses. Two people at
once take turns; the last decision counts, and the ledger keeps both.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import polars as pl

from wtl_core.errors import BusyError, TransientError
from wtl_core.labelling import keeps, skips
from wtl_core.workspace import lease, ledger
from wtl_core.workspace.storage import Store

Decision = Literal["open", "kept", "unusable", "redundant"]
PATIENCE_SECONDS = 4.0
"""How long another writer is waited for: an addition of labels takes less, a refresh much more."""
_PAUSE_SECONDS = 0.1
_writing = threading.Lock()
"""Requests of one server take turns here, so that they do not meet at the lease."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Decided:
    """What became of a decision.

    Attributes:
        now: The decision that counts for each sample named, or with the same pixels as one of them.
        left: Samples that somebody else had decided on meanwhile, and that were left so.
    """

    now: dict[str, Decision]
    left: list[str]


def standing(entries: pl.DataFrame) -> dict[str, Decision]:
    """The decision on each sample that has one, from the rows of `ledger.read`."""
    return dict(ledger.decided(entries).select("sample_id", "reason").iter_rows())


def decide(
    store: Store,
    ids: Sequence[str],
    decision: Decision,
    *,
    expected: Mapping[str, Decision] | None = None,
    request: str | None = None,
) -> Decided:
    """Enter one decision on some samples.

    Args:
        store: The workspace.
        ids: Samples of the pool.
        decision: What it is from now on.
        expected: What it is held to be now; samples of which that is not true are left as they are.
        request: What it was made on, as `ledger.read` gives it back.

    Raises:
        BusyError: another process, such as a refresh, holds the workspace for longer than `PATIENCE_SECONDS`.
        ConfigError: an id that no sample of the pool has.
    """

    def enter() -> Decided:
        before = standing(ledger.read(store))
        left = [key for key, known in (expected or {}).items() if before.get(key, "open") != known]
        wanted = [key for key in dict.fromkeys(ids) if key not in left]
        changed = [key for key in wanted if before.get(key, "open") != decision]
        if decision in ("unusable", "redundant"):
            if changed:
                skips.skip(store, changed, decision, request=request)
        else:
            if skipped := [key for key in changed if before.get(key) in ("unusable", "redundant")]:
                skips.undo(store, skipped)
            if decision == "kept":
                keeps.keep(store, changed, request=request)
            else:
                keeps.undo(store, changed)
        return Decided(_changes(before, standing(ledger.read(store)), ids), left)

    return under_lease(store, enter)


def undo(store: Store, entry: int, ids: Sequence[str] | None = None) -> Decided:
    """Take back what an entry of the ledger decided, where that still counts; what it replaced then counts again.

    Args:
        store: The workspace.
        entry: Its number.
        ids: Samples of it; all if None. Those that somebody has decided on since are left as they are.

    Raises:
        BusyError: as `decide` does.
    """

    def enter() -> Decided:
        table = ledger.read(store)
        before, rows = standing(table), ledger.decided(table).filter(entry=entry)
        still = set(rows["sample_id"])
        wanted = rows["sample_id"].to_list() if ids is None else [key for key in dict.fromkeys(ids) if key in still]
        if wanted:
            kind: ledger.Kind = "unkept" if rows["reason"][0] == "kept" else "unskipped"
            ledger.append(store, kind, wanted, undoes=entry)
        left = [key for key in ids or [] if key not in still]
        return Decided(_changes(before, standing(ledger.read(store)), [*wanted, *left]), left)

    return under_lease(store, enter)


def _changes(before: Mapping[str, Decision], after: Mapping[str, Decision], ids: Sequence[str]) -> dict[str, Decision]:
    """What counts now of the samples named, and of all whose decision is another one."""
    touched = {*ids, *(key for key in {*before, *after} if before.get(key) != after.get(key))}
    return {key: after.get(key, "open") for key in touched}


def under_lease(store: Store, action: Callable[[], _T]) -> _T:
    """Do something that writes, and wait a moment where another process is writing."""
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with _writing, lease.hold(store):
                return action()
        except (BusyError, TransientError):
            if time.monotonic() > until:
                raise
        time.sleep(_PAUSE_SECONDS)
