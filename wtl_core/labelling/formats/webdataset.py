"""WebDataset: a batch as tar files, in which an image and what is told of it share a key."""

import io
import json
import tarfile
from collections.abc import Callable
from typing import IO

import polars as pl

from wtl_core.labelling.formats.rows import picks_of

MOST_IMAGES, MOST_BYTES = 100_000, 3_000_000_000
"""In one tar, as WebDataset's own `ShardWriter` has it."""


def pack(images: pl.DataFrame, read: Callable[[str], bytes], stream: IO[bytes]) -> None:
    """Write images in the order of the batch, each before its JSON; `read` gives the bytes of a `file_name`.

    Members have no time and no owner, so the same images give the same bytes.
    """
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, told in zip(images["file_name"], picks_of(images), strict=True):
            key = name.partition(".")[0]
            for member, data in ((name, read(name)), (f"{key}.json", json.dumps(told).encode())):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
