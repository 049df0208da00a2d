import logging

import httpx
import pytest

from tasks import progress_display
from tasks.prefect_side import progress
from tasks.prefect_side.progress import reported


def test_lines_come_at_most_once_in_an_interval(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now)
    with caplog.at_level(logging.INFO, "wtl_core.progress"), reported("ingest", "images") as on_progress:
        for done in range(1, 31):
            now += 1.0
            on_progress(done, 30)
    assert caplog.messages == [
        "ingest: 10 of 30 images, 1.0 images a second, 20 s left",
        "ingest: 20 of 30 images, 1.0 images a second, 10 s left",
        "ingest: 30 of 30 images, 1.0 images a second, 0 s left",
        "ingest       30 images in 30 s, 1.0 images a second",
    ]


def test_the_rest_is_foretold_once_a_hundredth_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now)
    pace = progress_display.Pace("images")
    now, pace.total, pace.done = 10.0, 1000, 9
    assert pace.in_words() == "9 of 1,000 images, 0.9 images a second"
    pace.done = 10
    assert pace.in_words() == "10 of 1,000 images, 1.0 images a second, 16 min left"


def test_a_short_stage_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "wtl_core.progress"), reported("ingest", "images") as on_progress:
        on_progress(1, 1)
    assert caplog.messages == []


def test_a_server_that_is_away_costs_no_work(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def away(**_: object) -> None:
        raise httpx.ConnectError("refused")

    now = 0.0
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress.TaskRunContext, "get", lambda: "a task run")
    monkeypatch.setattr(progress, "create_progress_artifact", away)
    with caplog.at_level(logging.WARNING, "wtl_core.progress"), reported("ingest", "images") as on_progress:
        now = 6.0
        on_progress(1, 2)
    assert "could not be shown" in caplog.text


def test_a_progress_artifact_leads_to_the_page_of_a_ray_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    now = 0.0
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress.TaskRunContext, "get", lambda: "a task run")
    monkeypatch.setattr(
        progress, "create_progress_artifact", lambda description, **_: shown.append(description) or "id"
    )
    monkeypatch.setattr(progress, "update_progress_artifact", lambda description, **_: shown.append(description))
    for page in (None, "http://10.0.0.1:8265"):
        monkeypatch.setattr(progress, "dashboard", lambda page=page: page)
        with reported("embedding", "images") as on_progress:
            now += 6
            on_progress(1, 2)
    assert "Ray" not in shown[0]
    assert shown[-1].endswith("[Ray's dashboard](http://10.0.0.1:8265)")


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_progress_artifact_ends_at_all_of_it_where_the_stage_ends_well(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    shown: list[float] = []
    now = 0.0
    monkeypatch.setattr(progress_display.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress_display.sys.stderr, "isatty", lambda: is_terminal, raising=False)
    monkeypatch.setattr(progress.TaskRunContext, "get", lambda: "a task run")
    monkeypatch.setattr(progress, "create_progress_artifact", lambda progress, **_: shown.append(progress) or "id")
    monkeypatch.setattr(progress, "update_progress_artifact", lambda progress, **_: shown.append(progress))
    with reported("embedding", "images") as on_progress:
        now += 6
        on_progress(20, 80)
        now += 1
        on_progress(80, 80)  # too soon after the last look to be shown by itself
    assert shown == [25.0, 100.0]
    with reported("embedding", "images") as on_progress:
        on_progress(80, 80)  # short: nothing was shown, so nothing is left to end

    def failing() -> None:
        nonlocal now
        with reported("embedding", "images") as on_progress:
            now += 6
            on_progress(20, 80)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert shown == [25.0, 100.0, 25.0]
