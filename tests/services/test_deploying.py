"""Sites that share a server: what one deploys, another keeps, and a second deploy of the same changes nothing."""

from pathlib import Path

import pytest
from service_stack import Stack, plain_ranking, until

from tests.services.drill import PIXELS

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


def automations(stack: Stack) -> dict[str, dict[str, object]]:
    return {held["name"]: held for held in stack.api("POST", "/automations/filter", {})}


def test_a_deploy_leaves_what_is_the_same_and_what_is_another_sites(stack: Stack, source: Path) -> None:
    """The other site names no sources: its workspace knows one."""
    before = automations(stack)
    plain_ranking(source, stack.folder / "other", PIXELS)
    other = stack.folder / "other.toml"
    other.write_text(f'name = "test-2"\nworkspace = "{stack.folder / "other"}"\nwatch_seconds = 600\n')
    stack.wtl("deploy", "--site", other)
    try:
        stack.wtl("deploy", "--site", stack.site)
        after = automations(stack)
        # A new id would be a new trigger, which knows of no run that has stopped sending heartbeats.
        assert after["wtl-lost-runs"]["id"] == before["wtl-lost-runs"]["id"]
        assert after["wtl-lost-runs"]["trigger"] == before["wtl-lost-runs"]["trigger"]
        assert {"wtl-arrived-test", "wtl-arrived-test-2"} <= set(after)
        places = {stack.deployment("refresh")["parameters"]["workspace"]}
        places.add(stack.api("GET", "/deployments/name/refresh/refresh-test-2")["parameters"]["workspace"])
        looks = stack.api("GET", "/deployments/name/watch/watch-test-2")["schedules"]
        assert [held["schedule"]["interval"] for held in looks] == [600]
        run = stack.wait(stack.start_run_of(stack.api("GET", "/deployments/name/watch/watch-test-2")["id"]))
        assert run["name"].startswith("nothing new in "), run
        assert places == {str(stack.workspace), str(stack.folder / "other")}
    finally:
        flows = ("refresh", "watch", "hand-out", "take-back", "train-encoder", "benchmark", "maintain")
        names = [f"{flow}/{flow}-test-2" for flow in flows]
        held = [stack.api("GET", f"/deployments/name/{name}")["id"] for name in names]
        for deployment in held:
            stack.api("POST", f"/deployments/{deployment}/pause_deployment")
        # A run whose deployment is deleted cannot give its place back, and asks the server for minutes.
        until(
            lambda: not [run for run in stack.unfinished("watch") if run["deployment_id"] in held],
            seconds=90,
            what="no look of the other site is under way",
        )
        for deployment in held:
            stack.api("DELETE", f"/deployments/{deployment}")
