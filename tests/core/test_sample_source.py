"""The sample source that `make run` builds: as large and as messy as its docstring says, and the same every time."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from tests import sample_source
from tests.plain_refresh import ranking, refresh
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import snapshots
from wtl_core.workspace.storage import Store

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


@pytest.fixture(scope="module")
def documented_recipes() -> list[Recipe]:
    """The recipes of docs/recipe.md, with the encoder `pixels`: the documented one is downloaded."""
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "recipe.md").read_text(), re.DOTALL)
    return [Recipe.model_validate(tomllib.loads(block) | {"encoder": {"name": "pixels"}}) for block in blocks]


def test_the_documented_recipes_run_on_the_sample(
    built: tuple[Path, int], documented_recipes: list[Recipe], tmp_path: Path
) -> None:
    sample, images = built
    cameras, days, *_ = documented_recipes

    refresh(tmp_path / "w", sample, recipe=cameras)
    picks = ranking(tmp_path / "w")["uri"].to_list()
    assert images / 4 < len(picks) < images / 2  # those that are sharp and have a score of 0.5 at least
    first = picks[: round(0.05 * len(picks))]
    assert sum("north.parquet" in uri for uri in first) >= int(0.2 * len(first))
    assert not any("gate.parquet" in uri for uri in first)

    last = refresh(tmp_path / "w", sample, recipe=days)
    assert last.counts.picks == 500
    store = Store(str(tmp_path / "w"))
    pool = live_pool.load(store, snapshots.read_snapshot(store, last.listing))
    assert pool.samples["taken_at"].null_count() == 0
    assert pool.samples["taken_at"].str.head(10).n_unique() == 14
    assert dict(pool.quarantine.group_by("reason").len().iter_rows()) == {
        "empty": 1, "not_an_image": 1, "truncated": 1, "corrupt": 1
    }  # fmt: skip
    assert live_pool.near_groups(pool.samples).height > images / 3  # frames of bursts and of cameras that stand still
