"""What the selection stage is given: which samples are ranked, what shapes the ranking, and a digest of all of it.

Reading only: `stage.make` turns these inputs into a ranking, for a refresh or to make the result of a receipt again.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from wtl_core.embedding import vectors
from wtl_core.errors import InputError
from wtl_core.recipe.base import digest_of
from wtl_core.recipe.recipe import Recipe
from wtl_core.selection.control_draw import random_draw
from wtl_core.workspace import ledger, selections, sides
from wtl_core.workspace.storage import Store

_DIGEST_ROWS = 8192
"""Rows of a column that are in memory as JSON at once."""


@dataclass(frozen=True)
class StageInputs:
    """Everything that ranking and ladder are a function of, with the vectors and the kernel's scale of the encoder.

    Attributes:
        encoder: Fingerprint of the encoder; every sample has a vector in its table.
        near_copy_distance: The encoder's, see `training.near_copies`; used where the recipe has no
            `near_duplicate_distance`.
        candidates: Samples to rank, as `Pool.samples`, sorted by `sample_id`.
        labelled: Ids of all labelled samples that have a vector, sorted; those that left the sources included.
        label_classes: The classes of each of `labelled`: none for an image that holds nothing of interest, None where
            they are not known.
        labelled_samples: Those of them that are in the pool, which alone have metadata and so a group.
        redundant: Ids of samples that were skipped as redundant and have a vector, sorted: they cover as labelled ones
            do, and are none.
        drawn: Ids of a uniform random draw of the pool without what filters exclude, all of it labelled or redundant,
            in its random order; empty where the recipe has no `accuracy_goal`.
        exported: Ids of candidates that keep their rank, in the order of their exports.
        filtered: How many samples the recipe's filters exclude that are neither labelled nor skipped.
        skipped: How many samples of the pool are skipped.
        held_out: How many samples of the pool are for validation or test, or on no side of the split.
        ledger_length: Entries of the ledger that this is by.
        recipe: The whole recipe; the selection and ladder parts decide the result.
    """

    encoder: str
    near_copy_distance: float | None
    candidates: pl.DataFrame
    labelled: list[str]
    label_classes: list[list[str] | None]
    labelled_samples: pl.DataFrame
    redundant: list[str]
    drawn: list[str]
    exported: list[str]
    filtered: int
    skipped: int
    held_out: int
    ledger_length: int
    recipe: Recipe

    def as_receipt(self) -> dict[str, Any]:
        """The inputs as a receipt holds them, tables by digest; equal inputs give equal values."""
        labelled = pl.Series("labelled", self.labelled, pl.String)
        return {
            "stage": "selection",
            "version": selections.VERSION,
            "encoder": self.encoder,
            "samples": self.candidates.height,
            "pool": digest_of_columns(
                self.candidates[name] for name in ("sample_id", "uri", "duplicate_of", "metadata")
            ),
            "labelled": digest_of_columns(
                [labelled, *(self.labelled_samples[name] for name in ("sample_id", "uri", "metadata"))]
            ),
            "labelled_samples": len(self.labelled),
            "label_classes": digest_of_columns([pl.Series(self.label_classes, dtype=pl.List(pl.String))]),
            "redundant": digest_of(self.redundant),
            "drawn": digest_of(self.drawn),
            "exported": digest_of(self.exported),
            "selection": self.recipe.selection.model_dump(mode="json"),
            "ladder": self.recipe.ladder.model_dump(mode="json"),
            "near_copy_distance": self.near_copy_distance,
        }


def read_inputs(
    store: Store,
    samples: pl.DataFrame,
    recipe: Recipe,
    *,
    encoder: str,
    near_copy_distance: float | None,
    ledger_length: int,
) -> StageInputs:
    """Divide the live samples by what the first `ledger_length` entries of the ledger say of them.

    `samples` are those that have a vector of the encoder, sorted by `sample_id`. Where all are labelled or skipped (or
    excluded by filters, beside some that are) there are no candidates: nothing is left to label. What was skipped as
    unusable is left out of all that is ranked or covers, as what filters exclude is, and so is what a split holds out
    for validation and test, labelled or not.

    Raises:
        InputError: the filters leave no sample at all, or `similar_to` names ids that are not in the workspace.
    """
    embedded = vectors.existing_ids(store, encoder)
    given = {sample_id for like in recipe.selection.similar_to for sample_id in like.sample_ids}
    if given and (unknown := sorted(given - set(embedded.filter(embedded.is_in(list(given)))))):
        raise InputError(
            f"similar_to: expected ids of samples that this workspace has, found {len(unknown)} others, {unknown[0]!r} "
            "for one; take ids from `wtl cut`, and add images from elsewhere as a source first"
        )
    entries = ledger.read(store, ledger_length)
    is_held_out = pl.col("sample_id").is_in(sides.held_out(store, entries).implode())
    has_vector = pl.col("sample_id").is_in(embedded.implode()) & ~is_held_out
    whole = samples.height
    samples = samples.filter(~is_held_out)
    labels = ledger.labels(entries).filter(has_vector)
    redundant = pl.DataFrame({"sample_id": ledger.sample_ids(entries, "redundant")}, schema={"sample_id": pl.String})
    labelled = labels["sample_id"].to_list()
    named, all_skipped = ledger.sample_ids(entries, "skipped"), ledger.skipped_in(samples, entries)
    is_labelled, is_named, is_skipped = (pl.col("sample_id").is_in(ids) for ids in (labelled, named, all_skipped))
    candidates = samples.filter(~pl.col("is_filtered") & ~is_labelled & ~is_skipped)
    labelled_samples, skipped = samples.filter(is_labelled), samples.filter(is_skipped).height
    if candidates.is_empty() and labelled_samples.is_empty() and not skipped and samples.height == whole:
        raise InputError(
            f"{store.root}: expected images to rank, found {samples.height} of which all are filtered out; "
            "relax the recipe's filters or add images"
        )
    has_goal = recipe.selection.accuracy_goal is not None
    can_be_drawn = ~is_skipped | is_labelled | is_named  # a copy of a skipped image has no entry of its own
    pool = samples.filter(~pl.col("is_filtered") & can_be_drawn)["sample_id"]
    exported = pl.Series("sample_id", ledger.sample_ids(entries, "exported"), pl.String)
    return StageInputs(
        encoder=encoder,
        near_copy_distance=near_copy_distance,
        candidates=candidates,
        labelled=labelled,
        label_classes=labels["classes"].to_list(),
        labelled_samples=labelled_samples,
        redundant=redundant.filter(has_vector)["sample_id"].to_list(),
        drawn=random_draw(entries, pool.to_list()).ids if has_goal else [],
        exported=exported.filter(exported.is_in(candidates["sample_id"].implode())).to_list(),
        filtered=samples.height - candidates.height - labelled_samples.height - skipped,
        skipped=skipped,
        held_out=whole - samples.height,
        ledger_length=ledger_length,
        recipe=recipe,
    )


def digest_of_columns(columns: Iterable[pl.Series]) -> str:
    """What `digest_of` gives for the columns as lists, without one text of all of them (150 MB for 200,000 samples)."""
    digest, before = hashlib.sha256(b"["), b""
    for column in columns:
        digest.update(before + b"[")
        for start in range(0, len(column), _DIGEST_ROWS):
            rows = json.dumps(column.slice(start, _DIGEST_ROWS).to_list(), separators=(",", ":"))
            digest.update((b"," if start else b"") + rows[1:-1].encode())
        digest.update(b"]")
        before = b","
    digest.update(b"]")
    return digest.hexdigest()
