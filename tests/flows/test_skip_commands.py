"""`wtl skip`, its list and its undo as a person or a script calls them."""

import csv
import io
import os
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import result_of, write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of 0.jpg to 11.jpg."""
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    return tmp_path / "w"


def test_images_are_skipped_listed_and_taken_back(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    (tmp_path / "t.csv").write_text("path,label\n3.jpg,cat\n")
    assert wtl_here("labels", "add", tmp_path / "t.csv", "-w", work).returncode == 0
    done = wtl_here("skip", "1.jpg", "photos/2.jpg", "3.jpg", "--because", "unusable", "-w", work)
    told = "3 images are skipped as unusable; the next picks move up, and `wtl run` ranks anew\n"
    assert done.stdout == told
    assert done.stderr == "1 of them has a label, which does not count while the image is skipped\n"
    again = result_of(wtl_here("skip", "--because", "redundant", "1.jpg", "-w", work, "--json"))
    assert again == {"named": 1, "copies": 0, "changed": 1, "labelled": 0, "entry": 3}
    shown = list(csv.DictReader(io.StringIO(wtl_here("skip", "list", "-w", work).stdout)))
    reasons = {"1.jpg": "redundant", "2.jpg": "unusable", "3.jpg": "unusable"}
    assert {Path(row["uri"]).name: row["reason"] for row in shown} == reasons
    told_now = result_of(wtl_here("skip", "list", "-w", work, "--json"))
    assert (told_now["skipped"], {row["entry"] for row in told_now["images"]}) == (3, {2, 3})
    assert wtl_here("skip", "list", "-w", work, "-o", tmp_path / "s.parquet").stderr.startswith("3 skipped: ")
    assert pl.read_parquet(tmp_path / "s.parquet").height == 3
    status = wtl_here("status", "-w", work).stdout
    assert "3 images are skipped since; `wtl run` ranks the rest anew." in status
    assert "skipped      2 unusable, 1 redundant\n" in status
    assert wtl_here("skip", "undo", "-w", work).stdout == "1 image is skipped no more; `wtl run` ranks anew\n"
    undone = result_of(wtl_here("skip", "undo", "3.jpg", "1.jpg", "-w", work, "--json"))
    assert (undone["changed"], undone["labelled"]) == (2, 1)


def test_what_the_other_commands_say_of_skipped_images(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    file = tmp_path / "b.csv"
    assert wtl_here("export", "--new", "4", "-o", file, "-w", work).returncode == 0
    with file.open() as rows:
        first, *_ = [row["uri"] for row in csv.DictReader(rows)]
    assert wtl_here("skip", first, "--because", "redundant", "-w", work).returncode == 0
    assert wtl_here("batches", "-w", work).stdout.endswith("4 images: 0 are labelled, 1 skipped, 3 are out\n")
    assert "1 image is left out, labelled or skipped since" in wtl_here("cut", "--at", "3", "-w", work).stderr
    added = wtl_here("labels", "add", file, "-w", work)
    assert "1 of them is skipped, and so counts as not labelled until `wtl skip undo`" in added.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("1.jpg",), "Missing option '--because'"),
        (("1.jpg", "--because", "ugly"), "'ugly' is not one of 'unusable', 'redundant'"),
        (("--because", "unusable"), "Missing argument 'IMAGE...'"),
        (("no.jpg", "--because", "unusable"), "expected names of one image each, found others ('no.jpg')"),
        (("./list", "--because", "unusable"), "found others ('./list')"),
        (("undo",), "expected skipped images, found none"),
    ],
)
def test_wrong_use_is_told_and_enters_nothing(work: Path, wtl_here: Wtl, arguments: tuple[str, ...], told: str) -> None:
    refused = wtl_here("skip", *arguments, "-w", work)
    assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr
    assert result_of(wtl_here("skip", "list", "-w", work, "--json")) == {"skipped": 0, "images": []}


def test_a_name_that_is_not_utf_8_is_that_of_its_image(tmp_path: Path, wtl_here: Wtl) -> None:
    photos = write_pictures(tmp_path / "photos", count=12)
    name = os.fsdecode(b"caf\xe9.jpg")
    (photos / "1.jpg").rename(photos / name)
    refresh(tmp_path / "w", photos)
    for given in (name, f"photos/{name}", photos / name):
        skipped = result_of(wtl_here("skip", given, "--because", "redundant", "-w", tmp_path / "w", "--json"))
        assert skipped["changed"] == 1
        undone = result_of(wtl_here("skip", "undo", given, "-w", tmp_path / "w", "--json"))
        assert undone["changed"] == 1
    (tmp_path / "names.txt").write_text("caf%E9.jpg\n")
    assert wtl_here("labels", "add", tmp_path / "names.txt", "-w", tmp_path / "w").returncode == 0
    assert result_of(wtl_here("similar", name, "-w", tmp_path / "w", "--json"))
    assert wtl_here("labels", "undo", name, "-w", tmp_path / "w").returncode == 0
