"""The Prefect UI as a person sees it: stages, artifacts, the ladder as a picture; screenshots are test output."""

from pathlib import Path
from typing import Any

import pytest
from service_stack import OUTPUT, Stack, artifact, failed_run

from tests.conftest import build_source

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]
SHOTS = OUTPUT / "screenshots"


def test_a_run_is_seen_in_the_ui(browser: Any, stack: Stack, tmp_path: Path) -> None:
    source, workspace = build_source(tmp_path / "source"), str(tmp_path / "workspace")
    done = stack.finish("refresh", workspace=workspace, sources=[str(source)])
    broken = stack.start_run("refresh", workspace=workspace, sources=[str(tmp_path / "nowhere")])
    failed, page = failed_run(stack, broken)
    ui = stack.place.address
    text = browser.open(f"{ui}/runs", shows=done["name"])
    assert failed["name"][:40] in text
    browser.picture(SHOTS / "runs.png")
    # The core's own line is in the run's log.
    text = browser.open(f"{ui}/runs/flow-run/{done['id']}", shows=f"{source}: 27 objects")
    browser.picture(SHOTS / "run.png")
    assert "new image" in text
    text = browser.click("Task Runs", shows="commit")
    browser.picture(SHOTS / "run-tasks.png")
    for task in ("plan", "ingest", "encoder", "embed", "select", "commit"):
        assert task in text, task
    text = browser.click("Artifacts", shows="Coverage against random")
    browser.picture(SHOTS / "run-artifacts.png", height=1600)
    for key in ("accounts", "stages", "ladder", "picks", "pool", "vectors", "ranking", "report"):
        assert key.lower() in text.lower(), key
    picture = artifact(stack, done["id"], "ladder-picture")
    browser.open(f"{ui}/artifacts/artifact/{picture['id']}", shows="Coverage against random")
    width = browser.evaluate("Math.max(...[...document.images].map(image => image.naturalWidth))")
    assert width > 800
    browser.picture(SHOTS / "ladder.png")
    told = artifact(stack, done["id"], "report")
    browser.open(f"{ui}/artifacts/artifact/{told['id']}", shows="Report of refresh 1")
    assert browser.evaluate("Math.max(...[...document.images].map(image => image.naturalWidth))") > 800
    browser.picture(SHOTS / "report-artifact.png")
    pool = artifact(stack, done["id"], "pool")
    browser.open(f"{ui}/artifacts/artifact/{pool['id']}", shows="duplicates")
    browser.picture(SHOTS / "pool.png")
    link = browser.evaluate("[...document.links].find(link => link.innerText.includes('event of this asset')).href")
    browser.open(link, shows="prefect.asset.materialization.succeeded")
    browser.picture(SHOTS / "event.png")
    browser.open(f"{ui}/runs/flow-run/{broken}", shows="check the path")
    browser.picture(SHOTS / "failed.png")
    browser.open(f"{ui}/artifacts/artifact/{page['id']}", shows="What to do")
    browser.picture(SHOTS / "failure.png")
    browser.open(f"{ui}/deployments", shows="refresh-test")
    browser.picture(SHOTS / "deployments.png")
    browser.open(f"{ui}/automations", shows="wtl-arrived-test")
    browser.picture(SHOTS / "automations.png")
