"""Work in processes that can be killed, forked from one that has imported what they need: a start takes milliseconds.

The process that forks uses nothing of polars or LanceDB itself: threads that are at work do not survive a fork.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

_SERVER = """
import json, os, sys, warnings
warnings.simplefilter("ignore", RuntimeWarning)  # LanceDB on being forked
exec(sys.argv[1])
while line := sys.stdin.readline():
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        work(*json.loads(line))
        sys.stdout.flush()
        os._exit(0)
    sys.stdin.readline()  # until then an ended process keeps its pid, so that no other one is ever killed
    print("\\nended", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


class Forks:
    """The other end of a process that forks."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        assert server.stdin is not None
        assert server.stdout is not None
        self._write, self._read = server.stdin, server.stdout

    def run(self, *arguments: object, kill_when: Callable[[], bool] | None = None) -> tuple[int, list[str]]:
        """Call `work(*arguments)` in a new process; its exit code, and the lines that it printed.

        It gets SIGKILL as soon as `kill_when` says so, unless it has ended by itself before.
        """
        print(json.dumps(arguments), file=self._write, flush=True)
        process = psutil.Process(int(self._read.readline()))
        while kill_when is not None and process.status() != psutil.STATUS_ZOMBIE:
            if kill_when():
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.001)
        print("wait", file=self._write, flush=True)
        lines = []
        while not (line := self._read.readline()).startswith("ended "):
            assert line, "the process that forks has ended"
            lines.append(line.rstrip("\n"))
        return int(line.split()[1]), [line for line in lines if line]


@contextmanager
def forked(code: str, *, cwd: Path | None = None) -> Iterator[Forks]:
    """A process that has run `code`, which imports what is needed and defines `work`."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "RUST_LOG": "error"}
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER, code],
        cwd=cwd,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        yield Forks(server)
