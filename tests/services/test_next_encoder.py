"""`wtl train-encoder` and `wtl maintain` from a shell, on a running server."""

import json
import re
from pathlib import Path

import pytest
from service_stack import Stack

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


def test_the_next_encoder_takes_over_and_house_keeping_runs(stack: Stack, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "w"
    stack.wtl("run", source, "-w", work, "--encoder", "pixels", "--json")
    refused = stack.wtl("train-encoder", "-w", work, check=False)
    assert refused.returncode == 2
    assert "wtl run --encoder auto" in refused.stderr
    (tmp_path / "r.toml").write_text('[encoder]\nname = "ssl"\nepochs = 1\nside_px = 16\nwidth = 8\n')
    first = stack.wtl("run", source, "-w", work, "--recipe", tmp_path / "r.toml", "--json")
    trained = json.loads(stack.wtl("train-encoder", "-w", work, "--seed", 7, "--json").stdout)
    assert trained["encoder"] != json.loads(first.stdout)["encoder"]
    assert trained["vectors"] == trained["samples"]
    assert re.fullmatch(r"trained resnet9 on 64 images, \d+ s", stack.runs("train-encoder")[-1]["name"])
    kept = stack.wtl("maintain", "-w", work, "--keep", 1, "--json")
    assert json.loads(kept.stdout)["tables_dropped"] == 2
    assert stack.runs("maintain")[-1]["name"].endswith("2 tables dropped")
