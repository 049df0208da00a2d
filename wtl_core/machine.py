"""What the machine offers, how progress is told, and wall clock by stage. Imports nothing of the rest."""

import time
from collections.abc import Callable
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


@dataclass(frozen=True)
class Machine:
    """What the machine offers. `device` is a torch device's name, never `auto`; `devices` of its kind work together.

    None of it changes a ranking; device and devices change what an encoder trained on them becomes.
    """

    workers: int = 1
    device: str = "cpu"
    devices: int = 1
    embedding_part_images: int = 32_768
