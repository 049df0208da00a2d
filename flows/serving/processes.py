"""Child processes in sessions of their own: starting them, and ending them with their descendants."""

import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STOP_SECONDS = 20.0
"""What has not ended that long after SIGTERM is killed."""
_MARK = "WTL_UP_LOG"
"""In the environment of a child and of all below it, those included that init adopted when their parent died."""


@dataclass
class Child:
    """One process that is kept running, in a session of its own: a terminal's Ctrl-C reaches the supervisor only."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it, its output going to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as handle:
            self.process = subprocess.Popen(  # noqa: S603, our own commands
                self.command,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**self.environment, _MARK: str(self.log)},
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it and all that it started: first by SIGTERM, then by SIGKILL."""
        if self.process is None:
            return
        end({*descendants(self.process.pid), *started_by(self.log)})
        self.process.wait()


def descendants(pid: int) -> list[psutil.Process]:
    """Children, and theirs: runs live in sessions of their own, so a signal to the process group misses them."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def started_by(log: Path) -> list[psutil.Process]:
    """All live processes that the child with this log ever started, whoever their parent is now, and the child."""
    return [
        process
        for process in psutil.process_iter(["environ"])  # None where it is another user's
        if (process.info["environ"] or {}).get(_MARK) == str(log) and process.pid != os.getpid() and is_alive(process)
    ]


def is_alive(process: psutil.Process) -> bool:
    """Whether it is at work; one that has ended and waits for its parent to notice is not."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(processes: Iterable[psutil.Process]) -> None:
    """Ask all of them to end by SIGTERM, and kill what is left after `STOP_SECONDS`."""
    left = list(processes)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    while (left := [process for process in left if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
