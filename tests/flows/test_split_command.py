"""`wtl split`, and the sides that other commands show, as a person or a script calls them."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import result_of, write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

SHARES = ("--train", "70", "--validation", "10", "--test", "20")


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of 40 images."""
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=40))
    return tmp_path / "w"


def test_a_split_is_tried_made_shown_and_taken_back(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    dry = wtl_here("split", *SHARES, "-w", work, "--dry-run")
    assert dry.stdout.startswith("would be     28 train (70.0%), 4 validation (10.0%), 8 test (20.0%)\n")
    assert ledger.length(Store(str(work))) == 0
    made = wtl_here("split", *SHARES, "-w", work, "-o", tmp_path / "s.parquet")
    assert made.stdout.startswith("split        28 train (70.0%), 4 validation (10.0%), 8 test (20.0%)\n")
    assert "0 groups are cut; a random split of images would cut " in made.stdout
    assert "nearest      training image to one of the others: " in made.stdout
    assert pl.read_parquet(tmp_path / "s.parquet")["split"].value_counts().height == 3
    assert wtl_here("split", "-w", work).stdout == made.stdout
    told = result_of(wtl_here("split", "-w", work, "--json"))
    assert told["asked"] == {"train": 70.0, "validation": 10.0, "test": 20.0, "group_by": []}
    assert told["images"] == {"train": 28, "validation": 4, "test": 8}
    assert (told["made"]["leaks"]["cut_groups"], told["on_none"]) == (0, 0)
    assert "split        28 train, 4 validation, 8 test\n" in wtl_here("status", "-w", work).stdout
    assert result_of(wtl_here("split", *SHARES, "-w", work, "--json")) == told
    other = wtl_here("split", "--test", "30", "-w", work)
    assert (other.returncode, "expected 70/10/20, the split that is there, found 70/0/30" in other.stderr) == (2, True)
    undone = wtl_here("split", "--undo", "-w", work)
    assert undone.stdout == "the split of 40 images is taken back; `wtl run` ranks all of them\n"


def test_cut_and_export_take_other_sides_when_asked(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    assert wtl_here("split", *SHARES, "-w", work).returncode == 0
    told = result_of(wtl_here("cut", "--at", "100%", "-w", work, "--json"))
    assert (len(told["picks"]), told["decision"]) == (28, None)
    shown = wtl_here("cut", "--at", "100%", "-w", work)
    assert shown.stderr == (
        "12 images are left out, held out by `wtl split` since the last `wtl run`, which ranks the rest anew\n"
    )
    shown = wtl_here("cut", "--at", "100%", "--split", "test", "-w", work)
    assert [row["split"] for row in csv.DictReader(io.StringIO(shown.stdout))] == ["test"] * 8
    assert shown.stderr == ""
    told = result_of(wtl_here("cut", "--at", "3", "--split", "validation", "-w", work, "--json"))
    assert (len(told["picks"]), told["decision"]) == (3, None)
    file = tmp_path / "tasks.json"
    call = ("export", "--new", "5", "--split", "test", "--format", "label-studio", "-o", file, "-w", work)
    assert wtl_here(*call).stderr == f"batch-001 is {file}: 5 images\n"
    assert {task["data"]["split"] for task in json.loads(file.read_text())} == {"test"}
    wrong = wtl_here(*call, "--control", "10%")
    assert (wrong.returncode, "expected no --control beside --split test" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "expected shares, such as --train 80 --validation 10 --test 10; there is no split to show"),
        (("--train", "80", "--test", "10"), "expected shares that sum to 100"),
        (("--test", "120"), "120.0 is not in the range 0<=x<=100"),
        (("--undo",), "expected a split to take back, found none"),
    ],
)
def test_wrong_use_is_told(work: Path, wtl_here: Wtl, arguments: tuple[str, ...], told: str) -> None:
    refused = wtl_here("split", *arguments, "-w", work)
    assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr
    assert ledger.length(Store(str(work))) == 0


def test_a_column_that_is_not_there_is_told_and_none_can_be_asked_for(work: Path, wtl_here: Wtl) -> None:
    wrong = wtl_here("split", *SHARES, "--group-by", "recording", "-w", work)
    assert (wrong.returncode, "column recording: expected a column of the pool" in wrong.stderr) == (3, True)
    done = result_of(wtl_here("split", *SHARES, "--group-by", "", "-w", work, "--json"))
    assert done["asked"]["group_by"] == []
