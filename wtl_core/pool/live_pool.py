"""The pool: a view over the live parts, one row per sample, and the bytes behind its rows. Imports no torch.

A row is live if the snapshot still lists its object under the part that holds the row. Nothing here decodes an image.
"""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from wtl_core.errors import CorruptArtifactError
from wtl_core.pool import part_file
from wtl_core.recipe.filters import parse_filter
from wtl_core.shards import reader
from wtl_core.shards.reader import Wanted
from wtl_core.workspace.accounts import SourceAccounts
from wtl_core.workspace.storage import Store

_THREADS = 8
"""Parts of a workspace in a bucket that are read side by side: each waits for its answer most of the time."""
_FILES_AT_ONCE = 32
"""Parts of a folder that are read before a condition is applied: some hundred thousand rows."""
_LIVE = ("source", "object_uri", "part")
_WHERE = ("sample_id", "object_uri", "key", "ordinal", "offset", "byte_length")


@dataclass(frozen=True)
class PoolCounts:
    """Row accounts: `read == locations + ignored` and `locations == samples + duplicates + quarantined`."""

    read: int
    locations: int
    samples: int
    duplicates: int
    quarantined: int
    ignored: int
    filtered: int


@dataclass(frozen=True)
class Pool:
    """The live samples (one row each, sorted by sample_id), what was refused, and the row accounts."""

    samples: pl.DataFrame
    quarantine: pl.DataFrame
    ignored: pl.DataFrame
    counts: PoolCounts
    by_source: dict[str, SourceAccounts]
    """These add up to `counts`."""


def load(store: Store, snapshot: pl.DataFrame, *, filters: Sequence[str] = ()) -> Pool:
    """Load the live pool. Reads no image bytes.

    Args:
        store: The workspace.
        snapshot: The listing with its parts.
        filters: Conditions that all must hold; samples that fail one get `is_filtered`.

    Raises:
        CorruptArtifactError: a part of the snapshot is not there.
        InputError: a filter names a key that no sample's metadata has.
    """
    live, parts = _live(snapshot)
    locations = load_locations(store, snapshot)
    refused = load_quarantine(store, snapshot)
    ignored = _live_rows(
        store, _present(store, "ignored", parts), live, part_file.IGNORED_SCHEMA.names, _empty(part_file.IGNORED_SCHEMA)
    )
    samples = _mark_twins(_mark_filtered(_one_per_sample(locations), filters))
    counts = PoolCounts(
        read=len(locations) + len(refused) + len(ignored),
        locations=len(locations) + len(refused),
        samples=len(samples),
        duplicates=len(locations) - len(samples),
        quarantined=len(refused),
        ignored=len(ignored),
        filtered=int(samples["is_filtered"].sum()),
    )
    return Pool(samples, refused, ignored, counts, _by_source(locations, refused, ignored))


def load_locations(
    store: Store,
    snapshot: pl.DataFrame,
    *,
    columns: Sequence[str] = part_file.LIGHT_COLUMNS,
    where: pl.Expr | None = None,
    count: int | None = None,
) -> pl.DataFrame:
    """Every live location of every sample, one row each.

    Args:
        store: The workspace.
        snapshot: The listing with its parts.
        columns: Columns of the pool to read besides `source`, `object_uri` and `part`; all but image and thumbnail.
        where: A condition on these columns that rows must satisfy, so that others do not stay in memory.
        count: How many locations there are, where the snapshot's commit tells it. If the parts hold no more rows, all
            of these are live, and only `columns` are read and given: two thirds of the time less.

    Raises:
        CorruptArtifactError: a part of the snapshot is not there.
    """
    live, parts = _live(snapshot)
    keys = [part_file.pool_key(part) for part in parts]
    if count and where is None and (rows := _rows(store, keys, columns, where=None)).height == count:
        return rows
    wanted = list(dict.fromkeys([*columns, *_LIVE]))
    return _live_rows(store, keys, live, wanted, _empty(part_file.POOL_SCHEMA).select(wanted), where=where)


def load_quarantine(store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """Every live location that ingest refused, as `part_file.QUARANTINE_SCHEMA`. Raises what `load` does."""
    live, parts = _live(snapshot)
    schema = part_file.QUARANTINE_SCHEMA
    return _live_rows(store, _present(store, "quarantine", parts), live, schema.names, _empty(schema))


def sample_ids(store: Store, snapshot: pl.DataFrame) -> pl.Series:
    """The ids of the live samples, each once and sorted, for those who need nothing else of the pool.

    Raises:
        CorruptArtifactError: a part of the snapshot is not there.
    """
    return load_locations(store, snapshot, columns=["sample_id"])["sample_id"].unique().sort()


def first_uris(store: Store, snapshot: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """`sample_id` and `first_uri`, the smallest of its URIs, of those of the samples `ids` that are in the pool.

    Raises:
        CorruptArtifactError: a part of the snapshot is not there.
    """
    is_wanted = pl.col("sample_id").is_in(ids.implode())
    places = load_locations(store, snapshot, columns=["sample_id", "uri"], where=is_wanted)
    return places.group_by("sample_id").agg(first_uri=pl.min("uri"))


def near_groups(samples: pl.DataFrame) -> pl.DataFrame:
    """The samples that look almost like others, by their perceptual hashes.

    Args:
        samples: Columns `sample_id` and `phash`, for example those of `Pool.samples`; a sample may have several rows.

    Returns:
        Columns `sample_id` and `near_group`, the smallest id of the sample's group; sorted by `sample_id`. Samples
        that are alone are left out.

    Cost: 0.5 s for 1,000,000 samples of which few are alike.
    """
    from wtl_core.pool import near_duplicates  # numba is not imported by those who only list the pool

    groups = pl.Series("group", near_duplicates.group(samples["phash"].to_numpy()), dtype=pl.Int64)
    grouped = samples.select("sample_id", groups).filter(pl.col("group") >= 0).unique()
    named = grouped.with_columns(near_group=pl.min("sample_id").over("group"), size=pl.len().over("group"))
    return named.filter(pl.col("size") > 1).select("sample_id", "near_group").sort("sample_id")


def _live(snapshot: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The objects that are there, each with its part, and the parts."""
    live = snapshot.select("source", pl.col("uri").alias("object_uri"), "part")
    return live, live["part"].unique().sort().to_list()


def read_images(store: Store, part: str, rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
    """Yield (row, image bytes) of one part, in ascending row order, one row group's bytes in memory at a time.

    With `store = "reference"` the source is read again; a row whose bytes are gone or changed gives None.
    """
    wanted = sorted(set(rows))
    places: list[dict[str, Any]] = []
    referenced: list[int] = []
    with store.reader(part_file.pool_key(part)) as handle:
        table = pq.ParquetFile(handle, pre_buffer=False)
        first = 0
        for number in range(table.num_row_groups):
            count = table.metadata.row_group(number).num_rows
            inside = [row - first for row in wanted if first <= row < first + count]
            if inside:
                group = table.read_row_group(number, columns=["image", *_WHERE])
                images = group["image"]
                if images[inside[0]].is_valid:
                    yield from ((first + position, images[position].as_py()) for position in inside)
                else:  # all are collected first, so that each object is read once: most archives only from their start
                    places += group.select(_WHERE).take(inside).to_pylist()
                    referenced += [first + position for position in inside]
            first += count
    yield from _from_source(places, referenced)


def _from_source(places: list[dict[str, Any]], rows: list[int]) -> Iterator[tuple[int, bytes | None]]:
    """Images that the pool only refers to, checked against their sample ids."""
    for uri, members in groupby(zip(places, rows, strict=True), key=lambda pair: str(pair[0]["object_uri"])):
        asked = list(members)
        wanted = [Wanted(place["key"], place["ordinal"], place["offset"], place["byte_length"]) for place, _ in asked]
        found = reader.read_again(uri, wanted)
        for (place, row), data in zip(asked, found, strict=True):
            is_same = data is not None and hashlib.sha256(data).hexdigest() == place["sample_id"]
            yield row, data if is_same else None


def _by_source(locations: pl.DataFrame, refused: pl.DataFrame, ignored: pl.DataFrame) -> dict[str, SourceAccounts]:
    images, quarantined, others = (
        dict(frame.group_by("source").len().iter_rows()) for frame in (locations, refused, ignored)
    )
    accounts = {}
    for source in sorted({*images, *quarantined, *others}):
        claimed = images.get(source, 0) + quarantined.get(source, 0)
        accounts[source] = SourceAccounts(
            read=claimed + others.get(source, 0),
            locations=claimed,
            quarantined=quarantined.get(source, 0),
            ignored=others.get(source, 0),
        )
    return accounts


def _present(store: Store, folder: str, parts: list[str]) -> list[str]:
    names = set(store.names(folder))
    return [f"{folder}/{part}.parquet" for part in parts if f"{part}.parquet" in names]


def _live_rows(
    store: Store,
    keys: list[str],
    live: pl.DataFrame,
    columns: Sequence[str],
    empty: pl.DataFrame,
    *,
    where: pl.Expr | None = None,
) -> pl.DataFrame:
    """Rows of the files whose object the snapshot still lists under that part, and that satisfy the condition."""
    return _rows(store, keys, columns, where=where).join(live, on=list(_LIVE), how="semi") if keys else empty


def _rows(store: Store, keys: list[str], columns: Sequence[str], *, where: pl.Expr | None) -> pl.DataFrame:
    """Rows of the files, one or more, that satisfy the condition."""
    condition = pl.lit(True) if where is None else where
    try:
        if store.is_local:
            paths = [store.path(key) for key in keys]
            step = len(paths) if where is None else _FILES_AT_ONCE
            pieces = (paths[start : start + step] for start in range(0, len(paths), step))
            return pl.concat(
                pl.read_parquet(piece, columns=list(columns), glob=False).filter(condition) for piece in pieces
            )
        with ThreadPoolExecutor(_THREADS) as pool:
            return pl.concat(pool.map(lambda key: _read_columns(store, key, columns).filter(condition), keys))
    except (FileNotFoundError, pl.exceptions.ComputeError) as error:
        raise CorruptArtifactError(f"{store.root}: expected {len(keys)} parts, one cannot be read: {error}") from error


def _read_columns(store: Store, key: str, columns: Sequence[str]) -> pl.DataFrame:
    with store.reader(key) as handle:
        frame = pl.from_arrow(pq.read_table(handle, columns=list(columns)))
    assert isinstance(frame, pl.DataFrame)
    return frame


def _one_per_sample(locations: pl.DataFrame) -> pl.DataFrame:
    """The smallest location of each sample, with the metadata of the smallest that has any, and how many there are."""
    ordered = locations.sort("sample_id", "uri", "key", "ordinal", "source", "part")
    counted = ordered.with_columns(
        pl.len().over("sample_id").cast(pl.Int64).alias("locations"),
        # an image file that a table names too has two locations, and only the table's carries metadata
        pl.col("metadata").drop_nulls().first().over("sample_id"),
    )
    return counted.unique("sample_id", keep="first", maintain_order=True)


def _mark_filtered(samples: pl.DataFrame, filters: Sequence[str]) -> pl.DataFrame:
    keep = pl.repeat(True, samples.height, eager=True)
    for condition in map(parse_filter, filters):
        keep &= condition.holds_for(samples)
    return samples.with_columns((~keep).alias("is_filtered"))


def _mark_twins(samples: pl.DataFrame) -> pl.DataFrame:
    """Set `duplicate_of` of samples with equal pixels to the smallest id among them; filtered ones take no part."""
    first = (
        samples.filter(~pl.col("is_filtered")).group_by("pixel_digest").agg(pl.col("sample_id").min().alias("first"))
    )
    joined = samples.join(first, on="pixel_digest", how="left", maintain_order="left")
    is_twin = (pl.col("first") != pl.col("sample_id")) & ~pl.col("is_filtered")
    return joined.with_columns(pl.when(is_twin).then("first").alias("duplicate_of")).drop("first")


def _empty(schema: object) -> pl.DataFrame:
    frame = pl.from_arrow(schema.empty_table())  # type: ignore[attr-defined]
    assert isinstance(frame, pl.DataFrame)
    return frame
