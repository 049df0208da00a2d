"""Skipped images: a person's word that an image is unusable or redundant, entered in the ledger and taken back.

An unusable image covers nothing and never returns. A redundant one counts as covered, as a labelled image does, and
never returns either. Reads no image.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, get_args

import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.labelling import sample_names
from wtl_core.labelling.formats.rows import shown
from wtl_core.pool import live_pool
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.ledger import Reason
from wtl_core.workspace.storage import Store

_COLUMNS = ("sample_id", "uri", "reason", "created", "entry")


@dataclass(frozen=True)
class Skipped:
    """What became of the images that were named.

    Attributes:
        named: Samples that are named.
        copies: Samples with the same pixels as one of them, which share its fate.
        changed: Samples of both whose skip is new, has another reason now, or is taken back.
        labelled: Those of them that have a label, which counts only while they are not skipped.
        entry: The ledger's new entry; 0 if nothing changed.
    """

    named: int
    copies: int
    changed: int
    labelled: int
    entry: int

    def to_json(self) -> dict[str, Any]:
        """What `wtl skip --json` prints."""
        return asdict(self)


def skip(store: Store, values: Sequence[str], reason: Reason, *, request: str | None = None) -> Skipped:
    """Enter samples as skipped, with all that have the same pixels. All are entered, or none.

    A sample that is skipped for another reason is skipped for this one from now on.

    Args:
        store: The workspace.
        values: Names of samples, as `labels.add` takes them.
        reason: Why.
        request: What it was decided on, as a person would say it; `ledger.read` gives it back.

    Raises:
        ConfigError: a value names no sample or several, the reason is none, or the workspace has no refresh yet.
    """
    if reason not in get_args(Reason):
        told = f"expected a reason out of {', '.join(get_args(Reason))}, found {reason!r}"
        raise ConfigError(f"{store.root}: {told}; nothing is entered")
    pixels = _pixels(store)
    named = set(_named(store, values, pixels).values())
    ids = _with_copies(pixels, named)
    table = ledger.read(store)
    before = set(ledger.sample_ids(table, reason))
    new = [sample_id for sample_id in ids if sample_id not in before]
    entry = ledger.append(store, "skipped", new, reason=reason, request=request) if new else 0
    return Skipped(len(named), len(ids) - len(named), len(new), _labelled(table, new), entry)


def undo(store: Store, values: Sequence[str] = ()) -> Skipped:
    """Take skips back, by an entry of its own: everything is as it was before.

    Args:
        store: The workspace.
        values: Names of skipped samples, which are skipped no more, nor are those with the same pixels. None for the
            last call of `skip` that still counts; a reason that it replaced then counts again.

    Raises:
        ConfigError: nothing is skipped, or a value names no skipped sample.
    """
    table = ledger.read(store)
    present = ledger.skips(table)
    if not values:
        last = max(present["entry"], default=None)
        if last is None:
            raise ConfigError(f"{store.root}: expected skipped images, found none; nothing is undone")
        ids = present.filter(pl.col("entry") == last)["sample_id"].to_list()
        entry = ledger.append(store, "unskipped", ids, undoes=last)
        return Skipped(len(ids), 0, len(ids), _labelled(table, ids), entry)
    skipped = set(present["sample_id"])
    pixels = _pixels(store)
    sample_of = _named(store, values, pixels)
    if wrong := [value for value, sample_id in sample_of.items() if sample_id not in skipped]:
        raise ConfigError(f"expected names of skipped images, found others ({shown(wrong)}); nothing is undone")
    named = set(sample_of.values())
    ids = [sample_id for sample_id in _with_copies(pixels, named) if sample_id in skipped]
    entry = ledger.append(store, "unskipped", ids)
    return Skipped(len(named), len(ids) - len(named), len(ids), _labelled(table, ids), entry)


def listed(store: Store) -> pl.DataFrame:
    """The skipped samples: `sample_id`, `uri`, `reason`, `created`, `entry`, as `ledger.skips` has them.

    `uri` is the sample's first location, null for one that has left the pool. Sorted by `sample_id`.
    """
    return sample_names.with_uris(store, ledger.skips(ledger.read(store))).select(_COLUMNS)


def _named(store: Store, values: Sequence[str], pixels: pl.DataFrame) -> dict[str, str]:
    """The sample that each value names; names are read where a value is no id of the pool.

    Raises ConfigError if one names none or several.
    """
    ids = set(pixels.filter(pl.col("sample_id").is_in(list(values)))["sample_id"])
    others = [value for value in dict.fromkeys(values) if value not in ids]
    if not others:
        return {value: value for value in values}
    matched = sample_names.match_in_pool(store, others)
    wrong = matched.filter(pl.col("sample_ids").list.len() != 1)["value"].to_list()
    if wrong:
        raise ConfigError(
            f"expected names of one image each, found others ({shown(wrong)}); give more of the path, or the sample "
            "id; nothing is entered"
        )
    return {
        **{value: value for value in ids},
        **dict(matched.select("value", pl.col("sample_ids").list.first()).iter_rows()),
    }


def _pixels(store: Store) -> pl.DataFrame:
    """`sample_id` and `pixel_digest` of every location of the pool; nothing where there is none yet."""
    last = commits.latest(store)
    if last is None:
        return pl.DataFrame(schema={"sample_id": pl.String, "pixel_digest": pl.String})
    return live_pool.load_locations(
        store,
        snapshots.read_snapshot(store, last.listing),
        columns=["sample_id", "pixel_digest"],
        count=last.counts.samples + last.counts.duplicates,
    )


def _with_copies(pixels: pl.DataFrame, ids: Collection[str]) -> list[str]:
    """The samples and those of the pool that have the same pixels as one of them, sorted."""
    own = pixels.filter(pl.col("sample_id").is_in(list(ids)))
    copies = pixels.join(own, on="pixel_digest", how="semi")
    return sorted({*ids, *copies["sample_id"]})


def _labelled(table: pl.DataFrame, ids: Collection[str]) -> int:
    """How many of the samples have a label, whether they are skipped or not."""
    return len(set(ids).intersection(ledger.labels(table, with_skipped=True)["sample_id"]))
