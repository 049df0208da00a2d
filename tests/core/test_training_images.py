"""The images of a training: decoded once, in memory or in a file."""

import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.small_training import make_pool
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.errors import ConfigError
from wtl_core.training.image_cache import PoolImages, decode_pool, next_files
from wtl_core.workspace.storage import Store


def test_large_files_are_decoded_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [(row, bytes(300)) for row in range(5)] + [(5, None)]
    source = iter(files)
    assert [len(next_files(source, 4, 700)) for _ in range(4)] == [3, 3, 0, 0]
    whole = decode_pool(make_pool(40), 40, Preprocessing(16))
    monkeypatch.setattr("wtl_core.training.image_cache.READ_BYTES", 1)
    assert np.array_equal(decode_pool(make_pool(40), 40, Preprocessing(16)), whole)


def test_a_disk_without_room_for_the_images_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("wtl_core.training.image_cache.IN_MEMORY_BYTES", 1000)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}: expected room for .* set TMPDIR"):
        decode_pool(make_pool(40), 40, Preprocessing(16), scratch=tmp_path)


def test_unreadable_images_are_left_out_of_training(store: Store) -> None:
    pool = make_pool(40)

    def read(rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        for row, data in pool.read(rows):
            yield row, None if row == 3 else b"no image" if row == 7 else data

    squares = decode_pool(PoolImages(pool.sample_ids, pool.sides_px, read), 40, Preprocessing(16))
    whole = decode_pool(pool, 40, Preprocessing(16))
    assert np.array_equal(squares, np.delete(whole, [3, 7], axis=0))


def test_a_large_pool_is_kept_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = decode_pool(make_pool(40), 40, Preprocessing(16))
    monkeypatch.setattr("wtl_core.training.image_cache.IN_MEMORY_BYTES", 1000)
    mapped = decode_pool(make_pool(40), 40, Preprocessing(16), scratch=tmp_path)
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, whole)
    assert list(tmp_path.iterdir()) == []
