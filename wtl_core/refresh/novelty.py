"""How many of the new images are unlike everything labelled so far: some of them are embedded and compared.

These are spread over the bytes of all new objects and chosen by their content. Of large shards only the beginning is
read, since this must stay cheap. An image is *far* if it lies farther from its nearest labelled image than 90 % of the
pool does. So a tenth of the new images is far where they show what the pool shows already; a new camera or a new class
gives a much larger share.
"""

import hashlib
import heapq
import logging
from collections.abc import Iterator

import numpy as np
import polars as pl

from wtl_core.embedding import embedder, vectors
from wtl_core.encoders import loading
from wtl_core.images.decode import HIGHEST_MAX_PIXELS, decode
from wtl_core.images.faults import ImageError
from wtl_core.machine import Machine
from wtl_core.pool import live_pool
from wtl_core.selection.identity import content_keys
from wtl_core.shards.discover import LISTING_SCHEMA
from wtl_core.shards.objects import Entries, ObjectChangedError, SourceObject
from wtl_core.shards.reader import read_objects
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.storage import Store

IMAGES = 1024
"""New images that are embedded, at most: the share is then known to 3 points."""
MOST_BYTES = 256 << 20
"""Bytes read of all new objects together, roughly: of each object its share of them, but at least one image."""
_POOL_ROWS = 10_000
"""Samples of the pool that the limit of *far* is taken from: the quantile is then known to half a point."""
_FAR_QUANTILE = 0.9
_ROUNDING = 1e-3
"""Vectors are stored as float16: two of the same image may differ by this much in similarity."""

_logger = logging.getLogger(__name__)


def share(store: Store, arrived: pl.DataFrame, machine: Machine) -> float:
    """The share of the new images that is far from the labelled ones, 0 to 1.

    Args:
        store: The workspace.
        arrived: New and changed objects, rows of a listing.
        machine: Where to embed.

    Returns:
        1.0 if nothing is labelled or skipped as redundant, no refresh has been committed, or the encoder's name means
        another network than in the last refresh, so that vectors cannot be compared; 0.0 if no new image can be read.
    """
    last = commits.latest(store)
    entries = ledger.read(store, None if last else 0)
    covering = {*ledger.sample_ids(entries, "labelled"), *ledger.sample_ids(entries, "redundant")}
    if last is None or not covering:
        return 1.0
    live = live_pool.sample_ids(store, snapshots.read_snapshot(store, last.listing))
    known = live.filter(live.is_in(vectors.existing_ids(store, last.encoder).implode())).to_list()
    marked = sorted(covering & set(known))
    if not marked:
        return 1.0
    drawn = [known[row] for row in np.argsort(content_keys(known), kind="stable")[:_POOL_ROWS]]
    matrix = vectors.load(store, last.encoder, drawn).astype(np.float32)
    anchors = vectors.load(store, last.encoder, marked).astype(np.float32)
    encoder = loading.last_used(store, last, device=machine.device)
    if encoder is None:
        _logger.info("%s names another network than in the last refresh: a refresh is due", last.encoder_name)
        return 1.0
    images = sampled(arrived, max_file_bytes=last.recipe.ingest.max_file_bytes)
    pieces = embedder.embed(encoder, images, workers=machine.workers)
    none = np.empty((0, encoder.dimensions), np.float32)
    fresh = np.concatenate([none, *(piece.vectors.astype(np.float32) for piece in pieces)])
    return far_share(fresh, anchors, matrix)


def far_share(fresh: np.ndarray, anchors: np.ndarray, matrix: np.ndarray) -> float:
    """Share of rows of `fresh` (F, D) that are less similar to their nearest anchor than 90 % of `matrix` (N, D).

    `anchors` are (L, D); all rows are float32 unit vectors, similarity is the cosine. 0.0 if `fresh` is empty.
    """
    if not len(fresh):
        return 0.0
    limit = float(np.quantile(nearest_similarity(matrix, anchors), 1 - _FAR_QUANTILE))
    return float((nearest_similarity(fresh, anchors) < limit - _ROUNDING).mean())


def nearest_similarity(
    rows: np.ndarray, anchors: np.ndarray, *, block_rows: int = 2048, block_anchors: int = 8192
) -> np.ndarray:
    """The similarity of each of `rows` (N, D) to its nearest of `anchors` (L, D), as (N,) float32.

    A block of similarities at a time is in memory (64 MB), however many labels there are.
    """
    nearest = np.full(len(rows), -np.inf, np.float32)
    for i in range(0, len(rows), block_rows):
        for j in range(0, len(anchors), block_anchors):
            block = rows[i : i + block_rows] @ anchors[j : j + block_anchors].T
            np.maximum(nearest[i : i + block_rows], block.max(axis=1), out=nearest[i : i + block_rows])
    return nearest


def sampled(arrived: pl.DataFrame, *, max_file_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Up to `IMAGES` of the new images, as (SHA-256 hex, bytes); the same objects give the same images.

    Ingest has not verified them yet, and embedding decodes without verifying. So damaged images are left out here, and
    no others are chosen in their place.
    """
    counts = _counts(arrived)
    for obj, entries in read_objects(list(counts), max_file_bytes=max_file_bytes):
        images = ((hashlib.sha256(data).hexdigest(), data) for data in _beginning(entries, counts[obj]))
        try:
            chosen = heapq.nsmallest(counts[obj], images)
        except ObjectChangedError:
            continue  # still being written: what was read of it does not count
        yield from ((digest, data) for digest, data in chosen if _is_sound(data))


def _is_sound(data: bytes) -> bool:
    """Whether the bytes are an image that can be decoded and is complete."""
    try:
        decode(data, max_pixels=HIGHEST_MAX_PIXELS)
    except ImageError:
        return False
    return True


def _counts(arrived: pl.DataFrame) -> dict[SourceObject, int]:
    """How many images to take of which object: in proportion to its bytes, by evenly spaced points over all bytes.

    Objects are ordered by a hash of their identity, so their names and the order of sources do not matter.
    """
    objects = [SourceObject(*row) for row in arrived.select(list(LISTING_SCHEMA)).iter_rows()]
    if not objects:
        return {}
    order = np.argsort(content_keys([f"{obj.uri} {obj.identity}" for obj in objects]), kind="stable")
    ends = np.cumsum([max(objects[row].size, 1) for row in order])
    points = (np.arange(IMAGES) + 0.5) * (ends[-1] / IMAGES)
    counts = np.bincount(np.searchsorted(ends, points, side="right"), minlength=len(objects))
    return {objects[row]: int(count) for row, count in zip(order, counts, strict=True) if count}


def _beginning(entries: Entries, count: int) -> Iterator[bytes]:
    """An object's first images, until its share of `MOST_BYTES` is read: `count` parts of `IMAGES`."""
    left = MOST_BYTES * count // IMAGES
    for entry in entries:
        if entry.data is not None and entry.reason is None:
            yield entry.data
        left -= max(entry.size, 0)
        if left <= 0:
            break
