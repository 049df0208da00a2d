"""Marking samples as labelled: writes the names in a file as an entry of the ledger. Reads no image."""

from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from wtl_core.errors import InputError
from wtl_core.labelling import label_files, sample_names
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@dataclass(frozen=True)
class Added:
    """What a file of labels came to.

    Attributes:
        named: Distinct names in the file.
        found: Samples that they name.
        added: Those of them that were not labelled before.
    """

    named: int
    found: int
    added: int

    def to_json(self) -> dict[str, int]:
        """What `wtl labels add --json` prints."""
        return asdict(self)


def add(store: Store, file: Path, column: str | None = None) -> Added:
    """Enter the samples that `file` names as labelled.

    A name is a `sample_id`, the URI or path of a location, the end of one from a `/` on, the key of a member of an
    archive, or a file name. Names that several samples answer to are refused. A sample that has left the pool can be
    named by its id as long as its vector is there.

    Args:
        store: The workspace.
        file: What `label_files.read_names` reads.
        column: The title of the column that names samples, where it is none of `label_files.COLUMNS`.

    Raises:
        ConfigError: the file cannot be read, or the workspace has no refresh yet.
        InputError: it names no sample, or some names are those of no sample or of several; nothing is entered.
    """
    names = list(dict.fromkeys(label_files.read_names(file, column)))
    if not names:
        raise InputError(f"{file}: expected names of samples, found none; nothing is entered")
    matched = sample_names.match(sample_names.known_names(store), names)
    count = pl.col("sample_ids").list.len()
    unknown, ambiguous = matched.filter(count == 0)["value"], matched.filter(count > 1)["value"]
    if len(unknown) or len(ambiguous):
        raise InputError(_explain(file, unknown.to_list(), ambiguous.to_list()))
    found = matched["sample_ids"].list.first().unique(maintain_order=True)
    labelled = ledger.sample_ids(ledger.read(store), "labelled")
    new = found.filter(~found.is_in(labelled)).to_list()
    if new:
        ledger.append(store, "labelled", new)
    return Added(named=len(names), found=len(found), added=len(new))


def _explain(file: Path, unknown: list[str], ambiguous: list[str]) -> str:
    found = []
    if unknown:
        name = "names" if len(unknown) == 1 else "name"
        found.append(f"{len(unknown):,} that {name} no sample of the pool ({label_files.shown(unknown)})")
    if ambiguous:
        name = "names" if len(ambiguous) == 1 else "name"
        found.append(f"{len(ambiguous):,} that {name} several ({label_files.shown(ambiguous)})")
    return f"{file}: expected names of samples, found {' and '.join(found)}; use sample ids; nothing is entered"
