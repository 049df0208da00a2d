"""Runs that nobody ends: they hang, their machine goes away, or they crash each time."""

from pathlib import Path

import pytest
from service_stack import Stack, failed_run, now, ranking_of, until

from tests.conftest import make_jpeg
from tests.services.drill import PIXELS, given
from tests.services.landing import post_arrival

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]


def test_a_run_that_hangs_ends_at_its_limit_and_the_next_goes_on(
    quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, expected = undisturbed
    workspace = tmp_path / "workspace"
    env = quiet.stall("wtl_core.pool.ingest:run_many", tmp_path)
    del env["marker"]
    limited = given(source, workspace, PIXELS, time_limit_hours=10 / 3600)
    run, page = failed_run(quiet, quiet.start_run("refresh", job_env=env, **limited))
    assert run["state"]["name"] == "TimedOut"
    assert run["name"].startswith("failed in ingest: expected the run to end within time_limit_hours"), run["name"]
    assert "raise `time_limit_hours`" in page["data"]
    assert not (workspace / "lease.json").exists()
    quiet.finish("refresh", **given(source, workspace, PIXELS))
    assert ranking_of(workspace) == expected


def test_after_three_crashes_in_a_row_no_event_starts_another(quiet: Stack) -> None:
    """As a refresh that runs out of memory crashes; the next one by hand works, and ends the row."""
    for _ in range(3):
        quiet.call_crashed(quiet.start_run("refresh", in_seconds=3600))
    told = now()
    post_arrival(quiet, "crashing.tar")
    started = until(lambda: quiet.runs("refresh", since=told), seconds=60, what="the event's run")
    run, page = failed_run(quiet, started[0]["id"])
    assert run["name"].startswith("failed in check-crashes: the last 3 runs of this deployment crashed"), run["name"]
    assert "start it by hand" in page["data"]
    (quiet.folder / "shards" / "by-hand.jpg").write_bytes(make_jpeg(78))
    quiet.finish("refresh", quiet_seconds=0)


def test_a_lost_run_is_called_crashed_and_started_again(quiet: Stack) -> None:
    """Nobody tells the server that the machine is gone: the missing heartbeat does, and the run comes again."""
    stack = quiet
    (stack.folder / "shards" / "one.jpg").write_bytes(make_jpeg(77))
    stack.enable_automations("wtl-crashed", enabled=True)
    try:
        env = stack.stall("wtl_core.refresh.arrivals:wait_until_quiet", stack.folder, when="before")
        marker = Path(env.pop("marker"))
        run_id = stack.start_run("refresh", job_env=env)
        until(marker.exists, seconds=150, what="the run stands still", every=0.1)
        until(
            lambda: stack.events("prefect.flow-run.heartbeat", f"prefect.flow-run.{run_id}"),
            seconds=60,
            what="its first heartbeat is known",
        )
        stack.kill_worker()
        stack.worker.start()
        assert stack.wait(run_id, seconds=150)["state"]["type"] == "CRASHED"
        again = until(
            lambda: [
                run
                for run in stack.runs("refresh")
                if (run["created_by"] or {}).get("type") == "AUTOMATION"
                and run["created"] > stack.run(run_id)["end_time"]
            ],
            seconds=90,
            what="it is started again",
        )
        assert stack.wait(again[-1]["id"])["state"]["type"] == "COMPLETED"
    finally:
        stack.enable_automations("wtl-crashed", enabled=False)
