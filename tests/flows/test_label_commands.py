"""`wtl labels add`, `list` and `undo` as a person or a script calls them."""

import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import TINTS, make_tinted, result_of, write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A workspace of 0.jpg to 7.jpg."""
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=8))
    return tmp_path / "w"


def test_an_addition_says_what_it_entered_and_what_it_did_not(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    file = tmp_path / "t.csv"
    file.write_text("path,label\n1.jpg,cat\n2.jpg,empty\n3.jpg,\nnowhere.jpg,dog\n")
    refused = wtl_here("labels", "add", file, "-w", work)
    assert refused.returncode == 3
    assert "--partial enters the others" in refused.stderr
    done = wtl_here("labels", "add", file, "-w", work, "--partial")
    assert done.stdout == ("3 named, 2 added to the ledger; `wtl run` ranks the rest anew\nclasses: 1 cat, 1 empty\n")
    assert "1 image is listed without a label and stay" in done.stderr
    assert f"1 name is left out, those of no image or of several: {file}.unmatched.csv" in done.stderr
    file.write_text("path,label\n1.jpg,dog\n2.jpg,dog\n3.jpg,Dog\n")
    assert wtl_here("labels", "add", file, "-w", work).returncode == 3
    again = wtl_here("labels", "add", file, "-w", work, "--rename", "Dog=dog")
    assert again.stdout.startswith("3 named, 1 added to the ledger, 2 corrected; ")
    wrong = wtl_here("labels", "add", file, "-w", work, "--rename", "Dog")
    assert (wrong.returncode, "expected OLD=NEW, found 'Dog'" in wrong.stderr) == (2, True)


def test_files_without_classes_say_so_and_what_classes_would_be_good_for(
    work: Path, tmp_path: Path, wtl_here: Wtl
) -> None:
    (tmp_path / "names.txt").write_text("1.jpg\n2.jpg\n")
    done = wtl_here("labels", "add", tmp_path / "names.txt", "-w", work)
    assert done.stdout == "2 named, 2 added to the ledger; `wtl run` ranks the rest anew\n"
    assert "the classes of all of them are unknown: the next picks still differ from these images" in done.stderr
    (tmp_path / "t.jsonl").write_text('{"path": "1.jpg", "tags": ["cat", "dog"]}\n')
    told = result_of(wtl_here("labels", "add", tmp_path / "t.jsonl", "-w", work, "--json"))
    assert (told["completed"], told["classes"], told["entry"]) == (1, {"cat": 1, "dog": 1}, 2)


def test_labels_are_listed_in_every_form_and_taken_back(work: Path, tmp_path: Path, wtl_here: Wtl) -> None:
    file = tmp_path / "t.json"
    file.write_text(json.dumps([{"path": "1.jpg", "label": ["a", "b"]}, {"path": "2.jpg", "label": []}, "3.jpg"]))
    assert wtl_here("labels", "add", file, "-w", work).returncode == 0
    (tmp_path / "names.txt").write_text("3.jpg\n")
    assert wtl_here("labels", "add", tmp_path / "names.txt", "-w", work).returncode == 0
    shown = {
        Path(row["uri"]).name: row for row in csv.DictReader(io.StringIO(wtl_here("labels", "list", "-w", work).stdout))
    }
    assert {name: row["classes"] for name, row in shown.items()} == {
        "1.jpg": '["a", "b"]',
        "2.jpg": "empty",
        "3.jpg": "",
    }
    assert {name: row["entry"] for name, row in shown.items()} == {"1.jpg": "1", "2.jpg": "1", "3.jpg": "2"}
    told = result_of(wtl_here("labels", "list", "-w", work, "--json"))
    assert told["labelled"] == 3
    assert sorted(str(row["classes"]) for row in told["labels"]) == ["None", "['a', 'b']", "[]"]
    assert result_of(wtl_here("labels", "list", "-w", work, "-o", tmp_path / "l.parquet", "--json"))["labelled"] == 3
    assert pl.read_parquet(tmp_path / "l.parquet")["classes"].dtype == pl.List(pl.String)
    refused = wtl_here("labels", "list", "-w", work, "-o", tmp_path / "l.xlsx")
    assert (refused.returncode, "expected an ending out of" in refused.stderr) == (2, True)
    one = wtl_here("labels", "undo", "3.jpg", "-w", work)
    assert one.stdout == "1 label taken back; `wtl run` ranks their images anew\n"
    undone = result_of(wtl_here("labels", "undo", "-w", work, "--json"))
    assert undone == {"entry": 1, "origin": str(file), "samples": 2, "labelled": 0}
    assert wtl_here("labels", "undo", "-w", work).returncode == 2
    assert wtl_here("labels", "undo", "1.jpg", "--entry", "1", "-w", work).returncode == 2
    assert ledger.sample_ids(ledger.read(Store(str(work))), "labelled") == []


def test_doubtful_labels_are_shown_with_a_reason_and_written_whole(tmp_path: Path, wtl_here: Wtl) -> None:
    (tmp_path / "photos").mkdir()
    lines = ["path,label"]
    for number, colour in enumerate(TINTS):
        for seed in range(8):
            (tmp_path / "photos" / f"{colour}-{seed}.png").write_bytes(make_tinted(100 * number + seed, TINTS[colour]))
            lines.append(f"{colour}-{seed}.png,{'blue' if (colour, seed) == ('amber', 2) else colour}")
    refresh(tmp_path / "w", tmp_path / "photos")
    none = wtl_here("labels", "check", "-w", tmp_path / "w")
    assert (none.returncode, "found 0 of 0 labels" in none.stderr) == (2, True)
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert wtl_here("labels", "add", tmp_path / "t.csv", "-w", tmp_path / "w").returncode == 0
    shown = wtl_here("labels", "check", "-w", tmp_path / "w")
    assert "labelled blue; " in shown.stdout
    assert "of 5 neighbours and the probe say amber" in shown.stdout
    assert shown.stderr == "1 of 24 labels are doubtful\n"
    told = result_of(wtl_here("labels", "check", "-w", tmp_path / "w", "--json"))
    assert (told["checked"], told["count"], told["doubtful"][0]["suggestion"]) == (24, 1, "amber")
    file = tmp_path / "doubtful.csv"
    written = result_of(wtl_here("labels", "check", "-w", tmp_path / "w", "-o", file, "--json"))
    assert written["output"] == str(file)
    assert pl.read_csv(file)["label"].to_list() == ["blue"]
    corrected = wtl_here("labels", "add", file, "--class-column", "suggestion", "-w", tmp_path / "w")
    assert corrected.stdout.startswith("1 named, 0 added to the ledger, 1 corrected; ")
    assert wtl_here("labels", "check", "-w", tmp_path / "w").stderr == "0 of 24 labels are doubtful\n"
