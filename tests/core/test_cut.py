import csv
import io

from wtl_core import cut


def test_cells_that_a_spreadsheet_would_run_are_disarmed() -> None:
    row = dict.fromkeys(cut.COLUMNS, 1.0) | {"uri": "=cmd|'calc'!A0", "sample_id": "@x", "duplicate_of": None}
    [back] = csv.DictReader(io.StringIO(cut.to_csv([row])))
    assert back["uri"] == "'=cmd|'calc'!A0"
    assert back["sample_id"] == "'@x"
    assert back["duplicate_of"] == ""


def test_names_with_newlines_and_quotes_survive() -> None:
    row = dict.fromkeys(cut.COLUMNS, 1) | {"uri": 'two\nlines "quoted",\r\n', "sample_id": "a", "duplicate_of": "b"}
    [back] = csv.DictReader(io.StringIO(cut.to_csv([row]), newline=""))
    assert back["uri"] == row["uri"]
