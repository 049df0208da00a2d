"""Keeping a Lance table small and quick to search: its fragments, its older versions, its index.

Handles of open tables only; which table belongs to which encoder is `vectors`'s.
"""

from datetime import datetime, timedelta
from typing import Any

from wtl_core.embedding.lance import IvfFlat

KEPT = timedelta(hours=1)
"""Older versions of a table are dropped when it is compacted: no reader takes longer, and a new one sees the newest."""

INDEX_ROWS = 250_000
"""Tables below this answer "images like this one" by scanning: 0.2 s at 100,000 rows, and no 10 s to build an index."""

_MAX_FRAGMENTS = 20
"""More fragments than this are merged when a stage ends: each is a file to open for every scan."""
MAX_AT_WORK = 100
"""Fragments, and versions kept, of a table that is being filled. Merging writes up to a million rows again, so it is
done once in a hundred commits; a reader is safe until as many commits have come after it."""
UNINDEXED_ROWS = 50_000
"""A search scans the rows that the index does not have: up to so many it takes 0.1 s more, and extending the index of a
million rows would take seconds of every refresh."""
_PARTITION_ROWS, _MAX_PARTITIONS = 400, 1024
"""Rows in a partition of the index, and the most partitions: a search reads some 32 of them."""


def fragments(table: Any) -> int:
    """How many fragments, so data files, the table has."""
    return int(table.stats()["fragment_stats"]["num_fragments"])


def is_due(table: Any) -> bool:
    """Whether the table has so many fragments or versions that compacting it pays at the end of a stage."""
    return fragments(table) > _MAX_FRAGMENTS or len(table.list_versions()) > MAX_AT_WORK


def is_due_at_work(table: Any) -> bool:
    """Whether compacting pays while the table is still being filled."""
    return fragments(table) > MAX_AT_WORK


def compact(table: Any, keep: timedelta) -> None:
    """Merge fragments; drop the versions older than `keep`, and all but the newest hundred."""
    table.optimize(cleanup_older_than=keep)
    made = sorted(version["timestamp"] for version in table.list_versions())  # local time, without a zone
    if len(made) > MAX_AT_WORK + 1:
        # after the merge, and by one version more: an age is counted from when Lance gets to it, some moments later
        table.optimize(cleanup_older_than=max(datetime.now() - made[-MAX_AT_WORK - 1], timedelta(milliseconds=1)))


def build_index(table: Any) -> bool:
    """Build or extend the search index where the table is, or has grown, large enough; whether there is one now.

    IVF-flat: exact distances within the probed partitions, and built in seconds (PQ and HNSW took 8 to 14 times as long
    at 100,000 x 512).
    """
    if table.count_rows() < INDEX_ROWS:
        return False
    for index in table.list_indices():
        if "vector" in index.columns:
            if table.index_stats(index.name).num_unindexed_rows > UNINDEXED_ROWS:
                table.optimize(cleanup_older_than=KEPT)
            return True
    partitions = min(_MAX_PARTITIONS, max(1, table.count_rows() // _PARTITION_ROWS))
    table.create_index("vector", config=IvfFlat(distance_type="cosine", num_partitions=partitions))
    return True
