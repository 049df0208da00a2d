"""Small JPEGs of images for a page, and small decodings of what ingest kept of them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import simplejpeg

from wtl_core.images.decode import HIGHEST_MAX_PIXELS, decode
from wtl_core.images.faults import ImageError
from wtl_core.images.measure import resize_within, shrink
from wtl_core.pool import live_pool
from wtl_core.pool.part_file import pool_key
from wtl_core.workspace.storage import Store

_QUALITY = 72
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0"
_HEAD_BYTES = 4096
SMALL_BYTES = 32 << 10
"""Of an image file that is decoded where there is no thumbnail; many larger ones would take minutes."""
_MOST_DECODED = 300
"""Larger ones that are decoded all the same: the most important."""
_AS_IT_IS_BYTES = 1500
"""A JPEG file of so few bytes is shown as it is."""
_THREADS = 8
"""Parts that are read side by side: in a bucket each waits for its answer most of the time."""
_SIDES = ((128, 3600), (96, 2300), (64, 1250))
"""Longer sides, and bytes that a photograph of this size takes on average at quality 72."""


def side_for(count: int, budget_bytes: int) -> int:
    """The longer side in pixels of `count` pictures that fit into so many bytes; 64 at least."""
    return next((side for side, size in _SIDES if count * size <= budget_bytes), _SIDES[-1][0])


def decode_small(data: bytes, least_px: int) -> np.ndarray | None:
    """Pixels (h, w, 3) uint8 whose sides are not below `least_px` if the image's are not; None if it is not readable.

    JPEGs are decoded at the scale that is just large enough, which takes a fraction of the time; but not those that
    EXIF may turn, of which no thumbnail of ours is one.
    """
    try:
        if data.startswith(_JPEG) and _EXIF not in data[:_HEAD_BYTES]:
            pixels: np.ndarray = simplejpeg.decode_jpeg(
                data, "RGB", fastdct=True, fastupsample=True, min_height=least_px, min_width=least_px, min_factor=1
            )
            return pixels
        return shrink(decode(data, max_pixels=HIGHEST_MAX_PIXELS).pixels)
    except (ImageError, ValueError):
        return None


def read(store: Store, samples: pl.DataFrame, *, side: int, budget_bytes: int) -> dict[str, bytes]:
    """Small JPEGs by `sample_id`, those of the first samples until the budget is spent.

    Args:
        store: The workspace.
        samples: Rows of `Pool.samples`, the most important first.
        side: Longer side in pixels, see `side_for`.
        budget_bytes: Of all pictures together.
    """
    first = set(samples["sample_id"].head(_MOST_DECODED))
    parts = [
        (str(part), dict(group.select("row", "sample_id").iter_rows()))
        for (part,), group in samples.sort("part", "row").group_by("part", maintain_order=True)
    ]

    def of_part(asked: tuple[str, dict[int, str]]) -> dict[str, bytes | None]:
        part, names = asked
        decoded = {row for row, sample_id in names.items() if sample_id in first}
        return {names[row]: _small_jpeg(data, side) for row, data in _kept(store, part, sorted(names), decoded)}

    with ThreadPoolExecutor(_THREADS) as pool:
        found = {sample_id: data for pictures in pool.map(of_part, parts) for sample_id, data in pictures.items()}
    chosen: dict[str, bytes] = {}
    for sample_id in samples["sample_id"]:
        data = found.get(sample_id)
        if data is not None and len(data) <= budget_bytes:
            chosen[sample_id] = data
            budget_bytes -= len(data)
    return chosen


def _kept(store: Store, part: str, rows: Sequence[int], decoded: set[int]) -> Iterator[tuple[int, bytes]]:
    """Of rows of a part the thumbnail; of others the file if it is small or one of the rows to be `decoded`."""
    without: list[int] = []
    with store.reader(pool_key(part)) as handle:
        table = pq.ParquetFile(handle, pre_buffer=False)
        first, place = 0, 0
        for number in range(table.num_row_groups):
            count = table.metadata.row_group(number).num_rows
            inside = []
            while place < len(rows) and rows[place] < first + count:
                inside.append(rows[place] - first)
                place += 1
            if inside:
                group = table.read_row_group(number, columns=["thumbnail", "byte_length"])
                for at in inside:
                    data = group["thumbnail"][at].as_py()
                    if data is not None:
                        yield first + at, data
                    elif first + at in decoded or group["byte_length"][at].as_py() <= SMALL_BYTES:
                        without.append(first + at)
            first += count
    if without:
        yield from ((row, data) for row, data in live_pool.read_images(store, part, without) if data is not None)


def _small_jpeg(data: bytes, side: int) -> bytes | None:
    if len(data) <= _AS_IT_IS_BYTES and data.startswith(_JPEG):
        return data
    pixels = decode_small(data, side)
    if pixels is None:
        return None
    small = np.ascontiguousarray(resize_within(shrink(pixels), side))
    encoded: bytes = simplejpeg.encode_jpeg(small, quality=_QUALITY, colorspace="RGB", colorsubsampling="420")
    return encoded
