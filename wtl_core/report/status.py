"""What `wtl status` shows: what a workspace holds now, and who is writing to it. Reads only."""

from dataclasses import asdict, dataclass
from typing import Any

from wtl_core.report import decision
from wtl_core.report.decision import Decision
from wtl_core.training import succession
from wtl_core.workspace import commits, lease, ledger, selections, sides
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

PERCENTS = ("1", "5", "10")
"""The operating points whose coverage is shown."""


@dataclass(frozen=True)
class Writer:
    """Who holds the lease of a workspace; a process that is not `is_alive` left it behind."""

    host: str
    pid: int
    is_alive: bool


@dataclass(frozen=True)
class Status:
    """A workspace at this moment.

    Attributes:
        workspace: Folder or `s3://` prefix.
        writer: Who is writing to it; None if nobody does.
        ledger: Entries of the ledger.
        last: The latest commit; None before the first refresh, as then are the two that follow.
        ranking: What its receipt says to a person.
        encoder_advice: What to do about the encoder's age; None while it fits its pool.
        decision: What labelling the picks gives, and its sentence.
        labelled_since: Images that were labelled after the latest commit.
        skipped: How many images are skipped, by reason.
        skipped_since: Images that were skipped after the latest commit.
        split: How many images are on each side of the split, those on none aside; empty where the pool is not split.
    """

    workspace: str
    writer: Writer | None
    ledger: int
    last: Commit | None
    ranking: selections.Summary | None
    encoder_advice: str | None
    decision: Decision | None
    labelled_since: int
    skipped: dict[str, int]
    skipped_since: int
    split: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """The object that `wtl status --json` prints."""
        writer = None if self.writer is None else asdict(self.writer)
        shown = {"workspace": self.workspace, "writer": writer, "ledger": self.ledger, "skipped": self.skipped}
        last = self.last
        if last is None or self.ranking is None:
            return {**shown, "refresh": None}
        return {
            **shown,
            "refresh": last.number,
            "decision": None if self.decision is None else self.decision.to_json(),
            "changed": decision.what_changed(last),
            "labelled_since": self.labelled_since,
            "skipped_since": self.skipped_since,
            "split": self.split,
            "created": last.created,
            "sources": last.sources,
            "encoder": {"name": last.encoder_name, "fingerprint": last.encoder},
            "encoder_advice": self.encoder_advice,
            "counts": last.counts.model_dump(),
            "budget": last.budget,
            "ranking": asdict(self.ranking),
            "coverage": {p: last.coverage[p] for p in PERCENTS if p in last.coverage},
            "random_coverage": {p: last.random_coverage[p] for p in PERCENTS if p in last.random_coverage},
            "selection": f"{self.workspace}/{last.selection}",
            "report": f"{self.workspace}/{last.report}",
        }


def read(store: Store) -> Status:
    """The status of a workspace. Raises what `commits.latest` does."""
    last = commits.latest(store)
    owner = lease.read_owner(store)
    entries = ledger.length(store)
    now, then = ledger.read(store), ledger.read(store, entries if last is None else last.ledger_length)
    labelled, skipped = (
        len({*ledger.sample_ids(now, kind)} - {*ledger.sample_ids(then, kind)}) for kind in ("labelled", "skipped")
    )
    return Status(
        workspace=store.root,
        writer=None if owner is None else Writer(owner.host, owner.pid, lease.is_alive(owner)),
        ledger=entries,
        last=last,
        ranking=None if last is None else selections.summary(store, last.selection),
        encoder_advice=None if last is None else succession.advice(last),
        decision=None if last is None else decision.read(store, last.selection),
        labelled_since=labelled,
        skipped={reason: len(ledger.sample_ids(now, reason)) for reason in ("unusable", "redundant")},
        skipped_since=skipped,
        split=sides.counts(store, now),
    )
