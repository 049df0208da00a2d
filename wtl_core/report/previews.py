"""A preview of every image: 4 x 4 colours in 24 bytes, so that the page shows something of each of 100,000.

They are made from the thumbnails that ingest kept, once for each part of the pool, and lie beside it in
`previews/<part>.parquet`, which never changes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from wtl_core.images.measure import shrunk_by_area
from wtl_core.pool.part_file import pool_key
from wtl_core.report.small_pictures import SMALL_BYTES, decode_small
from wtl_core.workspace.storage import Store

SIDE = 4
BYTES = SIDE * SIDE * 3 // 2
"""Of one preview: red, green and blue of 16 fields in 4 bits each, row by row, the first in the high bits."""
_SCHEMA = {"row": pl.Int32, "colours": pl.Binary}


def read(store: Store, samples: pl.DataFrame, *, workers: int) -> np.ndarray:
    """Previews of samples, (N, 24) uint8, in their order; a grey one of its brightness where an image has none.

    Args:
        store: The workspace. Previews of parts that have none yet are made and kept.
        samples: `Pool.samples`, or some of them.
        workers: Threads that decode.
    """
    parts = samples["part"].unique().sort().to_list()
    with ThreadPoolExecutor(workers) as pool:
        frames = list(pool.map(partial(_of_part, store), parts))
    tables = [frame.with_columns(part=pl.lit(part)) for part, frame in zip(parts, frames, strict=True)]
    found = pl.concat([pl.DataFrame(schema={**_SCHEMA, "part": pl.String}), *tables])
    joined = samples.select("part", "row", "brightness").join(
        found, on=["part", "row"], how="left", maintain_order="left"
    )
    level = (joined["brightness"].fill_null(128.0).to_numpy() / 17 + 0.5).astype(np.uint8)
    out = np.repeat((level << 4 | level)[:, None], BYTES, axis=1)
    is_there = joined["colours"].is_not_null().to_numpy()
    if is_there.any():
        out[is_there] = np.frombuffer(b"".join(joined["colours"].drop_nulls()), np.uint8).reshape(-1, BYTES)
    return out


def packed(colours: np.ndarray) -> np.ndarray:
    """Previews (N, 24) uint8 of images shrunk to (N, 4, 4, 3) uint8."""
    four_bits = ((colours.reshape(len(colours), BYTES * 2).astype(np.uint16) * 15 + 127) // 255).astype(np.uint8)
    return np.asarray(four_bits[:, 0::2] << 4 | four_bits[:, 1::2])


def _of_part(store: Store, part: str) -> pl.DataFrame:
    """`row` and `colours` of a part's images; made and written if they are not there."""
    key = f"previews/{part}.parquet"
    if store.exists(key):
        return store.read_frame(key)
    rows: list[int] = []
    colours: list[np.ndarray] = []
    with store.reader(pool_key(part)) as handle:
        table = pq.ParquetFile(handle, pre_buffer=False)
        first = 0
        for number in range(table.num_row_groups):
            for place, data in enumerate(_pictures(table, number)):
                pixels = None if data is None else decode_small(data, SIDE * 4)
                if pixels is not None:
                    rows.append(first + place)
                    colours.append(shrunk_by_area(pixels, SIDE, SIDE))
            first += table.metadata.row_group(number).num_rows
    small = packed(np.stack(colours)) if colours else np.zeros((0, BYTES), np.uint8)
    frame = pl.DataFrame({"row": rows, "colours": [line.tobytes() for line in small]}, schema=_SCHEMA)
    store.write_frame(key, frame)
    return frame


def _pictures(table: pq.ParquetFile, number: int) -> Sequence[bytes | None]:
    """Of each row of a row group its thumbnail, or the image file where it is small, or nothing."""
    found = table.read_row_group(number, columns=["thumbnail", "byte_length"])
    pictures: list[bytes | None] = found["thumbnail"].to_pylist()
    sizes: list[int] = found["byte_length"].to_pylist()
    without = [place for place, data in enumerate(pictures) if data is None and sizes[place] <= SMALL_BYTES]
    if without:
        images = table.read_row_group(number, columns=["image"])["image"]
        for place in without:
            pictures[place] = images[place].as_py()
    return pictures
