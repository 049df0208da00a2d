"""Vectors in LanceDB: one table per encoder fingerprint below `vectors/`, keyed by `sample_id`.

Many processes stage Arrow files; one writer commits them by anti-join, then append: three times faster than
`merge_insert`, whose concurrent or stale use duplicates rows without an error. Row order in a table means nothing.
Here too: similarity search and the guard against mixing encoders. Not here: how vectors are made (`embedding`).
"""

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat

from wtl_core.errors import CorruptArtifactError, InputError
from wtl_core.workspace.storage import Store, explain_full_disk

_log = logging.getLogger(__name__)

FOLDER, STAGING = "vectors", "staging"
INDEX_ROWS = 250_000
"""Tables below this answer "images like this one" by scanning: 0.2 s at 100,000 rows, and no 10 s to build an index."""

KEPT = timedelta(hours=1)
"""Older versions of a table are dropped when it is compacted: no reader takes longer, and a new one sees the newest."""

_MAX_FRAGMENTS, _SCAN_ROWS, _PARTITION_ROWS = 20, 8192, 400
_MAX_AT_WORK = 100
"""Fragments, and versions kept, of a table that is being filled. Merging writes up to a million rows again, so each
hundred commits have one; a reader is safe until it is overtaken by as many."""
_FILTERED_IDS = 1000
"""Up to so many vectors are fetched by a filter: of 100,000 x 128 one takes 14 ms, a thousand 45, a scan of all 50."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Neighbour:
    """One answer of `similar`: `similarity` is the cosine, 1 for the same direction."""

    sample_id: str
    similarity: float


def schema(dimensions: int) -> pa.Schema:
    """`sample_id` (never null, declared as the key: a second belt against duplicates) and `vector` (float16)."""
    key = {"lance-schema:unenforced-primary-key": "true"}
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False, metadata=key),
            pa.field("vector", pa.list_(pa.float16(), dimensions), nullable=False),
        ]
    )


def open_table(store: Store, fingerprint: str, dimensions: int | None = None) -> Any | None:
    """The table of an encoder; made if `dimensions` is given and there is none, else None.

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
    # A run killed within `create_table` leaves a folder without a manifest, which is no table yet.
    mode = "overwrite" if is_known else "create"
    return connection.create_table(name, schema=schema(dimensions), mode=mode)


def table_name(fingerprint: str) -> str:
    """The table's name within `vectors/`: one table per fingerprint, so vectors of two encoders cannot meet."""
    return f"v_{fingerprint}"


def fingerprints(store: Store) -> set[str]:
    """Encoders that have a table here."""
    return {name.removeprefix("v_") for name in _table_names(_connect(store)) if name.startswith("v_")}


def existing_ids(store: Store, fingerprint: str) -> set[str]:
    """Sample ids that have a committed vector of this encoder."""
    table = open_table(store, fingerprint)
    return set() if table is None else _committed.copy(store, table)


def stage(store: Store, fingerprint: str, key: str, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Write vectors for the next commit, to a file that appears complete or not at all.

    Args:
        store: The workspace.
        fingerprint: The encoder that made them; a commit refuses files of another one.
        key: Names the file; staging it again replaces it.
        ids: Sample ids, unique.
        vectors: (n, D) float16 of unit length.

    Raises:
        InputError: a vector is not finite or not of unit length; its sample is named.
    """
    check_unit_length(ids, vectors)
    table = _as_table(ids, vectors).replace_schema_metadata({"fingerprint": fingerprint})
    with store.writer(_staged(fingerprint, key)) as handle, pa.ipc.new_file(handle, table.schema) as writer:
        writer.write_table(table)


def staged_keys(store: Store, fingerprint: str) -> list[str]:
    """Files that are staged and not committed, sorted; what a killed run left is among them."""
    names = store.names(f"{STAGING}/{fingerprint}")
    return sorted(name.removesuffix(".arrow") for name in names if name.endswith(".arrow") and name[0] != ".")


def commit_staged(store: Store, fingerprint: str, keys: Iterable[str], dimensions: int) -> int:
    """Append the staged files' missing rows in one transaction, then delete the files; rows added.

    For one writer at a time (the holder of the workspace's lease). Killed before the append: the files are there still.
    Killed after it: the next call finds the rows and only deletes. So no row is lost and none is there twice.

    Raises:
        CorruptArtifactError: a staged file holds another encoder's vectors.
    """
    table = open_table(store, fingerprint, dimensions)
    assert table is not None
    keys = sorted(set(keys))
    known = _committed.ids(store, table)
    fresh = []
    for key in keys:
        staged = _read_staged(store, fingerprint, key)
        if staged is None:
            continue
        if staged.schema.field("vector").type.list_size != dimensions:
            raise _foreign(store, fingerprint, key)
        is_new = []
        for sample_id in staged["sample_id"].to_pylist():
            is_new.append(sample_id not in known)
            known.add(sample_id)
        fresh.append(staged.filter(pa.array(is_new, pa.bool_())))
    rows = sum(int(added.num_rows) for added in fresh)
    if rows:
        with explain_full_disk(store.path(FOLDER), "vectors"):
            table.add(pa.concat_tables(fresh).cast(schema(dimensions)))
        if _fragments(table) > _MAX_AT_WORK:
            _optimize(table, KEPT)
        _committed.note(store, table, known)
    for key in keys:
        store.delete(_staged(fingerprint, key))
    _log.info("vectors: %d rows added to %s", rows, table_name(fingerprint)[:18])
    return rows


class _Committed:
    """The ids of the table that this process committed to last, so that twenty commits do not scan it twenty times.

    Believed only while version and row count are what they were after our own append.
    """

    def __init__(self) -> None:
        self.of: tuple[str, str, int, int] | None = None
        self.known: set[str] = set()

    def ids(self, store: Store, table: Any) -> set[str]:
        """Every committed id. The caller may add to the set, and calls `note` when the additions are committed."""
        of, self.of = self.of, None  # an append that fails half-way leaves nothing to believe
        return self.known if of == self._now(store, table) else _ids(table)

    def copy(self, store: Store, table: Any) -> set[str]:
        """Every committed id, in a set of its own."""
        return set(self.known) if self.of == self._now(store, table) else _ids(table)

    def note(self, store: Store, table: Any, known: set[str]) -> None:
        """`known` is what the table holds now."""
        self.of, self.known = self._now(store, table), known

    def _now(self, store: Store, table: Any) -> tuple[str, str, int, int]:
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


def count(store: Store, fingerprint: str) -> int:
    """How many vectors the encoder's table holds, also of samples that have left the pool; 0 without a table."""
    table = open_table(store, fingerprint)
    return 0 if table is None else int(table.count_rows())


def table_version(store: Store, fingerprint: str) -> int:
    """The table's version, 0 if there is none. For the record only: compaction raises it, so no digest holds it."""
    table = open_table(store, fingerprint)
    return 0 if table is None else int(table.version)


def compact(store: Store, fingerprint: str, *, keep: timedelta = KEPT, is_forced: bool = False) -> bool:
    """Merge small fragments and drop versions older than `keep`, when there are many; whether it was done."""
    table = open_table(store, fingerprint)
    if table is None:
        return False
    if not is_forced and _fragments(table) <= _MAX_FRAGMENTS and len(table.list_versions()) <= _MAX_AT_WORK:
        return False
    with explain_full_disk(store.path(FOLDER), "vectors"):
        _optimize(table, keep)
    return True


def _fragments(table: Any) -> int:
    return int(table.stats()["fragment_stats"]["num_fragments"])


def _optimize(table: Any, keep: timedelta) -> None:
    """Merge fragments; of the versions drop those older than `keep`, and all but the newest `_MAX_AT_WORK`."""
    table.optimize(cleanup_older_than=keep)
    made = sorted(version["timestamp"] for version in table.list_versions())  # local time, without a zone
    if len(made) > _MAX_AT_WORK + 1:
        # after the merge, and by one version more: an age is counted from when Lance gets to it, some moments later
        table.optimize(cleanup_older_than=max(datetime.now() - made[-_MAX_AT_WORK - 1], timedelta(milliseconds=1)))


def build_index(store: Store, fingerprint: str) -> bool:
    """Build or extend the search index where the table is large enough; whether there is one now.

    IVF-flat: exact distances within the probed partitions, and built in seconds (PQ and HNSW took 8 to 14 times as long
    at 100,000 x 512).
    """
    table = open_table(store, fingerprint)
    if table is None or table.count_rows() < INDEX_ROWS:
        return False
    if any("vector" in index.columns for index in table.list_indices()):
        table.optimize(cleanup_older_than=KEPT)
        return True
    partitions = max(1, table.count_rows() // _PARTITION_ROWS)
    table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=min(1024, partitions)))
    return True


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
    """Drop vectors (tombstones of samples that left for good); `compact` frees the space."""
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
    for key in staged_keys(store, fingerprint):
        store.delete(_staged(fingerprint, key))


def check_unit_length(ids: Sequence[str], vectors: np.ndarray) -> None:
    """Refuse vectors that are not finite or not of unit length (float16 rounds); the first bad sample is named."""
    import torch  # here: only who embeds gets here, and numpy takes ten times as long to widen float16

    norms = torch.from_numpy(vectors).float().norm(dim=1).numpy()
    bad = np.flatnonzero(~(np.abs(norms - 1) < 0.01))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"sample {ids[row]}: expected a vector of length 1, found length {norms[row]}; {len(bad)} of {len(ids)} "
            "are so: the encoder does not suit these images, name another"
        )


def _no_table(fingerprint: str) -> InputError:
    return InputError(f"encoder {fingerprint[:16]}...: expected a table of vectors, found none; embed the pool first")


def _connect(store: Store) -> Any:
    # Without the interval a handle keeps its snapshot, and the anti-join would miss rows that another run added.
    return lancedb.connect(
        store.path(FOLDER), storage_options=store.lance_options() or None, read_consistency_interval=timedelta(0)
    )


def _opened(connection: Any, name: str) -> Any | None:
    """The table, or None for a folder in which none was completed."""
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


def _as_table(ids: Sequence[str], vectors: np.ndarray) -> pa.Table:
    values = pa.array(np.ascontiguousarray(vectors, np.float16).reshape(-1), pa.float16())
    columns = [pa.array(ids, pa.string()), pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])]
    return pa.table(columns, schema=schema(vectors.shape[1]))


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


def _ids(table: Any) -> set[str]:
    return {key for batch in _scan(table, ["sample_id"]) for key in batch.column(0).to_pylist()}


def _staged(fingerprint: str, key: str) -> str:
    assert re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_\-]*", key), key
    return f"{STAGING}/{fingerprint}/{key}.arrow"


def _read_staged(store: Store, fingerprint: str, key: str) -> pa.Table | None:
    try:
        table = pa.ipc.open_file(pa.BufferReader(store.read_bytes(_staged(fingerprint, key)))).read_all()
    except FileNotFoundError:
        return None
    if (table.schema.metadata or {}).get(b"fingerprint", b"").decode() != fingerprint:
        raise _foreign(store, fingerprint, key)
    return table


def _foreign(store: Store, fingerprint: str, key: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        f"{store.path(_staged(fingerprint, key))}: expected vectors of encoder {fingerprint[:16]}..., found another's; "
        "delete the file and run again"
    )
