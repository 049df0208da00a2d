"""Shards arrive in a watched folder, and are in the ranking without a human step."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from service_stack import Stack, last_commit, note, now, until

from tests.services.landing import first_refresh, make_shard, post_arrival, ranked

pytestmark = pytest.mark.services


def worked(stack: Stack, since: datetime) -> list[dict[str, Any]]:
    """Refresh runs that were executed; those cancelled while they waited, because another covered them, are not."""
    return [run for run in stack.runs("refresh", since=since) if run["state"]["type"] != "CANCELLED"]


@pytest.mark.timeout(400)
def test_a_hundred_shards_in_half_a_minute_start_at_most_two_runs(stack: Stack, tmp_path: Path) -> None:
    first_refresh(stack)
    for number in range(100):
        make_shard(tmp_path / f"{number}.tar", 10_000 + 3 * number, count=3)
    before, landed = ranked(stack.workspace), now()
    with stack.resumed("watch"):
        for number in range(100):
            (tmp_path / f"{number}.tar").rename(stack.workspace.parent / "shards" / f"many-{number}.tar")
            time.sleep(0.3)
        until(lambda: ranked(stack.workspace) == before + 300, seconds=150, what="all 300 images are ranked")
        stack.wait_for_a_look()  # nothing is left that it could start a run for
    until(lambda: not stack.unfinished("refresh"), seconds=60, what="no refresh waits")
    started = worked(stack, landed)
    note("hundred_shards", {"refresh runs": len(started), "names": [run["name"] for run in started]})
    assert 1 <= len(started) <= 2, [run["name"] for run in started]


@pytest.mark.timeout(300)
def test_a_buckets_own_notifications_start_one_run_more_for_what_lands_meanwhile(stack: Stack, tmp_path: Path) -> None:
    """Twenty posts by the command of docs/operations.md, with the watch switched off; the first as it used to be."""
    before, landed = ranked(stack.workspace), now()
    for number in range(20):
        make_shard(tmp_path / f"{number}.tar", 20_000 + 3 * number, count=3)
        (tmp_path / f"{number}.tar").rename(stack.workspace.parent / "shards" / f"posted-{number}.tar")
        post_arrival(stack, f"posted-{number}.tar", is_old=number == 0)
        time.sleep(0.6)
    until(lambda: ranked(stack.workspace) == before + 60, seconds=150, what="all 60 images are ranked")
    until(lambda: not stack.unfinished("refresh"), seconds=60, what="all runs have ended")
    started = worked(stack, landed)
    assert 1 <= len(started) <= 2, [run["name"] for run in started]


def test_the_nightly_run_is_scheduled(stack: Stack) -> None:
    """Prefect 3.8 with a newer SQLAlchemy starts, and schedules nothing."""
    wanted = {"deployments": {"id": {"any_": [stack.deployment("refresh")["id"]]}}, "limit": 50}
    wanted["flow_runs"] = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    until(
        lambda: [run for run in stack.api("POST", "/flow_runs/filter", wanted) if run["auto_scheduled"]],
        seconds=120,
        what="a run is scheduled",
    )


def test_the_ranking_is_of_the_live_pool(stack: Stack) -> None:
    first_refresh(stack)
    commit = last_commit(stack.workspace)
    assert commit is not None
    ranking = pl.read_parquet(stack.workspace / commit["selection"] / "ranking.parquet")
    assert ranking.height == commit["counts"]["samples"]


def test_arrivals_like_what_is_labelled_are_not_worth_a_run_and_others_are(stack: Stack, tmp_path: Path) -> None:
    """With `novelty` the watch embeds what has landed, and tells the server only of what is unlike the labelled."""
    first_refresh(stack)
    commit = last_commit(stack.workspace)
    assert commit is not None
    ranking = pl.read_parquet(stack.workspace / commit["selection"] / "ranking.parquet")
    ranking.select("sample_id").head(40).write_csv(tmp_path / "labels.csv")
    stack.wtl("labels", "add", tmp_path / "labels.csv", "--workspace", stack.workspace)
    make_shard(stack.workspace.parent / "shards" / "alike.tar", 30_000)
    looked = stack.finish("watch", novelty=0.5)
    assert "waiting" in looked["name"], looked["name"]
    landed = now()
    for number in range(30):  # nothing in the pool is black with one white spot
        image = Image.new("RGB", (40, 40))
        image.paste((255, 255, 255), (number, number, number + 6, number + 6))
        image.save(stack.workspace.parent / "shards" / f"black-{number}.png")
    looked = stack.finish("watch", novelty=0.5)
    assert looked["name"].endswith("event sent"), looked["name"]
    run = until(lambda: stack.runs("refresh", since=landed), seconds=60, what="its refresh")[0]
    assert stack.wait(run["id"])["state"]["type"] == "COMPLETED"
