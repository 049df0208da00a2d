"""The engine as a setting: one that is not installed or not known is refused in one line, before anything is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_RAY = """
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = classmethod(
    lambda cls, name, path=None, target=None: None if name == "ray" else find(name, path, target)
)
"""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"WTL_ENGINE": "ray"},
            "wtl: WTL_ENGINE=ray: expected the package ray, found none; pip install 'wtl[ray]', or unset WTL_ENGINE",
        ),
        ({"WTL_ENGINE": "spark"}, "wtl: environment: WTL_ENGINE='spark': "),
        ({"WTL_RAY_ADDRESS": "ray://head:10001"}, "wtl: environment: WTL_RAY_ADDRESS='ray://head:10001': "),
    ],
)
def test_an_engine_that_is_not_there_is_refused_in_one_line(
    tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_RAY)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), **settings}
    command = [sys.executable, "-m", "flows.cli.main", "run", "/nowhere", "-w", str(tmp_path / "w")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("run ")]
    assert len(said) == 1, done.stderr
    assert said[0].startswith(message)
    assert not (tmp_path / "w").exists()
