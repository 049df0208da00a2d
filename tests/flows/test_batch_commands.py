"""`wtl export` and `wtl batches` as a person or a script calls them."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import make_jpeg, result_of
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of 12 images."""
    (tmp_path / "photos").mkdir()
    for number in range(12):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(make_jpeg(number))
    refresh(tmp_path / "w", tmp_path / "photos")
    return tmp_path / "w"


def test_a_batch_is_handed_out_once_and_shown(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    file = tmp_path / "b.csv"
    call = ("export", "--new", "5", "--control", "20%", "-o", file, "-w", work)
    dry = wtl_here(*call, "--dry-run")
    assert dry.stderr == f"batch-001 would be {file}: 5 images, 1 of them at random\n"
    assert not file.exists()
    assert wtl_here(*call).stderr == f"batch-001 is {file}: 5 images, 1 of them at random\n"
    before = file.read_bytes()
    file.unlink()
    assert wtl_here(*call).stderr.startswith("batch-001 was handed out before, and is again ")
    assert file.read_bytes() == before
    assert ledger.length(Store(str(work))) == 1
    with file.open() as rows:
        assert [row["is_control"] for row in csv.DictReader(rows)].count("True") == 1
    assert wtl_here("labels", "add", file, "-w", work).returncode == 0
    shown = wtl_here("batches", "-w", work)
    assert shown.stdout.endswith("  5 images, 1 at random: 5 are labelled, 0 are out\n")
    [told] = result_of(wtl_here("batches", "-w", work, "--json"))["batches"]
    assert (told["batch"], told["images"], told["controls"], told["back"], told["out"]) == ("batch-001", 5, 1, 5, 0)


def test_the_rest_goes_to_label_studio_and_then_nothing_is_left(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    assert wtl_here("batches", "-w", work).stderr == "no batch has been handed out; `wtl export` does\n"
    file = tmp_path / "tasks.json"
    call = ("export", "--at", "100%", "-w", work, "--json", "--format", "label-studio", "-o", file)
    told = result_of(wtl_here(*call, "--name", "all", "--url", f"{tmp_path}=http://host"))
    assert told == {"batch": "all", "images": 12, "controls": 0, "is_new": True, "output": str(file)}
    assert json.loads(file.read_text())[0]["data"]["image"].startswith("http://host/photos/")
    nothing = wtl_here("export", "--new", "5", "-o", tmp_path / "none.csv", "-w", work)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing is left to hand out there" in nothing.stderr
    assert not (tmp_path / "none.csv").exists()


def test_progress_says_why_labels_do_not_count_for_the_draw_and_what_to_do(
    work: Path, tmp_path: Path, wtl_here: Wtl
) -> None:
    call = ("export", "--new", "6", "--control", "6", "-o", tmp_path / "b.csv", "-w", work)
    assert wtl_here(*call).returncode == 0
    with (tmp_path / "b.csv").open() as rows:
        ids = [row["sample_id"] for row in csv.DictReader(rows)]
    ledger.append(Store(str(work)), "labelled", [*ids[:2], *ids[3:]], classes=[["a"]] * 5)
    shown = wtl_here("progress", "-w", work).stdout
    assert shown.startswith("5 images are labelled; of 5 the classes are known, 2 are a random draw of the pool.\n")
    assert "3 labelled images behind it will count once 1 more is labelled: label the 1 that is handed out.\n" in shown
    ledger.append(Store(str(work)), "labelled", ids[2:3])
    shown = wtl_here("progress", "-w", work).stdout
    assert "of 5 the classes are known, 5 are a random draw of the pool.\n" in shown
    assert "1 image of that draw is left out: no class of it is known.\n" in shown


def test_wrong_calls_are_refused_and_nothing_is_entered(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    for words in (
        ("-o", tmp_path / "b.csv"),
        ("--at", "5%", "--new", "3", "-o", tmp_path / "b.csv"),
        ("--new", "3", "-o", tmp_path / "b.xlsx"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--format", "label-studio"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--url", "x"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--control", "200%"),
    ):
        assert wtl_here("export", *words, "-w", work).returncode == 2, words
    assert ledger.length(Store(str(work))) == 0
