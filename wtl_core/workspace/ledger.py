"""The ledger: append-only record of which samples were labelled or exported, one Parquet file an entry.

Labelled samples shape the picks and leave the ranking; exported ones keep their rank.
"""

from datetime import UTC, datetime
from typing import Literal

import polars as pl

from wtl_core.errors import TransientError
from wtl_core.workspace import storage
from wtl_core.workspace.storage import Store

_FOLDER = "ledger"
Kind = Literal["labelled", "exported"]
_SCHEMA = {"sample_id": pl.String, "kind": pl.String, "created": pl.String}


def length(store: Store) -> int:
    """Entries so far."""
    return len(_entries(store))


def read(store: Store, entries: int | None = None) -> pl.DataFrame:
    """Rows `sample_id, kind, created` of the first `entries` entries (all if None), oldest first."""
    names = _entries(store)[:entries]
    frames = [store.read_frame(f"{_FOLDER}/{name}", columns=list(_SCHEMA)) for name in names]
    return pl.concat([pl.DataFrame(schema=_SCHEMA), *frames])


def sample_ids(ledger: pl.DataFrame, kind: Kind) -> list[str]:
    """The samples that the ledger names as labelled or exported, each once, in the order of the entries."""
    return ledger.filter(pl.col("kind") == kind)["sample_id"].unique(maintain_order=True).to_list()


def append(store: Store, kind: Kind, ids: list[str]) -> int:
    """Add one entry, in the order given; returns the new length. Samples of earlier entries may be in it again.

    Raises:
        TransientError: another process appended at the same moment.
    """
    number = length(store) + 1
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = pl.DataFrame({"sample_id": list(dict.fromkeys(ids))}, schema={"sample_id": pl.String})
    entry = rows.with_columns(kind=pl.lit(kind), created=pl.lit(now))
    if not store.create(f"{_FOLDER}/{number:06d}.parquet", storage.to_parquet(entry)):
        raise TransientError(f"{store.root}: another process wrote the ledger's entry {number} meanwhile; run again")
    return number


def _entries(store: Store) -> list[str]:
    return [name for name in store.names(_FOLDER) if name.endswith(".parquet")]
