"""Kills, restarts and cancelling: the next run ends with what an undisturbed run gives, byte for byte."""

from pathlib import Path

import pytest
from service_stack import Stack, artifact, failed_run, now, ranking_of, until

from tasks.prefect_side.event_resources import workspace_resource
from tests.conftest import build_source
from tests.services.drill import PIXELS, given, kill_in_each_stage, restart_the_server, stand_still

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]


def test_killed_in_each_stage_the_next_run_ends_the_same(
    quiet: Stack, undisturbed_in_parts: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, expected = undisturbed_in_parts
    kill_in_each_stage(quiet, source, tmp_path / "workspace")
    assert ranking_of(tmp_path / "workspace") == expected


def test_the_server_may_restart_in_mid_run(quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path) -> None:
    source, expected = undisturbed
    run_id = restart_the_server(quiet, source, tmp_path / "workspace")
    assert ranking_of(tmp_path / "workspace") == expected
    assert "of" in artifact(quiet, run_id, "ingest-progress")["description"]


def test_a_cancelled_run_leaves_a_sound_workspace(
    quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, expected = undisturbed
    workspace = tmp_path / "workspace"
    run_id, _ = stand_still(quiet, source, workspace, "wtl_core.pool.ingest:run_many", PIXELS)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    quiet.api("POST", f"/flow_runs/{run_id}/set_state", {"state": state})
    assert quiet.wait(run_id)["state"]["type"] == "CANCELLED"
    assert not (workspace / "lease.json").exists()
    quiet.finish("refresh", **given(source, workspace, PIXELS))
    assert ranking_of(workspace) == expected


def test_a_failed_run_says_what_where_and_what_to_do(quiet: Stack, tmp_path: Path) -> None:
    source = build_source(tmp_path / "source", count=9)
    for number in range(30):
        (source / f"broken-{number}.jpg").write_bytes(b"\xff\xd8\xff broken")
    recipe = {**PIXELS, "ingest": {"quarantine_budget": 0.1}}
    workspace, started = str(tmp_path / "w"), now()
    run_id = quiet.start_run("refresh", **given(source, Path(workspace), recipe))
    run, page = failed_run(quiet, run_id)
    assert run["name"].startswith("failed in gather-pool: 31 of "), run["name"]
    assert "What to do" in page["data"]
    told = until(
        lambda: quiet.events("wtl.quarantine.exceeded", workspace_resource(workspace), since=started),
        seconds=60,
        what="the event for the automation",
    )
    assert "quarantined" in told[0]["payload"]["message"]
