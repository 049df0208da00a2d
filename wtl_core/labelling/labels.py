"""Labels in and out of the ledger: what a file says becomes an entry, and an entry can be undone. Reads no image."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import label_conflicts, label_files, sample_names, table_files
from wtl_core.labelling.formats import tables
from wtl_core.labelling.formats.rows import Classes, LabelRows, Reading, shown
from wtl_core.recipe.selection import EMPTY
from wtl_core.shards.paths import uri_of
from wtl_core.workspace import ledger, sides
from wtl_core.workspace.storage import Store

_COLUMNS = ("sample_id", "uri", "classes", "created", "origin", "entry", "split")


@dataclass(frozen=True)
class Added:
    """What a file of labels came to.

    Attributes:
        named: Distinct names in the file.
        found: Samples that they name.
        added: Those of them that were not labelled before.
        corrected: Those that had other classes.
        completed: Those whose classes were not known, and are now.
        bare: Images that the file lists without a label; they are not labelled.
        left_out: Names of no sample or of several, which are kept aside.
        aside: The file that these are in; empty without any.
        classes: How many of the samples found have which class; `empty` are those that hold nothing of interest.
        unknown: How many of them have classes that are not known.
        skipped: How many of them are skipped: their labels count once that is taken back.
        entry: The ledger's entry; 0 if nothing new was said.
    """

    named: int
    found: int
    added: int
    corrected: int = 0
    completed: int = 0
    bare: int = 0
    left_out: int = 0
    aside: str = ""
    classes: dict[str, int] = field(default_factory=dict)
    unknown: int = 0
    skipped: int = 0
    entry: int = 0

    def to_json(self) -> dict[str, Any]:
        """What `wtl labels add --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Undone:
    """Labels that were taken back.

    Attributes:
        entry: The ledger's entry that no longer counts; None where samples were named.
        origin: The file that it came from; None where not known.
        samples: Samples whose label was taken back.
        labelled: Those of them that an earlier entry labels.
    """

    entry: int | None
    origin: str | None
    samples: int
    labelled: int

    def to_json(self) -> dict[str, Any]:
        """What `wtl labels undo --json` prints."""
        return asdict(self)


def add(
    store: Store,
    file: Path,
    reading: Reading | None = None,
    *,
    is_partial: bool = False,
    are_distinct: bool = False,
    aside: Path | None = None,
) -> Added:
    """Enter the samples that `file` names as labelled, with their classes. All of it is entered, or nothing.

    A name is a `sample_id`, the URI or path of a location, the end of one from a `/` on, the key of a member of an
    archive, or a file name. Names that several samples answer to are refused. A sample that has left the pool can be
    named by its id as long as its vector is there or the ledger names it. Other classes than those that the ledger
    holds correct them; where the file does not know a sample's classes, those that the ledger holds stay.

    Args:
        store: The workspace.
        file: What `label_files.read` reads.
        reading: How it is read where its content leaves a choice.
        is_partial: Names of no sample or of several are left out; else they refuse the file. Either way they are
            written, with their classes, to the file `aside`.
        aside: A file that a table can be written to; None for `FILE.unmatched.csv` beside the file. Where one with
            other content is there, a number is added to its name.
        are_distinct: Classes whose names differ in case, blanks, dashes or underscores alone are different ones.

    Raises:
        ConfigError: the file cannot be read, `aside` is this file, or the workspace has no refresh yet.
        InputError: it names no sample, some names are those of no sample or of several, an image has two classes that
            exclude each other, or a class two spellings; nothing is entered.

    Cost: 100,000 rows into a pool of 1,000,000 in under 10 s and 1 GB.
    """
    reading = reading or Reading()
    if aside is not None and aside.resolve() == file.resolve():
        told = "expected another file for what names no image than the one that is read, which would be lost"
        raise ConfigError(f"{aside}: {told}; name another")
    rows = label_files.read(file, reading)
    if aside is None:
        named = file.absolute() if file.name not in ("", "..") else file.resolve()  # `.` has no name of its own
        aside = named.with_name(f"{named.name}.unmatched.csv")
    return _add(
        store, rows, reading, is_partial=is_partial, are_distinct=are_distinct, aside=aside, origin=uri_of(str(file))
    )


def add_frame(
    store: Store,
    frame: pl.DataFrame,
    reading: Reading | None = None,
    *,
    is_partial: bool = False,
    are_distinct: bool = False,
    origin: str = "a frame",
) -> Added:
    """The same of a frame, as `add` reads a Parquet file; rows of no sample or of several are named, not kept aside.

    `origin` is what the ledger says of where the labels are from.

    Raises:
        ConfigError: no column names images, or the workspace has no refresh yet.
        InputError: as `add`.
    """
    reading = reading or Reading()
    try:
        rows = tables.of_frame(frame, reading)
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{origin}: expected labels, found {error}; nothing is entered") from error
    return _add(store, rows, reading, is_partial=is_partial, are_distinct=are_distinct, aside=None, origin=origin)


def _add(
    store: Store,
    rows: LabelRows,
    reading: Reading,
    *,
    is_partial: bool,
    are_distinct: bool,
    aside: Path | None,
    origin: str,
) -> Added:
    """Enter what was read, or nothing; `origin` names it in messages and in the ledger."""
    if not rows.names:
        bare = f" ({rows.bare:,} are listed without a label)" if rows.bare else ""
        raise InputError(f"{origin}: expected names of labelled samples, found none{bare}; nothing is entered")
    label_conflicts.check_renamed(origin, rows.classes, reading.renamed)
    sample_of, strays = _matched(store, rows)
    kept_in = "" if aside is None else _keep_aside(aside, rows, strays)
    if strays and not (is_partial and sample_of):
        raise InputError(_explain(origin, strays, kept_in))
    given = label_conflicts.by_sample(origin, rows, sample_of, reading)
    present = present_classes(store)
    label_conflicts.check_spellings(origin, given, present, are_distinct=are_distinct)
    added = _enter(store, given, present, origin=origin)
    return replace(added, named=len(set(rows.names)), bare=rows.bare, left_out=len(strays), aside=kept_in)


def present_classes(store: Store) -> dict[str, Classes]:
    """The classes of the labelled samples, skipped ones included."""
    before = ledger.labels(ledger.read(store), with_skipped=True)
    return {
        sample_id: None if names is None else tuple(names)
        for sample_id, names in before.select("sample_id", "classes").iter_rows()
    }


def _enter(store: Store, given: Mapping[str, Classes], present: Mapping[str, Classes], *, origin: str) -> Added:
    """Append what is new among the labels given, in one entry, and count it."""
    new = {key: names for key, names in given.items() if key not in present}
    changed = {
        key: names
        for key, names in given.items()
        if key in present and names is not None and sorted(names) != _sorted(present[key])
    }
    entry = 0
    if entered := {**new, **changed}:
        entry = ledger.append(store, "labelled", list(entered), classes=list(entered.values()), origin=origin)
    completed = sum(present[key] is None for key in changed)
    return Added(
        named=len(given),
        found=len(given),
        added=len(new),
        corrected=len(changed) - completed,
        completed=completed,
        classes=counts(given.values()),
        unknown=sum(names is None for names in given.values()),
        skipped=len(given.keys() & set(ledger.sample_ids(ledger.read(store), "skipped"))),
        entry=entry,
    )


def undo(store: Store, values: Sequence[str] = (), *, entry: int | None = None) -> Undone:
    """Take labels back, by an entry of its own: the images can be picked again.

    Args:
        store: The workspace.
        values: Names of samples as `add` takes them, which lose every label; none for a whole addition.
        entry: The entry of the ledger to take back; the last one that a present label comes from if None. Labels of
            earlier entries then count again.

    Raises:
        ConfigError: there is nothing to take back, no such addition, or a value that names no labelled sample.
    """
    table = ledger.read(store)
    present = ledger.labels(table, with_skipped=True)
    if values:
        labelled = set(present["sample_id"])
        matched = sample_names.match_in_pool(store, list(dict.fromkeys(values)))
        wrong = [value for value, ids in matched.iter_rows() if len(ids) != 1 or ids[0] not in labelled]
        if wrong:
            raise ConfigError(f"expected names of labelled images, found others ({shown(wrong)}); nothing is undone")
        ids = list(dict.fromkeys(ids[0] for ids in matched["sample_ids"]))
        ledger.append(store, "unlabelled", ids)
        return Undone(None, None, len(ids), 0)
    last = max(present["entry"], default=None) if entry is None else entry
    if last is None:
        raise ConfigError(f"{store.root}: expected labels to take back, found none; nothing is undone")
    rows = table.filter(pl.col("entry") == last, pl.col("kind") == "labelled")
    ids = rows.join(present, on=["sample_id", "entry"], how="semi")["sample_id"].to_list()
    if not ids:
        told = f"expected an addition with labels that count, found entry {last} without"
        raise ConfigError(f"{store.root}: {told}; `wtl labels list` shows which entries do; nothing is undone")
    ledger.append(store, "unlabelled", rows["sample_id"].to_list(), undoes=last)
    after = ledger.labels(ledger.read(store), with_skipped=True)
    return Undone(last, rows["origin"][0], len(ids), after.filter(pl.col("sample_id").is_in(ids)).height)


def listed(store: Store) -> pl.DataFrame:
    """The present labels: `sample_id`, `uri`, `classes`, `created`, `origin`, `entry`, as `ledger.labels` has them.

    `uri` is the sample's first location, null for one that has left the pool; `split` its side, null for none. Sorted
    by `sample_id`.
    """
    entries = ledger.read(store)
    table = sample_names.with_uris(store, ledger.labels(entries))
    return table.join(sides.read(store, entries), on="sample_id", how="left", maintain_order="left").select(_COLUMNS)


def as_text(table: pl.DataFrame) -> pl.DataFrame:
    """The table with its classes as texts that `add` reads back from CSV.

    One class is its name, several are a JSON list, `empty` stands for none, and null for classes that are not known.
    """
    texts = [None if names is None else _as_text(names) for names in table["classes"].to_list()]
    return table.with_columns(pl.Series("classes", texts, pl.String))


def _as_text(names: list[str]) -> str:
    return json.dumps(names, ensure_ascii=False) if len(names) > 1 else names[0] if names else EMPTY


def _matched(store: Store, rows: LabelRows) -> tuple[dict[str, str], dict[str, int]]:
    """The sample of each name, and how many samples answer to each other name: none or several."""
    names = list(dict.fromkeys(rows.names))
    matched = sample_names.match_in_pool(store, names, are_stems=rows.are_stems)
    alone = matched.filter(pl.col("sample_ids").list.len() == 1)
    others = matched.filter(pl.col("sample_ids").list.len() != 1)
    sample_of = dict(alone.select("value", pl.col("sample_ids").list.first()).iter_rows())
    counts = dict(others.select("value", pl.col("sample_ids").list.len()).iter_rows())
    if tasks := {name: rows.tasks[name] for name, count in counts.items() if not count and name in rows.tasks}:
        shows = _shown_by(store)
        sample_of |= {name: shows[task] for name, task in tasks.items() if task in shows}
    return sample_of, {name: count for name, count in counts.items() if name not in sample_of}


def _shown_by(store: Store) -> dict[str, str]:
    """The samples that tasks made by `wtl hand-out` show, by the ends of their addresses, without that of the tool."""
    placed = ledger.read(store).filter(pl.col("kind") == "placed")
    end = pl.col("origin").str.extract(r"(/projects/\d+/data\?task=\d+)$")
    shown = placed.select("sample_id", task=end).drop_nulls().unique()
    return dict(shown.unique("task", keep="none").select("task", "sample_id").iter_rows())


def _keep_aside(target: Path, rows: LabelRows, strays: dict[str, int]) -> str:
    """Write the rows that name no one sample, if there are any; the path, or why that failed.

    A file that is there with other content stays: it may be the last one, being mended. `NAME-2` stands beside it.
    """
    if not strays:
        return ""
    kept = [(name, classes) for name, classes in zip(rows.names, rows.classes, strict=True) if name in strays]
    table = pl.DataFrame(
        {
            "path": [name for name, _ in kept],
            "classes": [None if classes is None else list(classes) for _, classes in kept],
            "why": ["names several samples" if strays[name] else "names no sample" for name, _ in kept],
        },
        schema={"path": pl.String, "classes": pl.List(pl.String), "why": pl.String},
    )
    try:
        table_files.check_output(target)
        is_known = table["classes"].is_not_null().any()
        data = table_files.encoded(as_text(table) if is_known else table.drop("classes"), target.suffix.lower())
        others = (target.with_name(f"{target.stem}-{number}{target.suffix}") for number in itertools.count(2))
        places = itertools.chain([target], others)
        file = next(file for file in places if not file.exists() or file.read_bytes() == data)
        table_files.write_bytes(data, file)
    except ConfigError as error:
        return f"none, since {error}"
    except OSError as error:
        return f"none, since {target}: {error.strerror}"
    return str(file)


def _explain(where: str, strays: dict[str, int], aside: str) -> str:
    found = []
    for several, what in ((False, "no sample of the pool"), (True, "several")):
        names = [name for name, count in strays.items() if bool(count) == several]
        if names:
            found.append(f"{len(names):,} that {'names' if len(names) == 1 else 'name'} {what} ({shown(names)})")
    return (
        f"{where}: expected names of samples, found {' and '.join(found)}; use sample ids; nothing is entered "
        f"(--partial enters the others{f'; these are in {aside}' if aside else ''})"
    )


def _sorted(classes: Classes) -> list[str] | None:
    return None if classes is None else sorted(classes)


def counts(given: Iterable[Classes]) -> dict[str, int]:
    """How many images have which class, the most frequent first; `empty` are those that hold nothing of interest."""
    counts: dict[str, int] = {}
    for names in given:
        for name in () if names is None else names or (EMPTY,):
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
