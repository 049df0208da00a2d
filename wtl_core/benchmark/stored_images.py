"""Images of a benchmark in files: written one after another, and in memory only while they are looked at.

They are read, not mapped: every page of a map that was ever looked at counts as memory of the process.
"""

import errno
import io
import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch.nn import functional

from wtl_core.errors import CorruptArtifactError

CHUNK = 1024
"""Images to look at together: 27 MiB of 96 px."""


class _File:
    """An open file, closed with the last who knows it."""

    def __init__(self, opened: io.FileIO) -> None:
        self.opened = opened
        weakref.finalize(self, opened.close)


@dataclass(frozen=True)
class StoredImages:
    """Images (N, 3, S, S) uint8, in an order of their own.

    Attributes:
        file: Holds them, and perhaps others.
        start: Bytes before its first image.
        side_px: S.
        rows: (N,) int64, their places in the file.
    """

    file: _File
    start: int
    side_px: int
    rows: np.ndarray

    @classmethod
    def new(cls, side_px: int, folder: Path | None = None) -> "StoredImages":
        """None yet, in a file without a name, whose room the disk has back when nobody knows it any more."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder)
        Path(name).unlink()
        return cls(_File(io.FileIO(descriptor, "r+")), 0, side_px, np.zeros(0, np.int64))

    @classmethod
    def open(cls, path: str) -> "StoredImages":
        """Those of a .npy file."""
        file = io.FileIO(path)
        np.lib.format.read_magic(file)
        (count, _, side_px, _), _, _ = np.lib.format.read_array_header_1_0(file)
        return cls(_File(file), file.tell(), side_px, np.arange(count))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, 3, S, S)."""
        return len(self.rows), 3, self.side_px, self.side_px

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    def __getitem__(self, chosen: int | slice | np.ndarray) -> np.ndarray:
        """The chosen ones as an array of their own: (3, S, S) for a number, else (n, 3, S, S)."""
        rows = self.rows[chosen]
        images = np.empty((np.size(rows), 3, self.side_px, self.side_px), np.uint8)
        for image, row in zip(images, np.ravel(rows), strict=True):
            if os.preadv(self.file.opened.fileno(), [image.data], self.start + int(row) * image.nbytes) != image.nbytes:
                name = self.file.opened.name
                raise CorruptArtifactError(f"{name}: expected more images, found its end; delete it and run again")
        return images if np.ndim(rows) else np.asarray(images[0])

    def take(self, chosen: np.ndarray) -> "StoredImages":
        """The chosen ones, in that order; nothing is read."""
        return self.at(self.rows[chosen])

    def write(self, image: np.ndarray) -> int:
        """Write one (3, S, S) behind all that the file holds, and give its place there; it is not one of these."""
        end = self.file.opened.seek(0, os.SEEK_END)
        if self.file.opened.write(np.ascontiguousarray(image).data) != image.nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a full disk takes a part and says nothing
        return (end - self.start) // image.nbytes

    def plus(self, images: Iterable[np.ndarray]) -> "StoredImages":
        """These and others, which are written to the same file."""
        return self.at([*self.rows, *(self.write(image) for image in images)])

    def at(self, rows: Sequence[int] | np.ndarray) -> "StoredImages":
        """Those at these places in the file."""
        return StoredImages(self.file, self.start, self.side_px, np.asarray(rows, np.int64))

    def save(self, file: IO[bytes], side_px: int) -> None:
        """Write them as a .npy file, averaged over areas to squares of a side of `side_px`, S at most."""
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(self), 3, side_px, side_px)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(self), CHUNK):
            images = self[start : start + CHUNK]
            if side_px < self.side_px:
                averages = functional.adaptive_avg_pool2d(torch.from_numpy(images).float(), side_px)
                images = averages.round().to(torch.uint8).numpy()
            file.write(images.data)
