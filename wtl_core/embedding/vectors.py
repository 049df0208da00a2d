"""Vectors in LanceDB: one table per encoder fingerprint below `vectors/`, keyed by `sample_id`.

Many processes stage Arrow files (`staging`); one writer commits them by anti-join, then append: three times faster than
`merge_insert`, whose concurrent or stale use duplicates rows without an error. Row order in a table means nothing.
Here too: similarity search and the guard against mixing encoders. Not here: how vectors are made (`embedder`), and when
a table is compacted or indexed (`compaction`).
"""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow as pa

from wtl_core.embedding import compaction, staging
from wtl_core.embedding.lance import lancedb
from wtl_core.errors import CorruptArtifactError, InputError
from wtl_core.workspace.storage import Store, explain_full_disk

_log = logging.getLogger(__name__)

FOLDER = "vectors"

_SCAN_ROWS = 8192
"""Rows of a batch that a scan hands over: some megabytes of vectors."""
_FILTERED_IDS = 1000
"""Up to so many vectors are fetched by a filter: of 100,000 x 128 one takes 14 ms, a thousand 45, a scan of all 50."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Neighbour:
    """One answer of `similar`: `similarity` is the cosine, 1 for the same direction."""

    sample_id: str
    similarity: float


def open_table(store: Store, fingerprint: str, dimensions: int | None = None) -> Any | None:
    """The table of an encoder. If there is none it is created where `dimensions` is given, else None is returned.

    Raises:
        CorruptArtifactError: the table holds vectors of another length, so not this encoder's.
    """
    assert _FINGERPRINT.fullmatch(fingerprint), fingerprint
    connection = _connect(store)
    name = table_name(fingerprint)
    is_known = name in _table_names(connection)
    table = _opened(connection, name) if is_known else None
    if table is not None:
        found = table.schema.field("vector").type.list_size
        if dimensions is not None and found != dimensions:
            raise CorruptArtifactError(
                f"{store.path(FOLDER)}/{name}: expected vectors of {dimensions} numbers, found {found}; "
                "the table is not this encoder's: delete it and run again"
            )
        return table
    if dimensions is None:
        return None
    # A run that was killed in `create_table` leaves a folder without a manifest, which is not a table yet.
    mode = "overwrite" if is_known else "create"
    return connection.create_table(name, schema=staging.schema(dimensions), mode=mode)


def table_name(fingerprint: str) -> str:
    """The table's name within `vectors/`: one table per fingerprint, so vectors of two encoders cannot meet."""
    return f"v_{fingerprint}"


def fingerprints(store: Store) -> set[str]:
    """Encoders that have a table here."""
    return {name.removeprefix("v_") for name in _table_names(_connect(store)) if name.startswith("v_")}


def existing_ids(store: Store, fingerprint: str) -> pl.Series:
    """Sample ids that have a committed vector of this encoder, distinct and in no order that means anything.

    Memory: 80 bytes an id; as texts of Python they would take twice as much.
    """
    table = open_table(store, fingerprint)
    return pl.Series("sample_id", [], pl.String) if table is None else _committed.ids(store, table)


def commit_staged(store: Store, fingerprint: str, keys: Iterable[str], dimensions: int) -> int:
    """Append the staged files' missing rows in one transaction, then delete the files; returns the rows added.

    For one writer at a time (the holder of the workspace's lease). Keys without a file are skipped. If it is killed
    before the append, the files are still there; if after it, the next call finds the rows and only deletes the files.
    So no row is lost or duplicated.

    Raises:
        CorruptArtifactError: a staged file holds another encoder's vectors.
    """
    table = open_table(store, fingerprint, dimensions)
    assert table is not None
    keys = sorted(set(keys))
    files = [file for key in keys if (file := staging.read(store, fingerprint, key, dimensions)) is not None]
    rows = 0
    if files:
        staged = pa.concat_tables(files).cast(staging.schema(dimensions))
        ids, known = pl.Series("sample_id", staged["sample_id"]), _committed.ids(store, table)
        there = known.filter(known.is_in(ids.implode()))  # few are looked for among many, which is the faster way round
        is_new = ids.is_first_distinct() & ~ids.is_in(there.implode())
        rows = int(is_new.sum())
    if rows:
        with explain_full_disk(store.path(FOLDER), "vectors"):
            table.add(staged.filter(is_new.to_arrow()))
        if compaction.is_due_at_work(table):
            compaction.compact(table, compaction.KEPT)
        _committed.note(store, table, pl.concat([known, ids.filter(is_new)]))
    staging.discard(store, fingerprint, keys)
    _log.info("vectors: %d rows added to %s", rows, table_name(fingerprint)[:18])
    return rows


class _Committed:
    """A cache of the ids in the table that this process last appended to: twenty commits scan it once.

    Valid only while the table's version and row count are those after our own append.
    """

    def __init__(self) -> None:
        self.state: tuple[str, str, int, int] | None = None
        self.known = pl.Series("sample_id", [], pl.String)

    def ids(self, store: Store, table: Any) -> pl.Series:
        """Every committed id."""
        return self.known if self.state == self._state_of(store, table) else _ids(table)

    def note(self, store: Store, table: Any, known: pl.Series) -> None:
        """`known` is what the table holds now."""
        self.state, self.known = self._state_of(store, table), known

    def _state_of(self, store: Store, table: Any) -> tuple[str, str, int, int]:
        return (store.root, table.name, int(table.version), int(table.count_rows()))


_committed = _Committed()


def load(store: Store, fingerprint: str, sample_ids: Sequence[str]) -> np.ndarray:
    """Vectors (N, D) float16 of `sample_ids`, in their order; other rows of the table are skipped.

    Of a few samples only their own vectors are read.

    Raises:
        InputError: a sample has no vector; embed first.
    """
    table = open_table(store, fingerprint)
    if table is None:
        raise _no_table(fingerprint)
    dimensions = int(table.schema.field("vector").type.list_size)
    positions = {sample_id: row for row, sample_id in enumerate(sample_ids)}
    out = np.empty((len(sample_ids), dimensions), np.float16)
    is_filled = np.zeros(len(sample_ids), bool)
    for batch in _scan(table, ["sample_id", "vector"], where=_is_any_of(sample_ids)):
        rows = np.array([positions.get(key, -1) for key in batch.column(0).to_pylist()], np.int64)
        values = batch.column(1).flatten().to_numpy(zero_copy_only=True).reshape(-1, dimensions)
        if (rows < 0).any():
            rows, values = rows[rows >= 0], values[rows >= 0]
        out[rows] = values
        is_filled[rows] = True
    if not is_filled.all():
        missing = [sample_ids[row] for row in np.flatnonzero(~is_filled)[:3]]
        raise InputError(
            f"encoder {fingerprint[:16]}...: expected {len(sample_ids)} vectors, {int((~is_filled).sum())} are missing "
            f"(first: {', '.join(missing)}); embed the pool first"
        )
    return out


def stream(store: Store, fingerprint: str, sample_ids: pl.Series) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The vectors of `sample_ids` some thousand at a time, in the table's order: rows (n,) int64 and (n, D) float16.

    `sample_ids` are distinct; other rows of the table are skipped. Memory: 16 bytes an id, beside the ids.

    Raises:
        InputError: a sample has no vector, which shows at the end; embed first.
    """
    table = open_table(store, fingerprint)
    if table is None:
        raise _no_table(fingerprint)
    dimensions = int(table.schema.field("vector").type.list_size)
    find, found = _finder(sample_ids), 0
    for batch in _scan(table, ["sample_id", "vector"]):
        rows = find(pl.Series(batch.column(0)))
        values = batch.column(1).flatten().to_numpy(zero_copy_only=True).reshape(-1, dimensions)
        is_ours = rows >= 0
        found += int(is_ours.sum())
        yield rows[is_ours], values[is_ours]  # a copy: the table's own memory cannot be written to, as torch wants it
    if found < len(sample_ids):
        raise InputError(
            f"encoder {fingerprint[:16]}...: expected {len(sample_ids)} vectors, {len(sample_ids) - found} are missing"
            "; embed the pool first"
        )


def _finder(sample_ids: pl.Series) -> Callable[[pl.Series], np.ndarray]:
    """Finds the rows of ids among `sample_ids`, -1 where they are not: by hashes, and then by the ids themselves.

    A dictionary of 10 million texts would take more memory than their vectors.
    """
    hashes = sample_ids.hash().to_numpy()
    order = np.argsort(hashes)
    ordered = hashes[order]

    def find(wanted: pl.Series) -> np.ndarray:
        keys = wanted.hash().to_numpy()
        place = np.searchsorted(ordered, keys)
        rows = np.full(len(wanted), -1)
        while (open_ := np.flatnonzero((rows < 0) & (place < len(ordered)))).size:  # again where hashes are equal
            open_ = open_[ordered[place[open_]] == keys[open_]]
            if not open_.size:
                break
            is_it = (sample_ids.gather(order[place[open_]]) == wanted.gather(open_)).to_numpy()
            rows[open_[is_it]] = order[place[open_[is_it]]]
            place[open_[~is_it]] += 1
        return rows

    return find


def count(store: Store, fingerprint: str) -> int:
    """How many vectors the encoder's table holds, also of samples that have left the pool; 0 without a table."""
    table = open_table(store, fingerprint)
    return 0 if table is None else int(table.count_rows())


def table_version(store: Store, fingerprint: str) -> int:
    """The table's version, 0 if there is none. For the record only: compaction raises it, so no digest includes it."""
    table = open_table(store, fingerprint)
    return 0 if table is None else int(table.version)


def compact(store: Store, fingerprint: str, *, keep: timedelta = compaction.KEPT, is_forced: bool = False) -> bool:
    """Merge small fragments and drop versions older than `keep` if there are many of them; whether it was done."""
    table = open_table(store, fingerprint)
    if table is None:
        return False
    if not is_forced and not compaction.is_due(table):
        return False
    with explain_full_disk(store.path(FOLDER), "vectors"):
        compaction.compact(table, keep)
    return True


def build_index(store: Store, fingerprint: str) -> bool:
    """Build or extend the table's search index where it is large enough; whether there is one now."""
    table = open_table(store, fingerprint)
    return table is not None and compaction.build_index(table)


def similar(store: Store, fingerprint: str, vector: np.ndarray, k: int) -> list[Neighbour]:
    """The `k` samples whose vectors are nearest to `vector` (D,), nearest first; ties by sample id.

    Raises:
        InputError: there are no vectors of this encoder, or `vector` is another encoder's (its length differs).
    """
    table = open_table(store, fingerprint)
    if table is None:
        raise _no_table(fingerprint)
    dimensions = int(table.schema.field("vector").type.list_size)
    if vector.shape != (dimensions,):
        raise InputError(
            f"expected one vector of {dimensions} numbers, found shape {vector.shape}; embed it with the "
            f"encoder {fingerprint[:16]}..."
        )
    query = table.search(vector.astype(np.float32), vector_column_name="vector").distance_type("cosine").limit(k)
    found = query.nprobes(32).select(["sample_id", "_distance"]).to_arrow()
    pairs = zip(found["sample_id"].to_pylist(), found["_distance"].to_pylist(), strict=True)
    return [Neighbour(key, 1.0 - gap) for gap, key in sorted((gap, key) for key, gap in pairs)]


def delete_ids(store: Store, fingerprint: str, ids: Sequence[str]) -> None:
    """Delete the vectors of samples that have left the pool for good; `compact` frees the space."""
    table = open_table(store, fingerprint)
    if table is None:
        return
    for start in range(0, len(ids), 1000):
        chunk = ids[start : start + 1000]
        assert all(_FINGERPRINT.fullmatch(sample_id) for sample_id in chunk)
        table.delete(_one_of(chunk))


def drop(store: Store, fingerprint: str) -> None:
    """Remove a retired encoder's table and whatever is staged for it."""
    connection = _connect(store)
    if table_name(fingerprint) in _table_names(connection):
        connection.drop_table(table_name(fingerprint))
    staging.discard(store, fingerprint, staging.staged_keys(store, fingerprint))


def _no_table(fingerprint: str) -> InputError:
    return InputError(f"encoder {fingerprint[:16]}...: expected a table of vectors, found none; embed the pool first")


def _connect(store: Store) -> Any:
    # Without this interval a handle stays at its snapshot, and the anti-join would miss rows that another run added.
    return lancedb.connect(
        store.path(FOLDER), storage_options=store.lance_options() or None, read_consistency_interval=timedelta(0)
    )


def _opened(connection: Any, name: str) -> Any | None:
    """The table, or None for a folder in which creating it was not completed."""
    try:
        return connection.open_table(name)
    except ValueError as error:
        if "was not found" in str(error):
            return None
        raise


def _table_names(connection: Any) -> set[str]:
    names: set[str] = set()
    page = None
    while True:
        answer = connection.list_tables(page_token=page)
        names.update(answer.tables)
        page = answer.page_token
        if not page:
            return names


def _scan(table: Any, columns: list[str], *, where: str | None = None) -> Iterable[pa.RecordBatch]:
    query = table.search().select(columns)
    query = query if where is None else query.where(where)
    return cast(Iterable[pa.RecordBatch], query.to_batches(batch_size=_SCAN_ROWS))


def _is_any_of(sample_ids: Sequence[str]) -> str | None:
    """A condition for rows of these samples; None where there are too many, or ids that do not look like ours."""
    if not 0 < len(sample_ids) <= _FILTERED_IDS or not all(map(_FINGERPRINT.fullmatch, sample_ids)):
        return None
    return _one_of(sample_ids)


def _one_of(sample_ids: Sequence[str]) -> str:
    return "sample_id IN ({})".format(", ".join(f"'{sample_id}'" for sample_id in sample_ids))


def _ids(table: Any) -> pl.Series:
    batches = [pl.Series("sample_id", batch.column(0)) for batch in _scan(table, ["sample_id"])]
    return pl.concat(batches) if batches else pl.Series("sample_id", [], pl.String)
