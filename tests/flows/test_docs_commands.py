"""Commands, recipes and Python that the pages show, run as a reader would: in order, in one folder, on few images."""

import io
import json
import re
import runpy
import shutil
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.docs import DOCS, PAGES, README
from tests.docs_commands import blocks, commands
from tests.flows.conftest import Wtl
from tests.plain_refresh import ranking, refresh
from wtl_core.recipe.recipe import Recipe

READING = {"status", "cut", "report", "labels", "similar", "doctor"}
HANDING_OUT = {"export", "batches", "skip", "split"}
NEEDS = re.compile(r"timm:|s3://|ssl|--recipe|--open|--url")
"""In commands that need a download, a bucket, minutes of training, a place of the reader's own, or a browser."""
COUNT = 120


def grainy_jpeg(seed: int) -> bytes:
    """An image as sharp as the recipes ask for."""
    grains = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grains).resize((80, 80), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos` with metadata, `workspace`, and files that a labelling tool wrote."""
    folder = tmp_path_factory.mktemp("reader")
    photos = folder / "photos"
    photos.mkdir()
    names = ["a.jpg", "b.jpg", *(f"{number}.jpg" for number in range(2, COUNT))]
    for number, name in enumerate(names):
        (photos / name).write_bytes(grainy_jpeg(number))
    cameras = [("north", "south", "gate", "yard")[number % 4] for number in range(COUNT)]
    scores = [(number + 30) / (COUNT + 30) for number in range(COUNT)]
    pl.DataFrame({"path": names, "camera": cameras, "score": scores}).write_parquet(photos / "metadata.parquet")
    refresh(folder / "workspace", photos)
    coco = {"images": [{"id": 1, "file_name": "5.jpg"}], "annotations": [{"image_id": 1}]}
    (folder / "coco.json").write_text(json.dumps(coco))
    rows = [f"{number}.jpg,{('cat', 'dog')[number % 2]}" for number in range(6, 26)]
    (folder / "done.csv").write_text("\n".join(["photo,class", *rows]))
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a reader, a copy of `prepared`."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def is_run_here(words: list[str]) -> bool:
    return words[0] in READING | HANDING_OUT and not NEEDS.search(" ".join(words))


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(is_run_here, commands(page)))], ids=lambda p: p.stem
)
def test_commands_that_only_read_or_mark_run_as_shown(page: Path, folder: Path, wtl_here: Wtl) -> None:
    for words in filter(is_run_here, commands(page)):
        done = wtl_here(*words)
        assert done.returncode == 0, (words, done.stderr)
        if "-o" in words:
            assert (folder / words[words.index("-o") + 1]).stat().st_size > 0


def test_the_run_of_the_page_on_labelling_runs_as_shown(folder: Path, wtl: Wtl, wtl_here: Wtl) -> None:
    [words] = [words for words in commands(DOCS / "labelling.md") if words[0] == "run"]
    assert wtl_here("labels", "add", "done.csv", "--column", "photo", "-w", "workspace").returncode == 0
    done = wtl(*words)
    assert done.returncode == 0, done.stderr
    assert not {"6.jpg", "7.jpg"} & {Path(uri).name for uri in ranking(folder / "workspace")["uri"]}


def recipes() -> list[str]:
    """All TOML that is shown, but for files of a site."""
    return [text for page in PAGES for text in blocks(page, "toml") if "workspace =" not in text]


@pytest.mark.parametrize("text", recipes(), ids=lambda text: text.splitlines()[1][:30])
def test_every_recipe_shown_ranks_images(text: str, folder: Path) -> None:
    """With the encoder `pixels`, since the documented one is downloaded, and with ids of this pool."""
    ids = ranking(folder / "workspace")["sample_id"]
    fields = tomllib.loads(text.replace("SAMPLE_ID_1", ids[0]).replace("SAMPLE_ID_2", ids[1]))
    fields["encoder"] = {"name": "pixels"}
    commit = refresh(folder / "w", folder / "photos", recipe=Recipe.model_validate(fields))
    assert 0 < commit.counts.picks <= commit.counts.ranked <= COUNT
    quotas = fields.get("selection", {}).get("quotas", [])
    by_uri = pl.read_parquet("photos/metadata.parquet").with_columns(uri=str(folder / "photos") + "/" + pl.col("path"))
    picks = ranking(folder / "w").head(commit.counts.picks).join(by_uri, on="uri", how="left")
    if quotas:
        cameras = picks["camera"].to_list()
        assert cameras.count("north") >= max(1, 0.2 * len(cameras) - 1)
        assert "gate" not in cameras


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_runs_as_shown(page: Path, folder: Path) -> None:
    """The blocks of a page as one script."""
    parts = blocks(page, "python")
    (folder / "page.py").write_text("\n".join(parts))
    runpy.run_path("page.py", run_name="__main__")
    if "to-label" in parts[0]:
        assert len(list((folder / "to-label").iterdir())) == 20


def test_the_front_page_shows_the_commands_of_every_day() -> None:
    assert {words[0] for words in commands(README)} >= READING | {"run", "up"}
