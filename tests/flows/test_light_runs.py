"""A run whose work is light does without Prefect where no server would show it, and its result is the same."""

import shutil
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from flows.serving import flow_process
from tests.conftest import result_of, write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import ranking, refresh
from wtl_core.recipe.recipe import build_recipe
from wtl_core.refresh import planning
from wtl_core.workspace.storage import Store


def test_a_second_run_imports_no_prefect_and_ranks_as_the_flow_does(
    wtl: Wtl, wtl_alone: Wtl, source: Path, tmp_path: Path
) -> None:
    refresh(tmp_path / "a", source)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    by_flow = result_of(wtl("run", "-w", tmp_path / "a", "--budget", "5", "--json"))
    imports = wtl_alone("run", "-w", tmp_path / "b", "--budget", "5", "--json", env={"PYTHONPROFILEIMPORTTIME": "1"})
    plainly = result_of(imports)
    imported = {line.rpartition("| ")[2].strip() for line in imports.stderr.splitlines()}
    assert "torch" in imported
    assert "prefect" not in imported
    assert_frame_equal(ranking(tmp_path / "a"), ranking(tmp_path / "b"))
    theirs = ("seconds", "report", "selection", "workspace")
    kept = [{key: value for key, value in found.items() if key not in theirs} for found in (by_flow, plainly)]
    assert kept[0] == kept[1]


def test_light_work_uses_the_last_encoder_reads_little_and_lies_on_local_disks(tmp_path: Path, endpoint: str) -> None:
    root, folder, more = tmp_path / "w", write_pictures(tmp_path / "photos", count=12), tmp_path / "more"

    def is_light(*sources: Path, encoder: str = "pixels") -> bool:
        recipe = build_recipe({"encoder": {"name": encoder}, "selection": {"budget": 3}}, name="test")
        return planning.plan(Store(str(root)), [str(source) for source in sources], recipe).is_light

    assert not is_light(folder)  # the first
    refresh(root, folder)
    assert is_light()
    write_pictures(more, count=3)
    assert is_light(more)
    assert not is_light(encoder="ssl")
    (tmp_path / "uris.txt").write_text("s3://team/a.jpg\n")
    assert not is_light(tmp_path / "uris.txt")
    (more / "large.tar").write_bytes(bytes(2**26 + 1))
    assert not is_light(more)


def test_a_server_that_is_named_or_kept_shows_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server_address: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WTL_STATE", str(tmp_path / "state"))
    assert not flow_process.is_watched()
    hints = {
        "home/profiles.toml": f'active = "team"\n[profiles.team]\nPREFECT_API_URL = "{server_address}"\n',
        "prefect.toml": f'[api]\nurl = "{server_address}"\n',
        "pyproject.toml": f'[tool.prefect.api]\nurl = "{server_address}"\n',
        ".env": f"PREFECT_API_URL={server_address}\n",
    }
    (tmp_path / "home").mkdir()
    for name, text in hints.items():
        (tmp_path / name).write_text(text)
        assert flow_process.is_watched(), name
        (tmp_path / name).write_text('[project]\nname = "images"\ndependencies = ["prefect"]\n')
        assert not flow_process.is_watched(), name
    monkeypatch.setenv("PREFECT_API_URL", server_address)
    assert flow_process.is_watched()
