"""The engine as a setting: one that is not installed or not known is refused in one line, before anything is read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import settings

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


@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, (1, 0)), ({"WTL_RAY_WORKER_CPUS": "3", "WTL_RAY_WORKER_GPUS": "0.5"}, (3, 0.5))],
)
def test_a_worker_takes_a_core_unless_the_settings_say_otherwise(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, float]
) -> None:
    for name, value in {"WTL_ENGINE": "ray", "WTL_DEVICE": "cpu", **variables}.items():
        monkeypatch.setenv(name, value)
    settings.settings.cache_clear()
    try:
        found = settings.machine()
    finally:
        settings.settings.cache_clear()
    assert (found.engine, found.ray_worker_cpus, found.ray_worker_gpus) == ("ray", *expected)
