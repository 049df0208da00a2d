"""Progress of a stage: a bar on a terminal, plain lines elsewhere, and a progress artifact where a server watches."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_ARTIFACT_SECONDS, _LINE_SECONDS = 5.0, 10.0

_logger = logging.getLogger("wtl_core.progress")


@contextmanager
def reported(stage: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that shows a stage's progress while the block lasts."""
    shows: list[Callable[[int, int], None]] = []

    def show_all(done: int, total: int) -> None:
        for show in shows:
            show(done, total)

    artifact = _Artifact(stage, unit)
    if TaskRunContext.get() is not None:
        shows.append(_every(_ARTIFACT_SECONDS, artifact.show))
    if sys.stderr.isatty():
        with _bar(stage, unit) as show_bar:
            shows.append(show_bar)
            yield show_all
    else:
        shows.append(
            _every(_LINE_SECONDS, lambda done, total: _logger.info("%s: %d of %d %s", stage, done, total, unit))
        )
        yield show_all
    artifact.finish()


@contextmanager
def _bar(stage: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(stage, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _every(seconds: float, show: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """`show`, at most once in `seconds`; a stage that ends sooner shows nothing."""
    last = time.monotonic()

    def maybe(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            show(done, total)

    return maybe


class _Artifact:
    """A stage's progress on the server: made when it is first shown, so that a short stage has none."""

    def __init__(self, stage: str, unit: str) -> None:
        self.stage, self.unit, self.start = stage, unit, time.monotonic()
        self.identity: Any = None
        self.total = 0

    def show(self, done: int, total: int) -> None:
        self.total = total
        percent = 100.0 * done / max(total, 1)
        rate = done / (time.monotonic() - self.start)
        text = f"{self.stage}: {done:,} of {total:,} {self.unit}, {rate:,.0f} a second"
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
            self.show(self.total, self.total)
