"""Progress of a stage for whoever started it: a bar on a terminal, plain lines elsewhere. Imports no Prefect.

Each says how much is done, how fast, and how long the rest will take; a stage that took a second leaves one line.
"""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from wtl_core.machine import duration

_LINE_SECONDS = 10.0
_WORTH_A_LINE_SECONDS = 1.0
_TEXT_COLUMNS = 58
"""Columns of a terminal that the longest text beside a bar takes."""
_TELLING_SHARE = 0.01
"""What must be done until the rest is foretold: loading is in the first seconds, and hours would be told of minutes."""

_logger = logging.getLogger("wtl_core.progress")


def stage(name: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """A stage's progress, as `wtl_core.machine.Stage` has it; `bytes` are shown as MB."""
    return shown(name, Pace(unit))


@contextmanager
def shown(
    label: str, pace: "Pace", *, beside: Callable[[], None] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that sets `pace` and shows it while the block lasts; calls `beside` after it."""
    shows = [] if beside is None else [beside]

    def show_all(done: int, total: int) -> None:
        pace.done, pace.total = done, total
        for show in shows:
            show()

    if sys.stderr.isatty():
        with _bar(label, pace) as show_bar:
            shows.append(show_bar)
            yield show_all
    else:
        shows.append(every(_LINE_SECONDS, lambda: _logger.info("%s: %s", label, pace.in_words())))
        yield show_all
    if pace.done and pace.seconds >= _WORTH_A_LINE_SECONDS:
        _logger.info("%-12s %s", label, pace.at_the_end())


class Pace:
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
        so_far = f"{self._amount(self.done, self.total)}, {self._amount(self.rate)} a second"
        if self.done < _TELLING_SHARE * self.total:
            return so_far
        return f"{so_far}, {duration((self.total - self.done) / self.rate)} left"

    def at_the_end(self) -> str:
        """As `3.9 MB in 3 s, 1.3 MB a second`."""
        return f"{self._amount(self.done)} in {duration(self.seconds)}, {self._amount(self.rate)} a second"

    def _amount(self, done: float, total: float | None = None) -> str:
        digits, divisor, unit = (1, 1e6, "MB") if self.unit == "bytes" else (0, 1, self.unit)
        if total is None and done < 10 * divisor:
            digits = 1
        whole = "" if total is None else f" of {total / divisor:,.{digits}f}"
        return f"{done / divisor:,.{digits}f}{whole} {unit}"


@contextmanager
def _bar(label: str, pace: Pace) -> Iterator[Callable[[], None]]:
    width = min(40, max(4, shutil.get_terminal_size().columns - 13 - _TEXT_COLUMNS))
    columns = (TextColumn("{task.description:<12}"), BarColumn(width), TextColumn("{task.fields[words]}"))
    # A bar that says more often than four times a second what is done takes time from what does it.
    with Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4) as bars:
        bar = bars.add_task(label, total=None, words=pace.in_words())
        yield lambda: bars.update(bar, completed=pace.done, total=pace.total, words=pace.in_words())


def every(seconds: float, show: Callable[[], None]) -> Callable[[], None]:
    """`show`, at most once in `seconds`; a stage that ends sooner shows nothing."""
    last = time.monotonic()

    def maybe() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            show()

    return maybe
