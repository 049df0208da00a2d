"""Fixtures of the tests of the core."""

from pathlib import Path

import pytest

from wtl_core.workspace.storage import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A fresh workspace in a folder."""
    return open_store(str(tmp_path / "workspace"))
