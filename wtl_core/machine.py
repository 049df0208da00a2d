"""What the machine offers, how progress is reported, and wall clock by stage. Imports no other module of ours."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass


class Stopwatch:
    """Seconds since the last lap, by the name of the stage that ended with it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str, *, before_seconds: float = 0.0) -> None:
        """End the stage that ran since the last lap; `before_seconds` is what it took before the clock started."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last + before_seconds
        self._last = now


Progress = Callable[[int, int], None]
"""Called with (done, total), in the unit of the stage: bytes, images or steps."""

Stage = Callable[[str, str], AbstractContextManager[Progress]]
"""Called with a stage's name and unit; what it gives shows that stage's progress while a block lasts."""


@contextmanager
def silent(name: str, unit: str) -> Iterator[Progress]:  # noqa: ARG001, as `Stage` has it
    """A stage that shows nothing."""
    yield lambda _done, _total: None


@dataclass(frozen=True)
class Machine:
    """What the machine offers.

    None of it changes the ranking by a given encoder. An encoder trained here depends on `device` and `devices`.

    Attributes:
        workers: Processes that decode at ingest, and threads that decode for the network.
        device: Name of a torch device, such as `cpu` or `cuda`; never `auto`.
        devices: How many devices of that kind work together.
        embedding_part_images: Images in one embedding task, for each device.
    """

    workers: int = 1
    device: str = "cpu"
    devices: int = 1
    embedding_part_images: int = 32_768
