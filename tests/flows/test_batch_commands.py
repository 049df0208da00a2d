"""`wtl export` and `wtl batches` as a person or a script calls them."""

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import result_of, write_pictures
from tests.cvat_stub import TOKEN, serve
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of 12 images."""
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
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
    today = datetime.now(UTC).date()
    assert shown.stdout.endswith(f"  5 images, 1 at random: 5 are labelled (the last on {today}), 0 are out\n")
    [told] = result_of(wtl_here("batches", "-w", work, "--json"))["batches"]
    assert (told["batch"], told["images"], told["controls"], told["back"], told["out"]) == ("batch-001", 5, 1, 5, 0)


def test_a_batch_whose_file_cannot_be_written_says_how_it_can_be(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    call = ("export", "--new", "5", "-w", work, "-o")
    refused = wtl_here(*call, tmp_path / f"{'n' * 252}.csv")
    assert refused.returncode == 2
    assert ".csv: expected a file to write: File name too long; name another file" in refused.stderr
    assert ledger.length(Store(str(work))) == 0
    failed = wtl_here(*call, "/proc/b.csv")  # a folder that takes no files, of root neither
    assert failed.returncode == 2
    assert "batch-001 is recorded, and the same call with `--name batch-001` writes it" in failed.stderr
    assert wtl_here(*call, tmp_path / "b.csv", "--name", "batch-001").returncode == 0
    assert (tmp_path / "b.csv").read_text().count("batch-001") == 5


def test_the_rest_goes_to_label_studio_and_then_nothing_is_left(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    assert wtl_here("batches", "-w", work).stderr == "no batch has been handed out; `wtl export` does\n"
    file = tmp_path / "tasks.json"
    call = ("export", "--at", "100%", "-w", work, "--json", "--format", "label-studio", "-o", file)
    told = result_of(wtl_here(*call, "--name", "all", "--url", f"{tmp_path}=http://host"))
    assert told["files"] == [told["output"]] == [str(file)]
    assert told == told | {"batch": "all", "images": 12, "controls": 0, "is_new": True, "lost": []}
    assert json.loads(file.read_text())[0]["data"]["image"].startswith("http://host/photos/")
    nothing = wtl_here("export", "--new", "5", "-o", tmp_path / "none.csv", "-w", work)
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "nothing is left to hand out there" in nothing.stderr
    assert not (tmp_path / "none.csv").exists()


def test_a_batch_becomes_a_task_of_cvat(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    with serve() as stub:
        call = ("export", "--new", "5", "-w", work, "--url", f"{tmp_path}=https://host")
        call = (*call, "-o", f"{stub.url}/projects/12?page=1")
        wrong = wtl_here(*call, env={"CVAT_ACCESS_TOKEN": TOKEN})
        assert (wrong.returncode, "expected --format cvat, no --link" in wrong.stderr) == (2, True)
        call = (*call, "--format", "cvat")
        untold = wtl_here(*call)
        assert (untold.returncode, untold.stderr[:37]) == (2, "wtl: CVAT_ACCESS_TOKEN: expected an a")
        done = wtl_here(*call, env={"CVAT_ACCESS_TOKEN": TOKEN})
        assert done.stderr == f"batch-001 is {stub.url}/tasks/70: 5 images\n"
        told = result_of(wtl_here(*call, "--json", env={"CVAT_ACCESS_TOKEN": TOKEN}))
        assert (told["output"], told["files"], told["is_new"]) == (f"{stub.url}/tasks/70", [told["output"]], False)
        assert stub.tasks[0]["asked"]["remote_files"][0].startswith("https://host/photos/")


def test_a_batch_says_when_it_is_due_and_that_it_is_overdue(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    call = ("export", "--new", "5", "-o", tmp_path / "b.csv", "-w", work)
    done = wtl_here(*call, "--due", "2099-12-01")
    assert done.stderr == f"batch-001 is {tmp_path / 'b.csv'}: 5 images, due 2099-12-01\n"
    assert result_of(wtl_here(*call, "--due", "3d", "--json"))["due"] == "2099-12-01"
    assert wtl_here("batches", "-w", work).stdout.endswith("5 images: 0 are labelled, 5 are out, due 2099-12-01\n")
    file = work / "ledger" / "000001.parquet"
    pl.read_parquet(file).with_columns(due=pl.lit("2026-01-02")).write_parquet(file)
    assert wtl_here("batches", "-w", work).stdout.endswith("5 are out, overdue since 2026-01-02\n")
    assert result_of(wtl_here("batches", "-w", work, "--json"))["batches"][0]["is_overdue"]


def test_wrong_calls_are_refused_and_nothing_is_entered(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    for words in (
        ("-o", tmp_path / "b.csv"),
        ("--at", "5%", "--new", "3", "-o", tmp_path / "b.csv"),
        ("--new", "3", "-o", tmp_path / "b.xlsx"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--format", "label-studio"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--url", "x"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--control", "200%"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--presign", "12"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--presign", "12h"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--link"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--due", "soon"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--due", "2026-01-01"),
        ("--new", "3", "-o", tmp_path / "b.csv", "--url", "/elsewhere/="),
        ("--new", "3", "-o", tmp_path, "--format", "folder"),
    ):
        assert wtl_here("export", *words, "-w", work).returncode == 2, words
    assert ledger.length(Store(str(work))) == 0


def test_a_folder_of_links_is_written_and_named_again_by_its_batch(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    call = ("export", "--new", "4", "-w", work, "--format", "folder", "--link")
    done = wtl_here(*call, "-o", tmp_path / "out")
    assert done.stderr == f"batch-001 is {tmp_path / 'out'}: 4 images\n"
    assert len([file for file in (tmp_path / "out").iterdir() if file.is_symlink()]) == 4
    again = wtl_here(*call, "-o", tmp_path / "out")
    assert again.returncode == 2
    assert "expected a new or empty folder" in again.stderr
    told = result_of(wtl_here(*call, "-o", tmp_path / "again", "--name", "batch-001", "--json"))
    assert (told["batch"], told["is_new"], told["files"]) == ("batch-001", False, [str(tmp_path / "again")])


def test_images_in_archives_are_refused_by_a_tool_s_list_and_nothing_is_entered(
    source: Path, tmp_path: Path, wtl_here: Wtl
) -> None:
    refresh(tmp_path / "w", source)
    done = wtl_here("export", "--new", "60", "-w", tmp_path / "w", "--format", "coco", "-o", tmp_path / "c.json")
    assert done.returncode == 2
    assert "--format folder, yolo or webdataset copies them" in done.stderr
    assert ledger.length(Store(str(tmp_path / "w"))) == 0
