"""Fixtures of the tests of the core."""

from pathlib import Path

import pytest

from tests.conftest import write_pictures
from wtl_core.workspace.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A fresh workspace in a folder."""
    return open_store(str(tmp_path / "workspace"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A source of eight images."""
    return write_pictures(tmp_path / "source", count=8)
