"""The ledger: append-only record of which samples were labelled, exported, skipped or kept; one file an entry.

Labelled samples shape the picks and leave the ranking; exported ones, and those placed in a labelling tool, keep their
rank; skipped ones leave the ranking; kept ones are picks that a person has looked at and wants labelled, which changes
no ranking. Nothing is ever changed: a later entry corrects an earlier one, or undoes it.
"""

from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import polars as pl

from wtl_core.errors import TransientError
from wtl_core.workspace import storage
from wtl_core.workspace.storage import Store

_FOLDER = "ledger"
Kind = Literal[
    "labelled", "unlabelled", "exported", "placed", "skipped", "unskipped", "split", "unsplit", "kept", "unkept"
]
Reason = Literal["unusable", "redundant"]
"""Why a sample is skipped: it covers nothing, or it counts as covered."""
Classes = Sequence[str] | None
"""Of one sample: names of classes, none for an image that holds nothing of interest, None where they are not known."""
_STORED = {
    "sample_id": pl.String(),
    "kind": pl.String(),
    "created": pl.String(),
    "classes": pl.List(pl.String),
    "origin": pl.String(),
    "undoes": pl.Int64(),
    "batch": pl.String(),
    "is_control": pl.Boolean(),
    "request": pl.String(),
    "due": pl.String(),
    "reason": pl.String(),
    "changed": pl.String(),
}
SCHEMA = {**_STORED, "entry": pl.Int64()}
LABELS_SCHEMA = {name: SCHEMA[name] for name in ("sample_id", "classes", "created", "origin", "entry")}
SKIPS_SCHEMA = {name: SCHEMA[name] for name in ("sample_id", "reason", "created", "entry")}
DECIDED_SCHEMA = {**SKIPS_SCHEMA, "request": SCHEMA["request"]}


def length(store: Store) -> int:
    """Entries so far."""
    return len(_entries(store))


def read(store: Store, entries: int | None = None) -> pl.DataFrame:
    """Rows of the first `entries` entries (all if None), oldest first, in columns of `SCHEMA`.

    `classes` is null where they are not known, and an empty list for an image that holds nothing of interest. `origin`
    is the file that a label came from, or the address of its task in a labelling tool, null where not known; `changed`
    is when the annotation was last changed there, as the tool says. Rows of kind `placed` name the task (`origin`) that
    shows a sample. Rows of kind `unlabelled` take labels back: with `undoes` null every label that the sample has, else
    what this entry says of it. Rows of kind `exported` name their `batch`, whether they were drawn at random
    (`is_control`), what was asked for (`request`), and when they are `due`. Rows of kind `skipped` say the `reason`;
    rows of kind `unskipped` take that back, as `unlabelled` does with labels, and `unkept` does with `kept`; where the
    app made these decisions, `request` says on what. Rows of kind `split` and `unsplit` name no sample (see `sides`).
    `entry` counts from 1. Columns that an entry of an earlier version lacks are null.
    """
    names = _entries(store)[:entries]
    frames = [_entry(store.read_frame(f"{_FOLDER}/{name}"), number) for number, name in enumerate(names, 1)]
    return pl.concat([pl.DataFrame(schema=SCHEMA), *frames])


def asks_for_a_ranking(store: Store, entries: int) -> bool:
    """Whether an entry behind the first `entries` may change the ranking, as all do that neither keep nor unkeep."""
    later = (store.read_frame(f"{_FOLDER}/{name}") for name in _entries(store)[entries:])
    return any(not rows["kind"].is_in(["kept", "unkept"]).all() for rows in later)


def labels(ledger: pl.DataFrame, *, with_skipped: bool = False) -> pl.DataFrame:
    """What the rows of `read` come to: one row for each sample that is labelled, in columns of `LABELS_SCHEMA`.

    A sample's last label that was not undone counts. While a sample is skipped its label does not, whichever came
    first; `with_skipped` gives it too. `classes` is a sorted list without repetition, empty for an image that holds
    nothing of interest, null where the classes are not known; `created`, `origin` and `entry` are those of the label
    that counts. Sorted by `sample_id`.
    """
    last = _standing(ledger, "labelled", "unlabelled").select(list(LABELS_SCHEMA))
    return last if with_skipped else last.join(skips(ledger), on="sample_id", how="anti", maintain_order="left")


def skips(ledger: pl.DataFrame) -> pl.DataFrame:
    """One row for each sample that is skipped, in columns of `SKIPS_SCHEMA`, sorted by `sample_id`.

    The last skip that was not undone counts: `reason`, `created` and `entry` are its own.
    """
    return _standing(ledger, "skipped", "unskipped").select(list(SKIPS_SCHEMA))


def decided(ledger: pl.DataFrame) -> pl.DataFrame:
    """One row for each sample that is skipped or kept, in columns of `DECIDED_SCHEMA`, sorted by `sample_id`.

    `reason` is `kept`, or why it is skipped; a sample that is skipped is not kept. `created`, `entry` and `request`,
    which says what the decision was made on, are those of the row that counts.
    """
    skipped = _standing(ledger, "skipped", "unskipped")
    kept = _standing(ledger, "kept", "unkept").join(skipped, on="sample_id", how="anti")
    told = pl.concat([skipped, kept.with_columns(reason=pl.lit("kept"))]).select(list(DECIDED_SCHEMA))
    return told.sort("sample_id")


def kept_ids(ledger: pl.DataFrame) -> list[str]:
    """The samples that a person keeps among the picks, sorted; a sample that is skipped is not kept."""
    return decided(ledger).filter(reason="kept")["sample_id"].to_list()


def sample_ids(ledger: pl.DataFrame, kind: Literal["labelled", "exported", "skipped"] | Reason) -> list[str]:
    """The samples that are labelled or skipped (for one reason), sorted, or exported, in the order of the entries.

    Each is given once. Exported ones may be labelled or skipped meanwhile.
    """
    if kind == "labelled":
        return labels(ledger)["sample_id"].to_list()
    if kind == "exported":
        return ledger.filter(pl.col("kind") == kind)["sample_id"].unique(maintain_order=True).to_list()
    found = skips(ledger)
    return (found if kind == "skipped" else found.filter(pl.col("reason") == kind))["sample_id"].to_list()


def settled_ids(ledger: pl.DataFrame) -> list[str]:
    """The samples that are labelled or skipped, and so are not picked, sorted."""
    return sorted({*labels(ledger)["sample_id"], *skips(ledger)["sample_id"]})


def skipped_in(samples: pl.DataFrame, ledger: pl.DataFrame) -> list[str]:
    """Ids of the samples that are skipped, or have the pixels of one of these that is skipped and are not labelled.

    So an image that came back in other bytes since it was skipped stays away too.

    Args:
        samples: Columns `sample_id` and `pixel_digest`.
        ledger: What `read` returns.
    """
    is_named = pl.col("sample_id").is_in(sample_ids(ledger, "skipped"))
    is_labelled = pl.col("sample_id").is_in(labels(ledger)["sample_id"].implode())
    pixels = samples.filter(is_named)["pixel_digest"]
    is_copy = pl.col("pixel_digest").is_in(pixels.implode()) & ~is_labelled
    return samples.filter(is_named | is_copy)["sample_id"].to_list()


def _standing(ledger: pl.DataFrame, given: Kind, taken_back: Kind) -> pl.DataFrame:
    """Each sample's last row of kind `given` that no row of kind `taken_back` undoes, sorted by `sample_id`."""
    is_of_entry = pl.col("undoes").is_not_null()
    undone = ledger.filter(pl.col("kind") == taken_back, is_of_entry).select("sample_id", entry="undoes")
    standing = ledger.filter(pl.col("kind").is_in([given, taken_back]), ~is_of_entry)
    standing = standing.join(undone, on=["sample_id", "entry"], how="anti", maintain_order="left")
    last = standing.unique("sample_id", keep="last", maintain_order=True)
    return last.filter(pl.col("kind") == given).sort("sample_id")


def append(
    store: Store,
    kind: Kind,
    ids: Sequence[str],
    *,
    classes: Sequence[Classes] | None = None,
    origin: str | None = None,
    undoes: int | None = None,
    reason: Reason | None = None,
    request: str | None = None,
) -> int:
    """Add one entry, in the order given; returns the new length. Samples of earlier entries may be in it again.

    Args:
        store: The workspace.
        kind: What becomes of the samples.
        ids: The samples; the first of equal ones counts.
        classes: Of each of `ids`, for labels; None where all are unknown.
        origin: The file or tool that the labels came from.
        undoes: The entry that no longer counts for `unlabelled`, `unskipped` or `unkept` samples; None takes back all
            that they have of this kind.
        reason: Why samples are skipped.
        request: What they are skipped or kept on, as a person would say it.

    Raises:
        TransientError: another process appended at the same moment.
    """
    named = [None if names is None else sorted(set(names)) for names in classes or [None] * len(ids)]
    columns: dict[str, list[Any]] = {"sample_id": list(ids), "classes": named}
    told = {"origin": origin, "undoes": undoes, "reason": reason, "request": request}
    return _create(store, kind, columns, told)


def append_batch(
    store: Store, batch: str, ids: Sequence[str], *, controls: Container[str], request: str, due: str | None = None
) -> int:
    """Add the entry of samples that are handed out for labelling; returns the new length.

    Args:
        store: The workspace.
        batch: Its name.
        ids: The samples, each once, in the order in which they are handed out.
        controls: Those of them that were drawn at random.
        request: What was asked for.
        due: The day by whose end they are to be labelled, ISO 8601 in UTC; None for no such day.

    Raises:
        TransientError: another process appended at the same moment.
    """
    is_control = [sample_id in controls for sample_id in ids]
    columns: dict[str, list[Any]] = {"sample_id": list(ids), "is_control": is_control}
    return _create(store, "exported", columns, {"batch": batch, "request": request, "due": due})


def append_from_tool(
    store: Store,
    kind: Literal["labelled", "placed"],
    ids: Sequence[str],
    *,
    origins: Sequence[str],
    classes: Sequence[Classes] | None = None,
    changed: Sequence[str] | None = None,
) -> int:
    """Add the entry of samples that were placed in a labelling tool, or labelled there; returns the new length.

    Args:
        store: The workspace.
        kind: What became of the samples.
        ids: The samples, each once.
        origins: The addresses of their tasks.
        classes: Of each of `ids`, for labels.
        changed: When each label was last changed in the tool, as it says.

    Raises:
        TransientError: another process appended at the same moment.
    """
    none = [None] * len(ids)
    named = [None if names is None else sorted(set(names)) for names in classes or none]
    columns: dict[str, list[Any]] = {"sample_id": list(ids), "classes": named}
    columns |= {"origin": list(origins), "changed": list(changed or none)}
    return _create(store, kind, columns, {})


def append_split(store: Store, file: str, request: str) -> int:
    """Add the entry that a file gives samples their sides; an empty `file` takes back all such entries.

    Returns the new length.

    Raises:
        TransientError: another process appended at the same moment.
    """
    constants = {"origin": file or None, "request": request}
    return _create(store, "split" if file else "unsplit", {"sample_id": [None]}, constants)


def _create(store: Store, kind: Kind, columns: dict[str, list[Any]], constants: dict[str, Any]) -> int:
    number = length(store) + 1
    rows = pl.DataFrame(columns, schema={name: _STORED[name] for name in columns})
    same = {"kind": kind, "created": datetime.now(UTC).isoformat(timespec="seconds"), **constants}
    others = [pl.lit(same.get(name), _STORED[name]).alias(name) for name in _STORED if name not in columns]
    entry = rows.unique("sample_id", keep="first", maintain_order=True).with_columns(others).select(list(_STORED))
    if not store.create(f"{_FOLDER}/{number:06d}.parquet", storage.to_parquet(entry)):
        raise TransientError(f"{store.root}: another process wrote the ledger's entry {number} meanwhile; run again")
    return number


def _entries(store: Store) -> list[str]:
    return [name for name in store.names(_FOLDER) if name.endswith(".parquet")]


def _entry(rows: pl.DataFrame, number: int) -> pl.DataFrame:
    """The rows of one file in columns of `SCHEMA`; columns of a newer version are passed by."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in _STORED.items() if name not in rows.columns]
    return rows.with_columns(*missing, entry=pl.lit(number, pl.Int64)).select(list(SCHEMA))
