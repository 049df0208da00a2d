"""What the stages of one refresh share: a small record, while tables stay on disk. Imports no torch."""

from dataclasses import dataclass

from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


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
        changes: Objects by what happened to them: new, changed, gone, kept.
        ledger_length: Entries of the ledger that the ranking will respect.
        last: The last commit, None before the first.
        is_noop: Nothing differs from the last commit, so its result stands.
    """

    store: Store
    machine: Machine
    recipe: Recipe
    number: int
    sources: list[str]
    snapshot_key: str
    batches: int
    changes: dict[str, int]
    ledger_length: int
    last: Commit | None
    is_noop: bool
