"""Arrays in files of a ranking's own folder, and the samples and guests that a region's files hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from wtl_core.workspace.storage import Store, open_store

_LAYOUT = 1
"""Raised where files or what they mean change: a killed ranking of an earlier version then begins anew."""


@dataclass(frozen=True)
class Files:
    """Arrays in files of a folder."""

    store: Store
    key: str

    def begin(self, numeric_path: str) -> None:
        """Delete what is there if files of another layout, or by another kind of processor, are among it."""
        mark, made_by = f"{self.key}/made-by", f"{_LAYOUT} {numeric_path}".encode()
        if not self.store.exists(mark) or self.store.read_bytes(mark) != made_by:
            self.store.delete_folder(self.key)
            self.store.write_bytes(mark, made_by)

    def has(self, name: str) -> bool:
        """Whether a file is there, which is then whole."""
        return self.store.exists(f"{self.key}/{name}.npz")

    def write(self, name: str, **arrays: Any) -> None:
        """Write a whole file."""
        with self.store.writer(f"{self.key}/{name}.npz") as handle:
            np.savez(handle, **arrays)

    def read(self, name: str, *wanted: str) -> list[np.ndarray]:
        """Some arrays of a file."""
        with self.store.reader(f"{self.key}/{name}.npz") as handle, np.load(handle) as arrays:
            return [arrays[one] for one in wanted]


def load_region(files: Files, region: int, *wanted: str) -> list[np.ndarray]:
    """Arrays of a region's samples and guests, sorted by row; `rows` is always read."""
    (sizes,) = files.read("dealt", "sizes")
    names = ["rows", *wanted]
    pieces = [files.read(f"region-{region:06d}-{piece:05d}", *names) for piece in np.flatnonzero(sizes[:, region])]
    order = np.argsort(np.concatenate([piece[0] for piece in pieces]), kind="stable")
    return [np.concatenate([piece[place] for piece in pieces])[order] for place in range(1, len(names))]


@contextmanager
def passing_files() -> Iterator[Files]:
    """A folder of this machine for a ranking's files, which is deleted afterwards."""
    with TemporaryDirectory(prefix="wtl-regions-") as folder:
        yield Files(open_store(folder), "regions")
