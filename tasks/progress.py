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

    if TaskRunContext.get() is not None:
        shows.append(_every(_ARTIFACT_SECONDS, _artifact(stage, unit)))
    if not sys.stderr.isatty():
        shows.append(
            _every(_LINE_SECONDS, lambda done, total: _logger.info("%s: %d of %d %s", stage, done, total, unit))
        )
        yield show_all
        return
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
        shows.append(lambda done, total: bars.update(bar, completed=done, total=total))
        yield show_all


def _every(seconds: float, show: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """`show`, at most once in `seconds`; a stage that ends sooner shows nothing."""
    last = time.monotonic()

    def maybe(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            show(done, total)

    return maybe


def _artifact(stage: str, unit: str) -> Callable[[int, int], None]:
    identity: Any = None
    start = time.monotonic()

    def show(done: int, total: int) -> None:
        nonlocal identity
        percent = 100.0 * done / max(total, 1)
        rate = done / (time.monotonic() - start)
        text = f"{stage}: {done:,} of {total:,} {unit}, {rate:,.0f} a second"
        try:
            if identity is None:
                identity = create_progress_artifact(progress=percent, key=f"{stage}-progress", description=text)
            else:
                update_progress_artifact(artifact_id=identity, progress=percent, description=text)
        except httpx.HTTPError as error:  # a server that is away costs the picture of the work, not the work
            _logger.warning("progress could not be shown: %s", error)

    return show
