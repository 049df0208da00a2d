"""What `wtl run` prints of a commit."""

from dataclasses import asdict
from typing import Any

from wtl_core.training import succession
from wtl_core.workspace import selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def summary(store: Store, commit: Commit, *, is_new: bool) -> dict[str, Any]:
    """What `wtl run --json` prints. A run that found nothing to do (`is_new` false) reports no new samples."""
    counts = commit.counts if is_new else {**commit.counts, "new_samples": 0}
    return {
        "workspace": store.root,
        "selection": store.path(commit.selection),
        "report": store.path(commit.report),
        **counts,
        "by_source": commit.by_source,
        "encoder": commit.encoder,
        "encoder_advice": succession.advice(commit.encoder_age, commit.recipe.encoder),
        "budget": commit.budget,
        "ranking": asdict(selections.summary(store, commit.selection)),
        "picks_kept": commit.picks_kept,
        "coverage": commit.coverage,
        "random_coverage": commit.random_coverage,
        "seconds": commit.seconds,
    }
