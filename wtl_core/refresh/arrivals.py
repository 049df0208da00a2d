"""What has arrived in the sources since the last refresh, by listing and comparison. Reads no image, imports no torch.

Here: the comparison that a watch makes every half minute, and waiting until nothing more arrives. Not here: emitting
events (`tasks.arrivals`) or refreshing (`pipeline`).
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from wtl_core.refresh.sources import each_once, source_uri, split_by_owner
from wtl_core.shards import discover
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_LOOKS = 12
"""How often `wait_until_quiet` lists the sources at most: a source that never rests must not hold up the refresh."""


@dataclass(frozen=True)
class Arrivals:
    """How the sources differ from the last commit.

    Attributes:
        number: The last commit's number; 0 before the first.
        listing: SHA-256 hex over every object's uri, size, and etag or time: equal listings have equal digests.
        sources: The sources that were listed.
        objects: Objects there now.
        new: Objects that no refresh has seen.
        changed: Objects whose content may have changed.
        gone: Objects that were there at the last refresh.
        bytes: Size of the new and changed objects.
    """

    number: int
    listing: str
    sources: tuple[str, ...]
    objects: int
    new: int
    changed: int
    gone: int
    bytes: int

    @property
    def count(self) -> int:
        """New and changed objects."""
        return self.new + self.changed

    @property
    def is_pending(self) -> bool:
        """Whether a refresh would find something to do."""
        return self.count + self.gone > 0


def look(store: Store, sources: Sequence[str]) -> Arrivals:
    """List `sources` (all known ones if none is named) and compare them with the last commit. Reads only.

    Raises:
        ConfigError: a source is not there.
        TransientError: a store keeps failing.
    """
    last = commits.latest(store)
    listing, changes, listed = _compare(store, last, sources)
    return Arrivals(
        number=last.number if last else 0,
        listing=_digest(listing),
        sources=tuple(listed),
        objects=listing.height,
        new=changes.new.height,
        changed=changes.changed.height,
        gone=changes.gone.height,
        bytes=sum(changes.new["size"]) + sum(changes.changed["size"]),
    )


def touched(store: Store, sources: Sequence[str]) -> list[str]:
    """What `look` lists for `sources`: these, or all that the workspace knows if none is named."""
    return _touched(commits.latest(store), sources)


def arrived(store: Store, sources: Sequence[str]) -> pl.DataFrame:
    """The new and changed objects themselves, a listing's rows."""
    _, changes, _ = _compare(store, commits.latest(store), sources)
    return pl.concat([changes.new, changes.changed])


def wait_until_quiet(
    store: Store,
    sources: Sequence[str],
    *,
    quiet_seconds: float,
    sleep: Callable[[float], object] = time.sleep,
) -> Arrivals:
    """List until two listings `quiet_seconds` apart are equal, so that shards that arrive together are read together.

    Ends after twelve listings in any case, and at once where nothing is pending. `sleep` waits for some seconds.
    """
    seen = look(store, sources)
    for _ in range(_LOOKS - 1):
        if not seen.is_pending:
            break
        sleep(quiet_seconds)
        before, seen = seen, look(store, sources)
        if seen.listing == before.listing:
            break
    return seen


def _compare(
    store: Store, last: Commit | None, sources: Sequence[str]
) -> tuple[pl.DataFrame, discover.Changes, list[str]]:
    """The listing now, how it differs from the last commit's, and the sources that were listed."""
    known = snapshots.read_snapshot(store, last.listing) if last else None
    listed = _touched(last, sources)
    frames = [discover.list_source(source, exclude=[store.root]) for source in listed]
    listing = each_once(frames) if frames else pl.DataFrame(schema=discover.LISTING_SCHEMA)
    known = listing.clear().with_columns(part=pl.lit("", pl.String)) if known is None else known
    listing, mine, _ = split_by_owner(listing, known, listed)
    return listing, discover.diff(listing, mine), listed


def _touched(last: Commit | None, sources: Sequence[str]) -> list[str]:
    return sorted({source_uri(source) for source in sources} or set(last.sources if last else ()))


def _digest(listing: pl.DataFrame) -> str:
    digest = hashlib.sha256()
    for row in listing.select("uri", "size", "mtime_ns", "etag").iter_rows():
        digest.update(repr(row).encode())
    return digest.hexdigest()
