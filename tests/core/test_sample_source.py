"""The sample source that `make run` builds: as large and as messy as its docstring says, and the same every time."""

import hashlib
import re
import tomllib
from pathlib import Path

import polars as pl
import pytest

from tests import sample_source
from tests.plain_refresh import ranking, refresh
from wtl_core.recipe.recipe import Recipe

ROOT = Path(__file__).parents[2]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The sample, and how many images are in it."""
    folder = tmp_path_factory.mktemp("built") / "sample"
    return folder, sample_source.build(folder)


def test_it_is_some_three_thousand_images_and_the_same_bytes_again(built: tuple[Path, int], tmp_path: Path) -> None:
    folder, images = built
    sample_source.build(tmp_path / "again")
    assert 2_800 <= images <= 3_200
    assert digests(folder) == digests(tmp_path / "again")
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 60_000_000
    kinds = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert {".tar", ".parquet", ".jpg", ".png", ".txt"} == kinds


def documented_recipes() -> list[str]:
    """The recipes that README and docs show, as TOML."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [block for page in pages for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)]
    return [block for block in blocks if "[selection]" in block]


def test_the_documented_recipe_runs_on_the_sample(built: tuple[Path, int], tmp_path: Path) -> None:
    """With the encoder `pixels`, since the documented one is downloaded."""
    text, *_ = documented_recipes()
    fields = tomllib.loads(text)
    fields["encoder"] = {"name": "pixels"}
    sample = built[0]
    refresh(tmp_path / "w", sample, recipe=Recipe.model_validate(fields))
    picks = ranking(tmp_path / "w")
    assert 400 < picks.height < 600
    names = pl.read_parquet(sample / "camera-1.parquet", columns=["camera"])["camera"]
    first = [names[int(Path(uri.split("#")[1]).stem)] for uri in picks["uri"].head(25)]
    assert first.count("north") >= 5
