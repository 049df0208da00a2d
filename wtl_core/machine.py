"""Wall clock by stage."""

import time


class Stopwatch:
    """Seconds since the last lap, by the name of the stage that ended with it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """End the stage that ran since the last lap."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last
        self._last = now
