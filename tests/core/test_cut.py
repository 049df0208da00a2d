import csv
import io
import json
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import make_jpeg
from tests.near_duplicates import write_near_duplicates
from tests.plain_refresh import ranking, refresh
from wtl_core.errors import ConfigError
from wtl_core.labelling import cut, labels, table_files
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


def test_cells_that_a_spreadsheet_would_run_are_disarmed() -> None:
    row = dict.fromkeys(cut.COLUMNS, 1.0) | {"uri": "=cmd|'calc'!A0", "sample_id": "@x", "duplicate_of": None}
    [back] = csv.DictReader(io.StringIO(table_files.to_csv(pl.DataFrame([row]))))
    assert back["uri"] == "'=cmd|'calc'!A0"
    assert back["sample_id"] == "'@x"
    assert back["duplicate_of"] == ""


def test_a_pick_names_the_near_duplicates_that_it_replaces(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for seed in range(6):
        (source / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    (source / "twin.jpg").write_bytes(make_jpeg(3) + b"\0")
    refresh(tmp_path / "w", source)
    picks = cut.run(Store(str(tmp_path / "w")), "100%").rows
    twins = [pick["sample_id"] for pick in picks if Path(pick["uri"]).name in ("3.jpg", "twin.jpg")]
    assert [pick["replaces"] for pick in picks if pick["sample_id"] == twins[0]] == [[twins[1]]]
    [row] = [
        row
        for row in csv.DictReader(io.StringIO(table_files.to_csv(pl.DataFrame(picks, infer_schema_length=None))))
        if row["sample_id"] == twins[0]
    ]
    assert row["replaces"] == twins[1]


def test_a_pick_names_its_near_duplicate_group_in_the_last_column(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_near_duplicates(source, pairs=2, alone=2)
    refresh(tmp_path / "w", source)
    picks = cut.run(Store(str(tmp_path / "w")), "100%").rows
    ids = {Path(pick["uri"]).name: pick["sample_id"] for pick in picks}
    groups = {Path(pick["uri"]).name: pick["near_group"] for pick in picks}
    for seed in (0, 1):
        smallest = min(ids[f"{seed}-90.jpg"], ids[f"{seed}-95.jpg"])
        assert groups[f"{seed}-90.jpg"] == groups[f"{seed}-95.jpg"] == smallest
    assert groups["2-90.jpg"] is groups["3-90.jpg"] is None
    rows = list(csv.DictReader(io.StringIO(table_files.to_csv(pl.DataFrame(picks, infer_schema_length=None)))))
    assert list(rows[0])[-1] == "near_group"
    assert sorted(row["near_group"] for row in rows)[:2] == ["", ""]


def test_a_distance_that_is_not_known_is_null_and_an_empty_cell(tmp_path: Path) -> None:
    images = {"image": [make_jpeg(seed) for seed in range(4)], "wanted": [1, 0, 0, 0]}
    (tmp_path / "source").mkdir()
    pl.DataFrame(images).write_parquet(tmp_path / "source" / "images.parquet")
    weights = {"encoder": {"name": "pixels"}, "selection": {"weights": [{"column": "wanted"}]}}
    refresh(tmp_path / "w", tmp_path / "source", recipe=Recipe.model_validate(weights))
    picks = cut.run(Store(str(tmp_path / "w")), "100%").rows
    assert [pick["radius"] is None for pick in picks] == [False, True, True, True]
    assert json.loads(json.dumps(picks, allow_nan=False)) == picks
    rows = list(csv.DictReader(io.StringIO(table_files.to_csv(pl.DataFrame(picks, infer_schema_length=None)))))
    assert [row["radius"] == "" for row in rows] == [False, True, True, True]


def test_a_ranking_of_before_there_were_reasons_is_cut_with_none(source: Path, tmp_path: Path) -> None:
    commit = refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    before = cut.run(store, "10")
    file = tmp_path / "w" / commit.selection / "ranking.parquet"
    pl.read_parquet(file).drop("why").write_parquet(file)
    assert cut.run(store, "10").rows == before.rows
    assert set(before.table["why"]) == {None}


def test_what_was_labelled_since_the_last_run_is_left_out(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    before = cut.run(store, "10")
    assert before.left_out == 0
    ledger.append(store, "labelled", [pick["sample_id"] for pick in before.rows[:4]])
    ledger.append(store, "exported", [before.rows[4]["sample_id"]])
    after = cut.run(store, "10")
    assert after.left_out == 4
    assert after.rows[:6] == before.rows[4:]
    assert after.table.height == 10
    assert cut.run(store, "100%").table.height == 60
    with pytest.raises(ConfigError, match="at most the 60 images"):
        cut.run(store, "61")
    ledger.append(store, "labelled", ranking(tmp_path / "w")["sample_id"].to_list())
    done = cut.run(store, "5%")
    assert (done.rows, done.left_out, done.table.columns) == ([], 64, list(cut.COLUMNS))


def test_picks_are_written_as_the_ending_says(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    picks = cut.run(store, "10")
    ids = [row["sample_id"] for row in picks.rows]
    for ending in table_files.ENDINGS:
        file = tmp_path / f"picks{ending.upper()}"
        file.write_text("an older file")
        table_files.write(picks.table, file)
        if ending in (".csv", ".tsv"):
            separator = "," if ending == ".csv" else "\t"
            assert file.read_text() == table_files.to_csv(picks.table, separator=separator)
            rows = list(csv.DictReader(io.StringIO(file.read_text()), delimiter=separator))
        elif ending == ".parquet":
            assert pl.read_parquet(file).equals(picks.table)
            rows = pl.read_parquet(file).to_dicts()
        else:
            text = file.read_text()
            rows = json.loads(text) if ending == ".json" else [json.loads(line) for line in text.splitlines()]
            assert rows == picks.rows
        assert [row["sample_id"] for row in rows] == ids
        assert labels.add(store, file).found == 10
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == sorted(
        f"picks{ending.upper()}" for ending in table_files.ENDINGS
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("picks.xlsx", r"out of \.csv, \.tsv, \.json, \.jsonl, \.parquet, found \.xlsx"),
        ("picks", "found none; name another file"),
        ("nowhere/picks.csv", "expected a folder to write into, found none"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_and_nothing_is_made(tmp_path: Path, name: str, told: str) -> None:
    picks = cut.Picks(pl.DataFrame(schema=dict.fromkeys(cut.COLUMNS, pl.String)), 0)
    for refuse in (table_files.check_output, lambda file: table_files.write(picks.table, file)):
        with pytest.raises(ConfigError, match=told):
            refuse(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_write_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picks = cut.Picks(pl.DataFrame(schema=dict.fromkeys(cut.COLUMNS, pl.String)), 0)
    (tmp_path / "picks.csv").write_text("older")

    def fail(number: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(ConfigError, match="Input/output error; name another file"):
        table_files.write(picks.table, tmp_path / "picks.csv")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["older"]


def test_names_with_newlines_and_quotes_survive() -> None:
    row = dict.fromkeys(cut.COLUMNS, 1) | {"uri": 'two\nlines "quoted",\r\n', "sample_id": "a", "duplicate_of": "b"}
    [back] = csv.DictReader(io.StringIO(table_files.to_csv(pl.DataFrame([row])), newline=""))
    assert back["uri"] == row["uri"]
