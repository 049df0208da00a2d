"""The notebook of the docs: its cells are those of `tests.docs_notebook`, and they run."""

import json
from pathlib import Path

import pytest

from tests.conftest import write_pictures
from tests.docs_notebook import CELLS, MOST_BYTES, NOTEBOOK


def test_what_it_shows_is_what_its_cells_gave() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert tuple("".join(cell["source"]) for cell in cells) == CELLS
    outputs = [cell["outputs"] for cell in cells if cell["cell_type"] == "code"]
    assert all(outputs)
    assert {output["output_type"] for shown in outputs for output in shown} == {"execute_result"}
    assert NOTEBOOK.stat().st_size < MOST_BYTES


def test_its_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "sample", count=200, side=24)
    names: dict[str, object] = {}
    for code in CELLS[1::2]:
        exec(code, names)
    assert len(names["picks"]) == 10  # type: ignore[arg-type]
