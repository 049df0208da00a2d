"""What the stages of one refresh share: a small record, while tables stay on disk. Imports no torch."""

from dataclasses import dataclass

from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.forecasts import Forecast
from wtl_core.workspace.storage import Store


@dataclass(frozen=True)
class ObjectChanges:
    """How many objects of the sources are new, changed, gone and kept since the last commit."""

    new: int
    changed: int
    gone: int
    kept: int


@dataclass(frozen=True)
class Run:
    """One refresh at work. Small, however many objects are new.

    An orchestrator walks through everything that it passes to a task: 5 s a call with the plan of 100,000 objects in
    here, 0.4 ms without. So the plan is in the listing snapshot on disk.

    Attributes:
        store: The workspace.
        machine: Where the work is done.
        recipe: What decides the result.
        number: The number of the commit that the run will make.
        sources: All sources that the pool draws on afterwards.
        snapshot_key: Key of the listing snapshot: every object with the part that holds or will hold its images.
        batches: Groups of parts still to be made; one call of the ingest stage works through one of them.
        changes: How many objects are new, changed, gone and kept.
        ledger_length: Entries of the ledger that the ranking will respect; the split may add one for arrivals.
        last: The last commit, None before the first.
        is_noop: Nothing differs from the last commit, so its result stands.
        forecast: What the run is expected to take; None where nothing is to be done, and on a Ray cluster.
        planned_before_seconds: What planning took before the run began, where a command had planned already.
    """

    store: Store
    machine: Machine
    recipe: Recipe
    number: int
    sources: list[str]
    snapshot_key: str
    batches: int
    changes: ObjectChanges
    ledger_length: int
    last: Commit | None
    is_noop: bool
    forecast: Forecast | None = None
    planned_before_seconds: float = 0.0
