"""Runs that meet: on one workspace, and on the device."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from service_stack import Stack, last_commit, now, until

from tasks.prefect_side.event_resources import workspace_resource
from tests.conftest import build_source, make_jpeg
from tests.services.drill import PIXELS, given, stand_still
from tests.services.landing import post_arrival

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]


def test_two_at_once_the_second_waits_and_takes_in_the_rest(
    quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path
) -> None:
    """The first stands in a task that has the device, so a third, of another workspace, waits for that alone."""
    source, workspace, started = shutil.copytree(undisturbed[0], tmp_path / "source"), tmp_path / "workspace", now()
    late = tmp_path / "late.jpg"
    shutil.move(next((source / "loose").glob("4*.jpg")), late)
    with device_limit(quiet, 1):
        first, marker = stand_still(quiet, source, workspace, "wtl_core.pipeline:ensure_encoder", PIXELS, when="before")
        shutil.move(late, source / "loose" / "late.jpg")
        second = quiet.start_run("refresh", **given(source, workspace, PIXELS))
        command = [quiet.program("wtl"), "run", source, "--workspace", tmp_path / "other", "--encoder", "pixels"]
        with subprocess.Popen(command, env=quiet.environment, stderr=subprocess.DEVNULL) as third:
            until(lambda: quiet.state_of(second) == "AwaitingConcurrencySlot", seconds=90, what="the second waits")
            by_hand = quiet.wtl("run", source, "--workspace", workspace, "--encoder", "pixels", check=False)
            assert by_hand.returncode == 4, by_hand.stderr
            assert "only writer" in by_hand.stderr
            until(lambda: encoder_tasks(quiet, "PENDING", started), seconds=90, what="the third waits for the device")
            assert len(encoder_tasks(quiet, "RUNNING", started)) == 1
            marker.unlink()
            assert third.wait(timeout=120) == 0
        assert [quiet.wait(run)["state"]["type"] for run in (first, second)] == ["COMPLETED"] * 2
    commit = last_commit(workspace)
    assert commit is not None
    assert commit["number"] == 2
    assert commit["counts"]["new_samples"] == 1
    about = workspace_resource(str(workspace))
    for stage in ("ingest", "encoder", "embedding", "selection", "refresh"):
        until(
            lambda name=f"wtl.{stage}.completed": len(quiet.events(name, about, since=started)) == 2,
            seconds=60,
            what=f"both runs tell the end of {stage}, once each",
        )


def test_a_run_of_one_folder_cancels_no_run_that_an_event_started_for_others(quiet: Stack, tmp_path: Path) -> None:
    backfill = build_source(tmp_path / "backfill", count=6)
    env = quiet.stall("wtl_core.refresh.arrivals:wait_until_quiet", tmp_path, when="before")
    marker, started = Path(env.pop("marker")), now()
    (quiet.folder / "shards" / "meanwhile.jpg").write_bytes(make_jpeg(79))
    by_hand = quiet.start_run("refresh", job_env=env, sources=[str(backfill)], known_too=False)
    until(marker.exists, seconds=120, what="it stands still", every=0.1)
    post_arrival(quiet, "meanwhile.jpg")
    waiting = until(lambda: by_event(quiet, started), seconds=180, what="the event's run waits")
    marker.unlink()
    assert [quiet.wait(run)["state"]["type"] for run in (by_hand, waiting[0]["id"])] == ["COMPLETED"] * 2


def by_event(stack: Stack, since: datetime) -> list[dict[str, Any]]:
    """Refreshes that an event started since then and that wait for their place."""
    found = stack.unfinished("refresh")
    return [run for run in found if run["state"]["name"] == "AwaitingConcurrencySlot" and created(run) > since]


def created(run: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(run["created"])


@contextmanager
def device_limit(stack: Stack, tasks: int) -> Iterator[None]:
    limit = {"tag": "wtl-device", "concurrency_limit": tasks}
    stack.api("POST", "/concurrency_limits/", limit)
    yield
    stack.api("POST", "/concurrency_limits/", {**limit, "concurrency_limit": 9})


def encoder_tasks(stack: Stack, state: str, since: datetime) -> list[dict[str, Any]]:
    """Tasks of the encoder stage, of all runs since then, that are in a state now."""
    wanted = {"task_runs": {"name": {"like_": "encoder"}, "state": {"type": {"any_": [state]}}}}
    found = stack.api("POST", "/task_runs/filter", wanted)
    return [task for task in found if created(task) > since]
