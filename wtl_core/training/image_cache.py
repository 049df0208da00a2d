"""The pool's images as training sees them: decoded once to small squares of bytes, then only read."""

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from wtl_core.encoders.preprocessing import Preprocessing, fit_rows
from wtl_core.errors import ConfigError
from wtl_core.images.decode import decode_trusted
from wtl_core.images.faults import ImageError

Key = TypeVar("Key")

_log = logging.getLogger(__name__)

IN_MEMORY_BYTES = 2 << 30
"""More bytes of squares than this lie in a file, so that a large pool can be trained on with little memory."""
_READ_FILES = 64
"""Files that one thread decodes in one go."""
READ_BYTES = 32 << 20
"""Bytes of them, if they are large: each thread has four such groups waiting."""


@dataclass(frozen=True)
class PoolImages:
    """A pool to train on.

    Attributes:
        sample_ids: Sorted; row i is sample i.
        sides_px: (N,) shorter side of each image in pixels.
        read: Gives `(row, image file's bytes)` of rows, in any order; None for bytes that are gone.
    """

    sample_ids: Sequence[str]
    sides_px: np.ndarray = field(repr=False)
    read: Callable[[Sequence[int]], Iterator[tuple[int, bytes | None]]] = field(repr=False)


def decode_pool(
    images: PoolImages,
    count: int,
    preprocessing: Preprocessing,
    *,
    workers: int = 2,
    scratch: Path | None = None,
) -> np.ndarray:
    """The first `count` images as (n, 3, S, S) uint8 squares of the encoder's size; n is less if some are unreadable.

    Beyond 2 GiB the array is a file in a temporary folder (`scratch` or the system's), gone when the process is.
    """
    shape = (count, 3, preprocessing.side_px, preprocessing.side_px)
    out = _empty(shape, scratch)
    is_there = np.zeros(count, bool)
    source = iter(images.read(range(count)))
    with ThreadPoolExecutor(max(1, workers), "wtl-decode") as pool:

        def decode(files: list[tuple[int, bytes | None]]) -> None:
            there = [(row, data) for row, data in files if data is not None]
            for (row, _), image in zip(there, decode_trusted([data for _, data in there]), strict=True):
                if not isinstance(image, ImageError):
                    out[row] = fit_rows(image, preprocessing).transpose(2, 0, 1)
                    is_there[row] = True

        while groups := [files for _ in range(4 * workers) if (files := next_files(source, _READ_FILES, READ_BYTES))]:
            list(pool.map(decode, groups))
    lost = count - int(is_there.sum())
    if lost:
        _log.warning("training: %d of %d images cannot be read and are left out", lost, count)
        kept = np.flatnonzero(is_there)
        for target, row in enumerate(kept):
            out[target] = out[row]
        out = out[: len(kept)]
    return out


def next_files(
    source: Iterator[tuple[Key, bytes | None]], count: int, most_bytes: int
) -> list[tuple[Key, bytes | None]]:
    """The next `count` files of a stream, or fewer once they have `most_bytes`; at least one, none at its end."""
    files: list[tuple[Key, bytes | None]] = []
    size = 0
    for item in islice(source, count):
        files.append(item)
        size += len(item[1] or b"")
        if size >= most_bytes:
            break
    return files


def _empty(shape: tuple[int, ...], scratch: Path | None) -> np.ndarray:
    size = int(np.prod(shape))
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="wtl-images-") as handle:
        try:
            os.posix_fallocate(handle.fileno(), 0, size)  # a sparse file on a full disk would end the process later
        except OSError as error:
            raise ConfigError(
                f"{Path(handle.name).parent}: expected room for {size / 2**30:.1f} GiB of images while the encoder is "
                f"trained, found less ({error.strerror}); make room there, or set TMPDIR to a larger disk"
            ) from error
        # Linux keeps the unlinked file alive as long as the map is.
        return np.memmap(handle.name, np.uint8, "r+", shape=shape)


def copy_rows(squares: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """The rows of (N, 3, S, S) squares, copied into a tensor of their own."""
    return torch.from_numpy(squares[rows])
