import json
import os
from pathlib import Path

import pytest

from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.workspace import commits
from wtl_core.workspace.lease import LEASE
from wtl_core.workspace.marker import MARKER, create_workspace, open_workspace, probe_workspace
from wtl_core.workspace.storage import Store


def test_an_empty_or_missing_folder_can_become_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        create_workspace(probe_workspace(str(folder)))
        assert open_workspace(str(folder)).root == str(folder)


def test_what_a_first_run_killed_early_leaves_does_not_stand_in_the_way(tmp_path: Path) -> None:
    (tmp_path / LEASE).write_text("{}")
    (tmp_path / f"{LEASE}.abc").write_text("{}")
    (tmp_path / ".tmp-1-ab").write_text("")
    create_workspace(probe_workspace(str(tmp_path)))


def test_files_and_other_peoples_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, told in ((tmp_path / "file", "found a file"), (tmp_path, "'file' is one")):
        with pytest.raises(ConfigError, match=told):
            probe_workspace(str(place))
    with pytest.raises(
        ConfigError, match=r"expected a workspace, found none .* name the one that `wtl run SOURCE` made"
    ):
        open_workspace(str(tmp_path))


def test_a_path_that_is_not_utf_8_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for enter in (probe_workspace, open_workspace):
        with pytest.raises(ConfigError, match=r"caf\\udce9': expected a path of the workspace in UTF-8"):
            enter(str(folder))
    assert not folder.exists()


def test_a_workspace_nearby_is_named_to_who_opens_another_folder(tmp_path: Path) -> None:
    create_workspace(probe_workspace(str(tmp_path / "w")))
    (tmp_path / "w" / "pool").mkdir()
    for place in (tmp_path, tmp_path / "w" / "pool"):
        with pytest.raises(ConfigError, match=rf"found none \(wtl\.json is missing\); did you mean {tmp_path}/w$"):
            open_workspace(str(place))
    with pytest.raises(ConfigError, match="name the one that"):
        open_workspace(str(tmp_path / "nowhere"))


def test_what_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"found the file {tmp_path / 'file'}"):
        create_workspace(Store(str(tmp_path / "file" / "w")))
    with pytest.raises(ConfigError, match=r"found that /proc cannot: .*; change its permissions"):  # not even by root
        create_workspace(Store("/proc/w"))
    create_workspace(Store(str(tmp_path / "w")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "w"]
    assert [path.name for path in (tmp_path / "w").iterdir()] == [MARKER]


def test_a_newer_format_and_a_broken_marker_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text(json.dumps({"format": 99}))
    with pytest.raises(ConfigError, match="written by a newer wtl"):
        probe_workspace(str(tmp_path))
    (tmp_path / MARKER).write_text("what")
    with pytest.raises(CorruptArtifactError, match="restore it"):
        probe_workspace(str(tmp_path))


def test_the_highest_commit_is_now_and_a_broken_one_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert commits.latest(store) is None
    store.write_bytes("refreshes/000002.json", b"{}")
    with pytest.raises(CorruptArtifactError, match=r"000002\.json"):
        commits.latest(store)
