"""What several drills work on and compare with."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_stack import Stack, plain_ranking

from tests.conftest import build_source
from tests.services.drill import IN_PARTS, PIXELS, at_rest


@pytest.fixture(scope="module")
def quiet(stack: Stack) -> Iterator[Stack]:
    with at_rest(stack):
        yield stack


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A source, and the ranking that a plain script makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    source = build_source(folder / "source")
    return source, plain_ranking(source, folder / "workspace", PIXELS)


@pytest.fixture(scope="session")
def undisturbed_in_parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """The same of several parts in each stage, with an encoder that is trained."""
    folder = tmp_path_factory.mktemp("undisturbed-in-parts")
    source = build_source(folder / "source", count=150)
    return source, plain_ranking(source, folder / "workspace", IN_PARTS)
