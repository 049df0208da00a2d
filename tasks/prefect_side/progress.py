"""Progress of a stage: what a terminal shows, and a progress artifact where a server watches."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tasks.progress_display import Pace, every, shown
from wtl_core.engines.ray import dashboard

_ARTIFACT_SECONDS = 5.0

_logger = logging.getLogger("wtl_core.progress")


@contextmanager
def reported(stage: str, unit: str, *, part: str = "") -> Iterator[Callable[[int, int], None]]:
    """A callback `(done, total)` that shows a stage's progress while the block lasts.

    Args:
        stage: Its name, in lower case and without spaces.
        unit: What is counted; `bytes` are shown as MB.
        part: Which part of the stage this is, such as `2 of 5`.
    """
    label, pace = f"{stage} {part}".strip(), Pace(unit)
    artifact = _Artifact(stage, label, pace)
    is_watched = TaskRunContext.get() is not None
    with shown(label, pace, beside=every(_ARTIFACT_SECONDS, artifact.show) if is_watched else None) as show:
        yield show
    artifact.finish()


class _Artifact:
    """A stage's progress on the server: made when it is first shown, so that a short stage has none."""

    def __init__(self, stage: str, label: str, pace: Pace) -> None:
        self.stage, self.label, self.pace = stage, label, pace
        self.identity: Any = None

    def show(self) -> None:
        percent = 100.0 * self.pace.done / max(self.pace.total, 1)
        page = dashboard()
        text = f"{self.label}: {self.pace.in_words()}" + (f". [Ray's dashboard]({page})" if page else "")
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
