"""Fixtures of the tests of the core."""

from pathlib import Path

import pytest

from tests.conftest import make_jpeg
from wtl_core.workspace.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A fresh workspace in a folder."""
    return open_store(str(tmp_path / "workspace"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A source of eight images."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(8):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    return source
