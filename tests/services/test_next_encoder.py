"""`wtl train-encoder` and `wtl maintain` on the embedded server, which takes long to start four times."""

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]
Wtl = Callable[..., CompletedProcess[str]]


def test_the_next_encoder_takes_over_and_house_keeping_runs(wtl: Wtl, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "w"
    pixels = wtl("run", source, "-w", work, "--encoder", "pixels", "--json")
    assert pixels.returncode == 0, pixels.stderr
    refused = wtl("train-encoder", "-w", work)
    assert refused.returncode == 2
    assert "wtl run --encoder ssl" in refused.stderr
    (tmp_path / "r.toml").write_text("[encoder]\nepochs = 1\nside_px = 16\nwidth = 8\n")
    first = wtl("run", source, "-w", work, "--recipe", tmp_path / "r.toml", "--json")
    assert first.returncode == 0, first.stderr
    trained = wtl("train-encoder", "-w", work, "--seed", 7, "--json")
    assert trained.returncode == 0, trained.stderr
    result = json.loads(trained.stdout)
    assert result["encoder"] != json.loads(first.stdout)["encoder"]
    assert result["vectors"] == result["samples"]
    kept = wtl("maintain", "-w", work, "--keep", 1, "--json")
    assert kept.returncode == 0, kept.stderr
    assert json.loads(kept.stdout)["tables_dropped"] == 2
