"""One `wtl run` lists each source once, although the command plans before the flow does."""

import json
import os
import subprocess
import sys
from pathlib import Path

_SPYING_WTL = """
import json, sys
from collections import Counter
from wtl_core.refresh import readmission
from wtl_core.shards import discover
from flows.cli.main import main

calls = Counter()

def counted(module, name):
    original = getattr(module, name)
    def call(*given, **named):
        calls[name] += 1
        return original(*given, **named)
    setattr(module, name, call)

counted(discover, "list_source")
counted(readmission, "readable_again")
try:
    main()
finally:
    print(json.dumps(calls), file=sys.stderr)
"""


def test_a_run_from_the_command_line_lists_each_source_once(source: Path, tmp_path: Path, prefect_home: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "notes.txt").write_text("no image")
    arguments = ["run", source, tmp_path / "more", "-w", tmp_path / "w", "--encoder", "pixels", "--json"]
    quiet = {"PREFECT_HOME": str(prefect_home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    command = [sys.executable, "-c", _SPYING_WTL, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == 64
    assert json.loads(done.stderr.splitlines()[-1]) == {"list_source": 2, "readable_again": 1}
