"""What `wtl run` prints of a commit."""

from wtl_core.report import decision
from wtl_core.report.decision import Decision
from wtl_core.training import succession
from wtl_core.workspace import selections
from wtl_core.workspace.accounts import Accounts, SourceAccounts
from wtl_core.workspace.commits import Changes, Commit, PickChanges
from wtl_core.workspace.storage import Store


class Summary(Accounts):
    """The object that `wtl run --json` prints: the row accounts, and what follows. Paths and URIs are whole."""

    workspace: str
    """The workspace."""
    selection: str
    """The folder of ranking, ladder and receipt."""
    report: str
    """The HTML report."""
    by_source: dict[str, SourceAccounts]
    """read, locations, quarantined, ignored of each source."""
    encoder: str
    """Fingerprint."""
    encoder_advice: str | None
    """What to do about the encoder's age; None while it fits its pool."""
    budget: int | str | None
    """The operating point that marks the picks."""
    ranking: selections.Summary
    """Advice, what ended the picks, and what quotas cost."""
    refresh: int
    """Its number."""
    decision: Decision
    """What labelling the picks gives, and its sentence."""
    changes: Changes | None
    """What came and went since the refresh before."""
    changed: str
    """The same as a sentence; empty for the first refresh."""
    pick_changes: PickChanges | None
    """The open picks of the refresh before: how many, how many stay, and how many picks are new; None without one."""
    picks_kept: float | None
    """Jaccard index of the last refresh's picks and as many of this ranking; None where there is none to compare."""
    coverage: dict[str, float]
    """By per cent, `1` to `100`; empty if nothing is left to label."""
    random_coverage: dict[str, float]
    """The mean of the matched random orders, by the same per cents."""
    seconds: dict[str, float]
    """Wall clock by stage."""


def summary(store: Store, commit: Commit, *, is_new: bool) -> Summary:
    """The summary of a commit. A run that found nothing to do (`is_new` false) reports no new samples."""
    counts = commit.counts.model_dump()
    return Summary(
        **(counts if is_new else {**counts, "new_samples": 0}),
        workspace=store.root,
        selection=store.path(commit.selection),
        report=store.path(commit.report),
        by_source=commit.by_source,
        encoder=commit.encoder,
        encoder_advice=succession.advice(commit),
        budget=commit.budget,
        ranking=selections.summary(store, commit.selection),
        refresh=commit.number,
        decision=decision.read(store, commit.selection),
        changes=commit.changes,
        changed=decision.what_changed(commit),
        picks_kept=commit.picks_kept,
        pick_changes=commit.pick_changes,
        coverage=commit.coverage,
        random_coverage=commit.random_coverage,
        seconds=commit.seconds,
    )
