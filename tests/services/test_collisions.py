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

from tasks.event_resources import workspace_resource
from tests.services.drill import PIXELS, given, stand_still

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]


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
    return [task for task in found if datetime.fromisoformat(task["created"]) > since]
