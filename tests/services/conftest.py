"""What several drills compare with."""

from pathlib import Path

import pytest
from service_stack import plain_ranking

from tests.conftest import build_source
from tests.services.drill import PIXELS


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A source, and the ranking that a plain script makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = build_source(folder / "source")
    return source, plain_ranking(source, folder / "workspace", PIXELS)
