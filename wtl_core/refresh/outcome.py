"""The record of a finished refresh: its commit, made from what the stages returned and what has changed."""

from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from wtl_core.embedding import chunks
from wtl_core.embedding.chunks import Embedded
from wtl_core.encoders import cards
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.pool.live_pool import Pool
from wtl_core.refresh import accounts, encoder_age
from wtl_core.workspace import ledger, selections, sides
from wtl_core.workspace.accounts import PoolAccounts
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.run import Run
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store


@dataclass(frozen=True)
class Results:
    """What the stages of a refresh returned, and their wall clock."""

    pool: PoolAccounts
    encoder: EncoderRef
    embedded: Embedded
    selection: SelectionRef
    seconds: dict[str, float]


def make_record(run: Run, live: Pool, results: Results) -> Commit:
    """The commit that makes the results the workspace's present, once it is written.

    Measures how far the pool has moved from the one that the encoder was trained on, and how many picks changed.
    """
    encoder, embedded, selection = results.encoder, results.embedded, results.selection
    samples = chunks.embeddable(run.store, live.samples, encoder.fingerprint)
    labelled, skipped = _labelled_and_skipped(run.store, selection.ledger_length)
    entries = ledger.read(run.store, selection.ledger_length)
    held_out = sides.held_out(run.store, entries)
    is_held_out = samples["sample_id"].is_in(held_out.implode())
    counts = accounts.after_embedding(
        run, live, results.pool, embedded, selection, encoder.fingerprint,
        skipped=len(ledger.skipped_in(samples.filter(~is_held_out), entries)),
        held_out=int(is_held_out.sum()),
    )  # fmt: skip
    kept = pick_changes = None
    labelled_before: set[str] = set()
    skipped_before: set[str] = set()
    relabelled = unlabelled = handed_out = 0
    if run.last is not None:
        labelled_before, skipped_before = _labelled_and_skipped(run.store, run.last.ledger_length)
        settled = [*labelled, *skipped, *held_out]
        before = ledger.read(run.store, run.last.ledger_length)
        relabelled, unlabelled = _label_changes(before, entries)
        handed_out = len({*ledger.sample_ids(entries, "exported")} - {*ledger.sample_ids(before, "exported")})
        kept = selections.kept_share(run.store, run.last.selection, selection.key, settled=settled)
        pick_changes = selections.pick_changes(run.store, run.last.selection, selection.key, settled=settled)
    changes = accounts.changes(
        run,
        live,
        added=counts.new_samples,
        labelled=len(labelled - labelled_before),
        relabelled=relabelled,
        unlabelled=unlabelled,
        skipped=len(skipped - skipped_before),
        handed_out=handed_out,
    )
    return Commit(
        number=run.number,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sources=run.sources,
        listing=run.snapshot_key,
        recipe=run.recipe,
        encoder=encoder.fingerprint,
        encoder_name=encoder.name,
        encoder_file=encoder.file,
        encoder_age=encoder_age.measure(run.store, samples, encoder),
        encoder_check=cards.load_check(run.store, encoder.resolvable) if encoder.is_kept else None,
        vector_table_version=embedded.table_version,
        ledger_length=selection.ledger_length,
        selection=selection.key,
        selection_version=selections.VERSION,
        report=f"reports/{run.number:06d}.html",
        counts=counts,
        by_source=accounts.by_source(run, live, encoder.fingerprint),
        budget=run.recipe.selection.budget,
        picks_kept=kept,
        pick_changes=pick_changes,
        changes=changes,
        coverage=selection.coverage,
        random_coverage=selection.random_coverage,
        seconds=_rounded(results.seconds),
        forecast=run.forecast,
    )


def with_seconds(record: Commit, seconds: dict[str, float]) -> Commit:
    """The record with the wall clock of further stages."""
    return record.model_copy(update={"seconds": {**record.seconds, **_rounded(seconds)}})


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(value, 3) for stage, value in seconds.items()}


def _label_changes(before: pl.DataFrame, now: pl.DataFrame) -> tuple[int, int]:
    """How many labelled samples have other classes now, or are not labelled any more, by two states of the ledger."""
    then, later = (
        ledger.labels(entries, with_skipped=True).select("sample_id", "classes") for entries in (before, now)
    )
    both = then.join(later, on="sample_id", how="left", suffix="_now", coalesce=True)
    is_there = both["sample_id"].is_in(later["sample_id"].implode())
    return both.filter(is_there, pl.col("classes").ne_missing(pl.col("classes_now"))).height, int((~is_there).sum())


def _labelled_and_skipped(store: Store, entries: int) -> tuple[set[str], set[str]]:
    """The samples that are labelled, and those that are skipped, by the first entries of the ledger."""
    table = ledger.read(store, entries)
    return set(ledger.sample_ids(table, "labelled")), set(ledger.sample_ids(table, "skipped"))
