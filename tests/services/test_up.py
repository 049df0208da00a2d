"""The walk-through of docs/operations.md in a fresh clone: `wtl up`, a ranking without a further step, `wtl down`.

For speed the clone gets no environment of its own: its packages come from the one that the tests run in, and `flows`,
`tasks` and `wtl_core` from the clone, by PYTHONPATH. It holds what is committed, and nothing else of this checkout.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from service_stack import free_port, last_commit, until

from flows.serving.processes import descendants, is_alive
from tests.conftest import build_source

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fresh") / "wtl"
    subprocess.run(["git", "clone", "--quiet", "--no-local", str(ROOT), str(folder)], check=True, timeout=120)
    return folder


def commands(clone: Path) -> list[list[str]]:
    """The `wtl` commands of the page's first part, in its order."""
    text = (clone / "docs" / "operations.md").read_text()
    return [shlex.split(line) for line in re.findall(r"^\$ (wtl .*)$", text, re.MULTILINE)]


def environment(tmp_path: Path, clone: Path) -> dict[str, str]:
    quick = {"OMP_NUM_THREADS": "1", "WTL_WORKERS": "1"}
    return {**os.environ, "WTL_STATE": str(tmp_path / "state"), "PYTHONPATH": str(clone), **quick}


def imported_from(env: dict[str, str]) -> set[Path]:
    """Where a process of the walk-through finds the project's packages."""
    told = "import flows, tasks, wtl_core; print(flows.__file__, tasks.__file__, wtl_core.__file__)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=env, cwd="/", check=True)
    return {Path(name).parents[1] for name in done.stdout.split()}


def prepared(command: list[str], tmp_path: Path, port: int) -> list[str]:
    """The command with paths of this test, and with what makes it quick and private."""
    places = {"/path/to/shards": str(tmp_path / "shards"), "/path/to/workspace": str(tmp_path / "workspace")}
    words = [places.get(word, word) for word in command[1:]]
    if words[0] == "up":
        words += ["--port", str(port), "--site", str(tmp_path / "site.toml")]
    return [str(Path(sys.executable).with_name("wtl")), *words]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    build_source(tmp_path / "shards")
    (tmp_path / "site.toml").write_text('quiet_seconds = 1\n[recipe.encoder]\nname = "pixels"\n')
    return tmp_path


def test_up_in_the_background_ranks_by_itself_and_down_ends_it(site: Path, clone: Path) -> None:
    _, up, down = commands(clone)
    port, env = free_port(), environment(site, clone)
    assert imported_from(env) == {clone}
    done = subprocess.run(prepared(up, site, port), capture_output=True, text=True, timeout=300, env=env, cwd=clone)
    try:
        assert done.returncode == 0, done.stderr
        assert f"http://127.0.0.1:{port}" in done.stdout
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
        assert b"<html" in page.lower()
        told = urllib.request.urlopen(f"http://127.0.0.1:{port}/ui-settings", timeout=20).read()
        assert json.loads(told)["api_url"] == "/api"  # so that the UI works from other machines too
        again = subprocess.run(
            prepared(up, site, port), capture_output=True, text=True, timeout=100, env=env, cwd=clone
        )
        assert again.returncode == 2
        assert "is up already" in again.stderr
        until(lambda: last_commit(site / "workspace"), seconds=200, what="a ranking without a further step")
    finally:
        ended = subprocess.run(
            prepared(down, site, port), capture_output=True, text=True, timeout=100, env=env, cwd=clone
        )
    assert "has ended" in ended.stdout
    assert not any(str(site).encode() in line for line in command_lines())


def test_ctrl_c_ends_all_that_up_started(site: Path, clone: Path) -> None:
    up, _, _ = commands(clone)
    port, env = free_port(), environment(site, clone)
    command = prepared(up, site, port)
    log = site / "log"
    with log.open("wb") as handle:
        process = subprocess.Popen(
            command, stdout=handle, stderr=subprocess.STDOUT, env=env, cwd=clone, start_new_session=True
        )
    try:
        until(lambda: "Ctrl-C" in log.read_text(), seconds=240, what=f"all is up: {log.read_text()}")
        family = descendants(process.pid)
        assert len(family) >= 2
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=90) == 0, log.read_text()
    finally:
        process.kill()
    assert not [child for child in family if is_alive(child)]


def command_lines() -> list[bytes]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                found.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return found
