"""Work for an engine that leaves traces: which process did an item, and how often it was begun."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wtl_core.errors import InputError

_HERE = ("sent", "released")  # what this process does


@dataclass(frozen=True)
class Squares:
    """Makes workers that square numbers and note in `folder` what they begin.

    A worker that begins one of `deadly`, items or `made`, is killed by it, the first `deaths` times; `refused` is
    refused. What is `held`, an item or `made`, does not go on before `release`.
    """

    folder: Path
    deadly: tuple[str, ...] = ()
    deaths: int = 1
    refused: int | None = None
    seconds: float = 0.0
    held: str | None = None

    def __call__(self) -> Callable[[int], int]:
        self._note("made")
        return self._square

    def __getstate__(self) -> dict[str, object]:
        self._note("sent")
        return dict(self.__dict__)

    def _square(self, number: int) -> int:
        self._note(f"{number}")
        time.sleep(self.seconds)
        if number == self.refused:
            raise InputError(f"expected another number than {number}")
        return number * number

    def _note(self, what: str) -> None:
        (self.folder / f"{time.monotonic_ns():020d}-{os.getpid()}-{what}").touch()
        while what == self.held and not any(self.folder.glob("*-released")):
            time.sleep(0.02)
        if what in self.deadly and self.begun().count(what) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)

    def release(self) -> None:
        """Let what is held go on."""
        self._note("released")

    def begun(self) -> list[str]:
        """What was begun so far, in that order; `made` for each worker."""
        return [what for _, what in self._notes() if what not in _HERE]

    def processes(self, doing: object = None) -> set[int]:
        """Processes that did something, or this."""
        return {process for process, what in self._notes() if what not in _HERE and doing in (None, what)}

    def sent(self) -> int:
        """How often this was sent to another process."""
        return [what for _, what in self._notes()].count("sent")

    def _notes(self) -> list[tuple[int, str]]:
        names = sorted(file.name for file in self.folder.iterdir())
        return [(int(process), what) for _, process, what in (name.split("-") for name in names)]


def read_environment() -> Callable[[str], str | None]:
    """Makes a worker that tells what its environment has."""
    return os.environ.get
