"""Deletes what older refreshes left beside the pool: tables of selections, reports, encoders, unfinished work.

Each function deletes what is not needed and returns how many files went. Receipts, commits, the ledger and the kernel
scale of every encoder are never deleted: they are small, and they are the record. Imports no torch.
"""

import json
import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta

from wtl_core.embedding import staging
from wtl_core.encoders.fingerprints import makes
from wtl_core.training import succession
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_TABLES = ("ranking.parquet", "ladder.parquet")
_ENCODER_FILES = ("card.json", "weights.safetensors", "origin.json", "check.json")
"""In this order: without its card a folder is no encoder, so a kill leaves none with half its files."""
_TRAININGS = "encoders/.training"
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def needed_encoders(store: Store, kept: Sequence[Commit]) -> set[str]:
    """Fingerprints that the kept refreshes used or name in their recipes, and the successor that was trained."""
    named = [text for commit in kept for text in (commit.recipe.encoder.name, commit.recipe.encoder.start or "")]
    found = {commit.encoder for commit in kept}.union(*(_FINGERPRINT.findall(text) for text in named))
    successor = succession.successor(store)
    return found | ({successor} if successor else set())


def prune_selections(store: Store, kept: Sequence[Commit]) -> int:
    """Delete ranking and ladder of all selections but the kept ones and those that no commit can name yet."""
    needed, last = {commit.selection for commit in kept}, max(commit.number for commit in kept)
    gone = 0
    for name in store.names("selections"):
        if f"selections/{name}" not in needed and _number(name) <= last:
            gone += _delete_present(store, f"selections/{name}", _TABLES)
    return gone


def prune_reports(store: Store, kept: Sequence[Commit]) -> int:
    """Delete the reports of all refreshes but the kept ones and those that no commit can name yet."""
    needed, last = {commit.report for commit in kept}, max(commit.number for commit in kept)
    gone = [name for name in store.names("reports") if f"reports/{name}" not in needed and _number(name) <= last]
    return _delete_present(store, "reports", gone)


def prune_encoders(store: Store, needed: Collection[str]) -> int:
    """Delete all trained encoders but the needed ones. A scale stays: it was fixed at its encoder's first ranking."""
    held = [name for name in store.names("encoders") if _FINGERPRINT.fullmatch(name)]
    retired = [name for name in held if not any(makes(name, other) for other in needed)]
    return sum(_delete_present(store, f"encoders/{name}", _ENCODER_FILES) for name in retired)


def prune_positions(store: Store, needed: Collection[str]) -> int:
    """Delete positions of the map of encoders that are not needed, and of all but the last fit of the others."""
    gone = 0
    for fingerprint in (name for name in store.names("encoders") if _FINGERPRINT.fullmatch(name)):
        folder = f"encoders/{fingerprint}/positions"
        names = store.names(folder)
        last = max((_number(name) for name in names), default=0)
        gone += _delete_present(
            store, folder, [name for name in names if fingerprint not in needed or _number(name) < last]
        )
    return gone


def prune_trainings(store: Store, needed: Collection[str], *, keep_days: float) -> int:
    """Delete trainings whose encoder is no longer needed, and unfinished ones without a checkpoint for `keep_days`."""
    oldest = datetime.now(UTC) - timedelta(days=keep_days)
    gone = 0
    for name in store.names(_TRAININGS):
        folder = f"{_TRAININGS}/{name}"
        files = store.names(folder)
        if "outcome.json" in files:
            is_over = json.loads(store.read_bytes(f"{folder}/outcome.json"))["fingerprint"] not in needed
        else:
            is_over = all(store.modified(f"{folder}/{file}") < oldest for file in files)
        if is_over:
            store.delete_folder(folder)
            gone += len(files)
    return gone


def prune_staging(store: Store) -> int:
    """Delete embedding plans and vectors that were never committed; only where no refresh is to go on with them."""
    gone = 0
    for fingerprint in store.names(staging.FOLDER):
        gone += len(store.names(f"{staging.FOLDER}/{fingerprint}"))
        store.delete_folder(f"{staging.FOLDER}/{fingerprint}")
    return gone


def _delete_present(store: Store, folder: str, names: Collection[str]) -> int:
    """Delete those of the files that are there, in the order of `names`."""
    present = set(store.names(folder))
    gone = [name for name in names if name in present]
    for name in gone:
        store.delete(f"{folder}/{name}")
    return len(gone)


def _number(name: str) -> int:
    """The refresh that a selection's folder or a report is named after; 0 for a name that is not ours."""
    digits = re.match(r"\d+", name)
    return int(digits[0]) if digits else 0
