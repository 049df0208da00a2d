"""One `wtl run` lists each source once, although the command plans before the flow does."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import result_of
from tests.flows.conftest import Wtl
from wtl_core.refresh import readmission
from wtl_core.shards import discover


def test_a_run_from_the_command_line_lists_each_source_once(
    wtl: Wtl, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **named: object) -> object:
            calls[name] += 1
            return original(*given, **named)

        return call

    monkeypatch.setattr(discover, "list_source", counted("list_source", discover.list_source))
    monkeypatch.setattr(readmission, "readable_again", counted("readable_again", readmission.readable_again))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_text("no image")
    done = wtl("run", source, tmp_path / "more", "-w", tmp_path / "w", "--encoder", "pixels", "--json")
    assert result_of(done)["samples"] == 64
    assert calls == {"list_source": 2, "readable_again": 1}
