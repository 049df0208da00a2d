"""The workspace as it is now: the view of its latest refresh, what the ledger says, and who is writing.

Every question looks whether there is something newer, which costs a listing of two folders. A new refresh is loaded
beside the old one, which answers until that is done.
"""

import threading
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from wtl_core.app.view import View
from wtl_core.embedding import vectors
from wtl_core.errors import ConfigError
from wtl_core.workspace import commits, lease, ledger, snapshots
from wtl_core.workspace.storage import Store

_LOOK_SECONDS = 1.0
"""A listing of a bucket takes some 50 ms, so it is not asked for by every one of a page's requests."""
OPEN, KEPT, UNUSABLE, REDUNDANT, LABELLED, OUT = range(6)
STATES = ("open", "kept", "unusable", "redundant", "labelled", "out")
"""Of a sample, as its code in a column; `out` is handed out in a batch and not back."""


class Entries:
    """What the first `length` entries of the ledger say of the samples of a view."""

    def __init__(self, store: Store, view: View, length: int) -> None:
        self.length = length
        self.table = ledger.read(store, length)
        self._view = view

    @cached_property
    def labels(self) -> pl.DataFrame:
        """As `ledger.labels` gives them."""
        return ledger.labels(self.table)

    @cached_property
    def batch_of(self) -> dict[str, str]:
        """The batch of each sample that was handed out in one."""
        rows = self.table.filter(pl.col("kind") == "exported", pl.col("batch").is_not_null())
        return dict(rows.select("sample_id", "batch").iter_rows())

    @cached_property
    def decided(self) -> pl.DataFrame:
        """As `ledger.decided` gives it."""
        return ledger.decided(self.table)

    @cached_property
    def states(self) -> np.ndarray:
        """(N,) uint8: the code of each row's state."""
        found = np.full(self._view.samples.height, OPEN, np.uint8)
        found[self._view.rows_of(self.decided.filter(reason="kept")["sample_id"])] = KEPT
        found[self._view.rows_of(list(self.batch_of))] = OUT
        found[self._view.rows_of(self.labels["sample_id"])] = LABELLED
        for code in (UNUSABLE, REDUNDANT):
            found[self._view.rows_of(self.decided.filter(reason=STATES[code])["sample_id"])] = code
        return found


@dataclass(frozen=True)
class Work:
    """What another process does to the workspace: `done` of `total` `what`, where the files tell it."""

    host: str
    pid: int
    is_alive: bool
    stage: str
    done: int | None = None
    total: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return asdict(self)


class Live:
    """A workspace that is looked at while others write to it. Its methods may be called by several threads."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._lock = threading.Lock()
        self._view: View | None = None
        self._entries: Entries | None = None
        self._looked = 0.0
        self._latest = 0
        self._is_loading = False
        self._labelled: tuple[tuple[str, int], np.ndarray, list[str]] | None = None

    def view(self) -> View:
        """The latest refresh; the one before while that is being loaded.

        Raises:
            ConfigError: there is no refresh yet.
        """
        with self._lock:
            if self._view is None:
                self._view = self._load()
                self._latest = self._view.commit.number
            elif time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looked = time.monotonic()
                last = commits.latest(self.store)
                self._latest = self._latest if last is None else last.number
                if self._latest != self._view.commit.number and not self._is_loading:
                    self._is_loading = True
                    threading.Thread(target=self._replace, name="wtl-app-load", daemon=True).start()
            return self._view

    def entries(self) -> Entries:
        """What the ledger says now, of the view's samples."""
        view, length = self.view(), ledger.length(self.store)
        with self._lock:
            known = self._entries
        if known is not None and known.length == length and known._view is view:
            return known
        found = Entries(self.store, view, length)
        with self._lock:
            self._entries = found
        return found

    @property
    def is_loading(self) -> bool:
        """Whether a newer refresh than the view's is being loaded."""
        return self._is_loading

    def work(self) -> Work | None:
        """Who is writing, and how far a refresh has come by the files that it has written; None if nobody is."""
        owner = lease.read_owner(self.store)
        if owner is None:
            return None
        told = Work(owner.host, owner.pid, lease.is_alive(owner), "writing")
        last = commits.latest(self.store)
        pending = None if last is None else snapshots.pending_snapshot(self.store, last)
        if last is None or pending is None:
            return told
        parts = set(pending[1]["part"].drop_nulls())
        made = {name.removesuffix(".parquet") for name in self.store.names("pool")}
        if parts - made:
            return Work(owner.host, owner.pid, told.is_alive, "reading images", len(parts & made), len(parts))
        selection = f"{last.number + 1:06d}-"
        if any(name.startswith(selection) for name in self.store.names("selections")):
            return Work(owner.host, owner.pid, told.is_alive, "writing the report")
        count = vectors.count(self.store, last.encoder)
        return Work(owner.host, owner.pid, told.is_alive, "embedding and ranking", count)

    def labelled_vectors(self) -> tuple[np.ndarray, list[str]]:
        """Unit vectors (L, D) float32 of the labelled samples that have one, and their ids; kept while these hold."""
        view, entries = self.view(), self.entries()
        key = (view.commit.encoder, entries.length)
        with self._lock:
            if self._labelled is not None and self._labelled[0] == key:
                return self._labelled[1], self._labelled[2]
        present = vectors.existing_ids(self.store, view.commit.encoder)
        labelled = entries.labels["sample_id"]
        ids = labelled.filter(labelled.is_in(present.implode())).to_list()
        matrix = np.zeros((0, 1), np.float32)
        if ids:
            matrix = vectors.load(self.store, view.commit.encoder, ids).astype(np.float32)
            matrix /= np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)
        with self._lock:
            self._labelled = (key, matrix, ids)
        return matrix, ids

    def _load(self) -> View:
        last = commits.latest(self.store)
        if last is None:
            raise ConfigError(f"{self.store.root}: expected a refresh, found none yet; `wtl run SOURCE` makes one")
        return View(self.store, last)

    def _replace(self) -> None:
        try:
            view = self._load()
            view.columns()  # while the old view answers: the rooms ask for them at once
            with self._lock:
                self._view = view
        finally:
            self._is_loading = False
