"""`wtl benchmark` as a stranger calls it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.cli.benchmark_command import read_params
from tests.conftest import result_of
from tests.flows.conftest import Wtl
from wtl_core.benchmark import params
from wtl_core.errors import ConfigError

FLAGS = (
    "--encoder",
    "pixels",
    "--budgets",
    "8,20",
    "--seeds",
    "2",
    "--strategies",
    "random,coverage",
    "--judges",
    "probe",
    "--json",
)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(80):
        place = tmp_path / "set" / ("high" if number % 2 else "low")
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (16, 16, 3), dtype=np.uint8)
        pixels[(number % 2) * 8 :][:8] += 90
        Image.fromarray(pixels).save(place / f"{number}.png")
    return tmp_path / "set"


def test_one_command_makes_the_page_and_a_second_one_only_finds_it(wtl: Wtl, labelled: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    result = result_of(wtl("benchmark", labelled, "--output", output, *FLAGS))
    assert (result["missing"], result["cells"]) == (0, 2 * 2 * 2)
    assert "coverage" in (output / result["html"]).read_text()
    assert (output / "results.parquet").is_file()
    assert any(sentence.startswith("balanced") for sentence in result["sentences"])
    done = {file: file.stat().st_mtime_ns for kind in ("cells", "orders") for file in (output / kind).iterdir()}
    again = result_of(wtl("benchmark", labelled, "--output", output, *FLAGS))
    assert again["sentences"] == result["sentences"]
    assert {f: f.stat().st_mtime_ns for kind in ("cells", "orders") for f in (output / kind).iterdir()} == done


def test_wrong_use_is_told_before_anything_starts(wtl_here: Wtl, labelled: Path, tmp_path: Path) -> None:
    done = wtl_here("benchmark", labelled, "--strategies", "random,magic", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "magic" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
    done = wtl_here("benchmark", labelled, "--output", "s3://bucket/place")
    assert (done.returncode, "a local folder" in done.stderr) == (2, True)


def test_all_strategies_are_those_that_are_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(params, "find_spec", lambda _: None)
    chosen = read_params(None, {"strategies": "all"}).strategies
    assert "mundig" not in chosen
    assert {"coverage", "badge"} <= set(chosen)
    assert "left out     mundig" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="pip install lightly-mundig"):
        read_params(None, {"strategies": "random,mundig"})


_SERVED, _ALONE = "http://127.0.0.1:4200/api", ""


@pytest.fixture(scope="module")
def tags() -> dict[str, Any]:
    """The tags of all tasks that use the device, as they are defined at each address of a server."""
    code = """
import json, os, sys
from prefect.context import refresh_global_settings_context
found = {}
for address in sys.argv[1:]:
    os.environ["PREFECT_API_URL"] = address
    refresh_global_settings_context()
    for name in [name for name in sys.modules if name.split(".")[0] == "tasks"]:
        del sys.modules[name]
    from tasks import benchmark, embedding, encoders, novelty, selection
    users = (
        benchmark.prepare_benchmark, benchmark.order_pool, benchmark.judge_batch, embedding.embed_chunk,
        encoders.ensure_encoder, encoders.train_next, selection.select, novelty.is_novel_enough,
    )
    found[address] = [sorted(used.tags) for used in users]
print(json.dumps(found))
"""
    command = [sys.executable, "-c", code, _ALONE, _SERVED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("address", "expected"), [(_SERVED, ["wtl-device"]), (_ALONE, [])])
def test_tasks_that_use_the_device_take_turns_on_it_where_a_server_can_see_to_that(
    tags: dict[str, Any], address: str, expected: list[str]
) -> None:
    assert tags[address] == [expected] * 8


def test_the_command_line_plans_without_torch() -> None:
    code = (
        "import sys; import flows.cli.benchmark_command; sys.exit('torch' in sys.modules or 'prefect' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
