"""What a source holds now, and what is new, changed or gone against what was read before. Reads no image."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import polars as pl

from wtl_core.errors import ConfigError
from wtl_core.shards import bucket, folder, paths, uri_list
from wtl_core.shards.objects import MISSING_SIZE, REFUSED_ETAG, RETRY_MARK, SourceObject
from wtl_core.workspace.storage import filesystem, open_store

LISTING_SCHEMA = pl.Schema(
    {
        "source": pl.String,
        "uri": pl.String,
        "kind": pl.String,
        "size": pl.Int64,
        "mtime_ns": pl.Int64,
        "etag": pl.String,
    }
)
SNAPSHOT_SCHEMA = pl.Schema([*LISTING_SCHEMA.items(), ("part", pl.String)])
IS_REACHABLE = (pl.col("size") != MISSING_SIZE) & (pl.col("etag") != REFUSED_ETAG)
"""Whether an object can be opened, as far as its listing shows."""
_CHUNK = 100_000
"""Rows handled at a time: bounds the memory that a listing of a million objects takes on top of its frame."""


@dataclass(frozen=True)
class Changes:
    """Objects by what happened to them since a snapshot. `kept` and `gone` have the column `part` too."""

    new: pl.DataFrame
    changed: pl.DataFrame
    gone: pl.DataFrame
    kept: pl.DataFrame


def list_source(source: str, *, exclude: Sequence[str] = ()) -> pl.DataFrame:
    """List a folder, an `s3://` prefix, one shard, or a list of URIs; sorted by uri, empty if there is nothing.

    Args:
        source: Path or URI.
        exclude: Folders or prefixes to skip. Folders that hold `wtl.json` are workspaces and skipped too.

    Raises:
        ConfigError: no such path or bucket, or access denied, to a prefix or to all that a list names in buckets.
        InputError: a folder below the source cannot be listed.
        TransientError: the store keeps failing.
    """
    root = open_store(source).root
    if paths.is_s3(root):
        objects = _list_bucket(root)
    elif not os.path.exists(root):  # noqa: PTH110
        raise ConfigError(
            f"{paths.uri_of(root)}: expected a folder, a shard or a list of URIs, found nothing; check the path"
        )
    elif os.path.isdir(root):  # noqa: PTH112
        objects = folder.walk(root, exclude=[e for e in exclude if not paths.is_s3(e)])
    else:
        objects = _list_file(paths.uri_of(root), root)
    frame = as_frame(objects)
    _check_refused(root, frame)
    if paths.is_s3(root):
        frame = _without_workspaces(frame, [e.rstrip("/") + "/" for e in exclude if paths.is_s3(e)])
    return frame.unique("uri", keep="first", maintain_order=True).sort("uri")


def as_frame(objects: Iterable[SourceObject]) -> pl.DataFrame:
    """Objects as a frame, built in pieces: a million Python objects at once would fill the memory."""
    rows, frames = iter(objects), [pl.DataFrame(schema=LISTING_SCHEMA)]
    while piece := list(islice(rows, _CHUNK)):
        columns = {name: [getattr(row, name) for row in piece] for name in LISTING_SCHEMA}
        frames.append(pl.DataFrame(columns, schema=LISTING_SCHEMA))
    return pl.concat(frames)


def diff(listing: pl.DataFrame, snapshot: pl.DataFrame, *, again: pl.DataFrame | None = None) -> Changes:
    """Compare a listing with a snapshot (a listing with its parts) by (source, uri) and size, etag or time.

    Args:
        listing: What is there now.
        snapshot: What was there, with parts.
        again: Unchanged objects (source, uri) to read once more, see `readmission`: they count as changed,
            their etag marked, so that they go into another part.
    """
    matched = _match(listing, snapshot)
    new = listing[matched.filter(pl.col("old_row").is_null())["row"]]
    changed = listing[matched.filter(~pl.col("is_same"))["row"]]
    kept = snapshot[matched.filter(pl.col("is_same"))["old_row"]]
    is_gone = np.ones(snapshot.height, bool)
    is_gone[matched["old_row"].drop_nulls().to_numpy()] = False
    gone = snapshot.filter(is_gone)
    if again is not None and not again.is_empty():
        retried = kept.join(again, on=["source", "uri"], how="semi", maintain_order="left")
        kept = kept.join(again, on=["source", "uri"], how="anti", maintain_order="left")
        plain, mark = pl.col("etag").str.split(RETRY_MARK).list.first(), pl.col("part").str.slice(0, 16)
        marked = retried.with_columns(etag=plain + RETRY_MARK + mark).select(list(LISTING_SCHEMA))
        changed = pl.concat([changed, marked]).sort("uri")
    return Changes(new, changed, gone.select(list(SNAPSHOT_SCHEMA)), kept.select(list(SNAPSHOT_SCHEMA)))


def _match(listing: pl.DataFrame, snapshot: pl.DataFrame) -> pl.DataFrame:
    """For each row of the listing the row of the snapshot (`old_row`), and whether the object is the same.

    Row numbers only, and a slice of the URIs at a time: joining a million of them at once took 0.5 GB more.
    """
    now = listing.lazy().with_row_index("row")
    before = snapshot.lazy().with_row_index("old_row").select(
        "source", "uri", "old_row", pl.col("size").alias("old_size"), pl.col("mtime_ns").alias("old_mtime_ns"),
        pl.col("etag").str.split(RETRY_MARK).list.first().alias("old_etag"),
    )  # fmt: skip
    has_etags = (pl.col("etag") != "") & (pl.col("old_etag") != "")
    is_written = (
        pl.when(has_etags)
        .then(pl.col("etag") != pl.col("old_etag"))
        .otherwise(pl.col("mtime_ns") != pl.col("old_mtime_ns"))
    )
    is_same = ~is_written & (pl.col("size") == pl.col("old_size"))
    slices = listing.height // _CHUNK + 1
    matched = []
    for place in range(slices):
        is_here = pl.col("uri").hash() % slices == place
        joined = now.filter(is_here).join(before.filter(is_here), on=["source", "uri"], how="left")
        matched.append(joined.select("row", "old_row", is_same.alias("is_same")).collect())
    return pl.concat(matched).sort("row")


def _list_file(source: str, path: str) -> Iterable[SourceObject]:
    if not os.path.isfile(path):  # noqa: PTH113
        raise ConfigError(f"{source}: expected a folder or a file, found a pipe or device; check the path")
    if not uri_list.may_be_list(path):
        return [folder.describe(source, path)]
    with open(path, "rb") as handle:  # noqa: PTH123
        uris = uri_list.read_uris(source, handle)
    if uris is None:
        return [folder.describe(source, path)]
    return uri_list.describe(source, uris)


def _list_bucket(source: str) -> Iterable[SourceObject]:
    if "." not in source.rsplit("/", 1)[-1]:
        return bucket.walk(source)
    obj = bucket.describe_uri(source, source)
    if obj.size == MISSING_SIZE or obj.etag == REFUSED_ETAG:  # a prefix perhaps, whose listing says what is wrong
        return bucket.walk(source)
    if uri_list.may_be_list(source):
        with filesystem(source).open(source, "rb") as handle:
            uris = uri_list.read_uris(source, handle)
        if uris is not None:
            return uri_list.describe(source, uris)
    return [obj]


def _check_refused(source: str, frame: pl.DataFrame) -> None:
    """Refuse a list whose bucket refuses everything: wrong credentials look so. Single refusals are data."""
    uris = frame.filter(pl.col("uri").str.starts_with("s3://"))
    refused = uris.filter(pl.col("etag") == REFUSED_ETAG)["uri"]
    if len(refused) and len(refused) == uris.height:
        raise ConfigError(
            f"{paths.uri_of(source)}: expected objects that may be read, the store refuses all {len(refused)} that are "
            f"in a bucket, for example {refused[0]!r}; check the credentials in the environment"
        )


def _without_workspaces(frame: pl.DataFrame, exclude: list[str]) -> pl.DataFrame:
    marks = frame.filter(pl.col("uri").str.ends_with("/" + folder.WORKSPACE_MARK))["uri"].to_list()
    prefixes = exclude + [mark.removesuffix(folder.WORKSPACE_MARK) for mark in marks]
    for prefix in prefixes:
        frame = frame.filter(~pl.col("uri").str.starts_with(prefix))
    return frame
