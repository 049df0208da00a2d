"""Kills, restarts and collisions: the next run ends with what an undisturbed run gives, byte for byte."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import lancedb
import pytest
from service_stack import Stack, last_commit, now, plain_ranking, ranking_of, until

from tasks.event_resources import workspace_resource
from tests.conftest import build_source, make_jpeg
from tests.services.drill import IN_PARTS, PIXELS, STAGES, drill

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def quiet(stack: Stack) -> Iterator[Stack]:
    """The stack without its watch and without runs started again by themselves."""
    with stack.paused("watch"):
        stack.enable_automations("wtl-crashed", enabled=False)
        yield stack
        stack.enable_automations("wtl-crashed", enabled=True)


def test_killed_in_each_stage_the_next_run_ends_the_same(quiet: Stack, tmp_path: Path) -> None:
    """Of several parts one is done when the kill comes, in ingest and in embedding; the encoder is trained."""
    source = build_source(tmp_path / "source", count=150)
    expected = plain_ranking(source, tmp_path / "undisturbed", IN_PARTS)
    workspace, parts, embedded = tmp_path / "workspace", {}, {}
    for stage in STAGES:
        drill(quiet, source, workspace, stage, IN_PARTS)
        assert last_commit(workspace) is None, stage
        parts[stage] = len(list((workspace / "pool").glob("*.parquet")))
        embedded[stage] = sum(rows_of(table) for table in (workspace / "vectors").glob("*.lance"))
    quiet.finish("refresh", workspace=str(workspace), sources=[str(source)], recipe=IN_PARTS)
    assert 0 < parts["ingest"] < parts["commit"]
    assert 0 < embedded["embedding"] < embedded["commit"] == 150
    assert ranking_of(workspace) == expected


def rows_of(table: Path) -> int:
    return int(lancedb.connect(table.parent).open_table(table.stem).count_rows())


def test_the_server_may_restart_in_mid_run(quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path) -> None:
    source, expected = undisturbed
    workspace = tmp_path / "workspace"
    env = quiet.stall("wtl_core.ingest:run_many", tmp_path)
    marker = Path(env.pop("marker"))
    run_id = quiet.start_run("refresh", job_env=env, workspace=str(workspace), sources=[str(source)], recipe=PIXELS)
    until(marker.exists, seconds=150, what="the run is in ingest", every=0.1)
    assert quiet.server.process is not None
    quiet.server.process.kill()
    quiet.server.process.wait()
    quiet.server.stop()
    time.sleep(3)
    quiet.start_server()
    marker.unlink()
    run = quiet.wait(run_id, seconds=180)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert ranking_of(workspace) == expected


def test_two_at_once_the_second_waits_and_takes_in_the_rest(
    quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path
) -> None:
    source = shutil.copytree(undisturbed[0], tmp_path / "source")
    late = tmp_path / "late.jpg"
    shutil.move(next((source / "loose").glob("4*.jpg")), late)
    workspace = tmp_path / "workspace"
    env = quiet.stall("wtl_core.ingest:run_many", tmp_path)
    marker = Path(env.pop("marker"))
    given = {"workspace": str(workspace), "sources": [str(source)], "recipe": PIXELS}
    first = quiet.start_run("refresh", job_env=env, **given)
    until(marker.exists, seconds=150, what="the first is in ingest", every=0.1)
    shutil.move(late, source / "loose" / "late.jpg")
    second = quiet.start_run("refresh", **given)
    until(lambda: quiet.run(second)["state"]["name"] == "AwaitingConcurrencySlot", seconds=90, what="the second waits")
    by_hand = quiet.wtl("run", source, "--workspace", workspace, "--encoder", "pixels", check=False)
    assert by_hand.returncode == 4, by_hand.stderr
    assert "only writer" in by_hand.stderr
    marker.unlink()
    assert [quiet.wait(run)["state"]["type"] for run in (first, second)] == ["COMPLETED"] * 2
    commit = last_commit(workspace)
    assert commit is not None
    assert commit["number"] == 2
    assert commit["counts"]["new_samples"] == 1


def test_a_cancelled_run_leaves_a_sound_workspace(
    quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, expected = undisturbed
    workspace = tmp_path / "workspace"
    env = quiet.stall("wtl_core.ingest:run_many", tmp_path)
    marker = Path(env.pop("marker"))
    run_id = quiet.start_run("refresh", job_env=env, workspace=str(workspace), sources=[str(source)], recipe=PIXELS)
    until(marker.exists, seconds=150, what="the run is in ingest", every=0.1)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    quiet.api("POST", f"/flow_runs/{run_id}/set_state", {"state": state})
    assert quiet.wait(run_id)["state"]["type"] == "CANCELLED"
    assert not (workspace / "lease.json").exists()
    quiet.finish("refresh", workspace=str(workspace), sources=[str(source)], recipe=PIXELS)
    assert ranking_of(workspace) == expected


def test_a_failed_run_says_what_where_and_what_to_do(quiet: Stack, tmp_path: Path) -> None:
    source = build_source(tmp_path / "source", count=9)
    for number in range(30):
        (source / f"broken-{number}.jpg").write_bytes(b"\xff\xd8\xff broken")
    recipe = {**PIXELS, "ingest": {"quarantine_budget": 0.1}}
    workspace, started = str(tmp_path / "w"), now()
    run_id = quiet.start_run("refresh", workspace=workspace, sources=[str(source)], recipe=recipe)
    run = quiet.wait(run_id)
    assert run["state"]["type"] == "FAILED"
    assert run["name"].startswith("failed in gather-pool: 31 of "), run["name"]
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": ["failure"]}}}
    (page,) = quiet.api("POST", "/artifacts/filter", wanted)
    assert "What to do" in page["data"]
    told = until(
        lambda: quiet.events("wtl.quarantine.exceeded", workspace_resource(workspace), since=started),
        seconds=60,
        what="the event for the automation",
    )
    assert "quarantined" in told[0]["payload"]["message"]


def test_a_lost_run_is_called_crashed_and_started_again(quiet: Stack) -> None:
    """Nobody tells the server that the machine is gone: the missing heartbeat does, and the run comes again."""
    stack = quiet
    (stack.folder / "shards" / "one.jpg").write_bytes(make_jpeg(77))
    stack.enable_automations("wtl-crashed", enabled=True)
    try:
        env = stack.stall("wtl_core.arrivals:wait_until_quiet", stack.folder, when="before")
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
