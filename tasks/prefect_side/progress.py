"""Progress of a stage: a bar on a terminal, plain lines elsewhere, and a progress artifact where a server watches.

Each says how much is done, how fast, and how long the rest will take; a stage that took a second leaves one line.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_ARTIFACT_SECONDS, _LINE_SECONDS = 5.0, 10.0
_WORTH_A_LINE_SECONDS = 1.0
_TEXT_COLUMNS = 58
"""Columns of a terminal that the longest text beside a bar takes."""

_logger = logging.getLogger("wtl_core.progress")


@contextmanager
def reported(stage: str, unit: str, *, part: str = "") -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that shows a stage's progress while the block lasts.

    Args:
        stage: Its name, in lower case and without spaces.
        unit: What is counted; `bytes` are shown as MB.
        part: Which part of the stage this is, such as `2 of 5`.
    """
    label = f"{stage} {part}".strip()
    pace = _Pace(unit)
    shows: list[Callable[[], None]] = []

    def show_all(done: int, total: int) -> None:
        pace.done, pace.total = done, total
        for show in shows:
            show()

    artifact = _Artifact(stage, label, pace)
    if TaskRunContext.get() is not None:
        shows.append(_every(_ARTIFACT_SECONDS, artifact.show))
    if sys.stderr.isatty():
        with _bar(label, pace) as show_bar:
            shows.append(show_bar)
            yield show_all
    else:
        shows.append(_every(_LINE_SECONDS, lambda: _logger.info("%s: %s", label, pace.in_words())))
        yield show_all
    if pace.done and pace.seconds >= _WORTH_A_LINE_SECONDS:
        _logger.info("%-12s %s", label, pace.at_the_end())
    artifact.finish()


class _Pace:
    """How far a stage is, how fast it goes, and how long the rest takes at that rate."""

    def __init__(self, unit: str) -> None:
        self.unit, self.done, self.total = unit, 0, 0
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the stage began."""
        return time.monotonic() - self._start

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / max(self.seconds, 1e-3)

    def in_words(self) -> str:
        """As `1.4 of 3.9 MB, 1.3 MB a second, 2 s left`."""
        if not self.done:
            return self._amount(0, self.total) if self.total else "begins"
        left = _duration((self.total - self.done) / self.rate)
        return f"{self._amount(self.done, self.total)}, {self._amount(self.rate)} a second, {left} left"

    def at_the_end(self) -> str:
        """As `3.9 MB in 3 s, 1.3 MB a second`."""
        return f"{self._amount(self.done)} in {_duration(self.seconds)}, {self._amount(self.rate)} a second"

    def _amount(self, done: float, total: float | None = None) -> str:
        digits, divisor, unit = (1, 1e6, "MB") if self.unit == "bytes" else (0, 1, self.unit)
        if total is None and done < 10 * divisor:
            digits = 1
        whole = "" if total is None else f" of {total / divisor:,.{digits}f}"
        return f"{done / divisor:,.{digits}f}{whole} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


@contextmanager
def _bar(label: str, pace: _Pace) -> Iterator[Callable[[], None]]:
    width = min(40, max(4, shutil.get_terminal_size().columns - 13 - _TEXT_COLUMNS))
    columns = (TextColumn("{task.description:<12}"), BarColumn(width), TextColumn("{task.fields[words]}"))
    # A bar that says more often than four times a second what is done takes time from what does it.
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bars:
        bar = bars.add_task(label, total=None, words=pace.in_words())
        yield lambda: bars.update(bar, completed=pace.done, total=pace.total, words=pace.in_words())


def _every(seconds: float, show: Callable[[], None]) -> Callable[[], None]:
    """`show`, at most once in `seconds`; a stage that ends sooner shows nothing."""
    last = time.monotonic()

    def maybe() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            show()

    return maybe


class _Artifact:
    """A stage's progress on the server: made when it is first shown, so that a short stage has none."""

    def __init__(self, stage: str, label: str, pace: _Pace) -> None:
        self.stage, self.label, self.pace = stage, label, pace
        self.identity: Any = None

    def show(self) -> None:
        percent = 100.0 * self.pace.done / max(self.pace.total, 1)
        text = f"{self.label}: {self.pace.in_words()}"
        try:
            if self.identity is None:
                self.identity = create_progress_artifact(
                    progress=percent, key=f"{self.stage}-progress", description=text
                )
            else:
                update_progress_artifact(artifact_id=self.identity, progress=percent, description=text)
        except httpx.HTTPError as error:  # a server that is away costs the picture of the work, not the work
            _logger.warning("progress could not be shown: %s", error)

    def finish(self) -> None:
        """All of it is done: the last look lies up to an interval back."""
        if self.identity is not None:
            self.pace.done = self.pace.total
            self.show()
