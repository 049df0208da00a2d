"""Work for an engine that leaves traces: which process did an item, and how often it was begun."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wtl_core.errors import InputError


@dataclass(frozen=True)
class Squares:
    """Makes workers that square numbers and note in `folder` what they begin.

    The worker that begins `deadly` is killed by it, the first `deaths` times; `refused` is refused.
    """

    folder: Path
    deadly: int | None = None
    deaths: int = 1
    refused: int | None = None
    seconds: float = 0.0

    def __call__(self) -> Callable[[int], int]:
        self._note("made")
        return self._square

    def _square(self, number: int) -> int:
        self._note(f"{number}")
        time.sleep(self.seconds)
        if number == self.refused:
            raise InputError(f"expected another number than {number}")
        if number == self.deadly and self.begun().count(str(number)) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return number * number

    def _note(self, what: str) -> None:
        (self.folder / f"{time.monotonic_ns():020d}-{os.getpid()}-{what}").touch()

    def begun(self) -> list[str]:
        """What was begun so far, in that order; `made` for each worker."""
        return [name.split("-")[2] for name in sorted(file.name for file in self.folder.iterdir())]

    def processes(self) -> set[int]:
        """Processes that did something."""
        return {int(name.split("-")[1]) for name in (file.name for file in self.folder.iterdir())}


def read_environment() -> Callable[[str], str | None]:
    """Makes a worker that tells what its environment has."""
    return os.environ.get
