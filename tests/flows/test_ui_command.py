"""`wtl ui` as a person starts it: the address that it prints answers, and Ctrl-C ends it."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from tests.conftest import write_pictures
from tests.flows.conftest import Wtl
from tests.plain_refresh import refresh


def test_the_printed_address_answers_until_the_app_is_ended(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    command = [sys.executable, "-m", "flows.cli.main", "ui", "-w", str(tmp_path / "w"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as app:
        assert app.stdout is not None
        address = json.loads(app.stdout.readline())["address"]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=120) as answer:  # requests wait while it loads
            assert "What to label" in answer.read().decode()
        app.send_signal(signal.SIGINT)
        out, err = app.communicate(timeout=60)
    assert (app.returncode, out, err) == (0, "", "")


def test_what_is_no_workspace_or_no_free_port_is_refused_at_once(tmp_path: Path, wtl_here: Wtl) -> None:
    done = wtl_here("ui", "-w", tmp_path / "nothing")
    assert (done.returncode, "expected a workspace" in done.stderr) == (2, True)
