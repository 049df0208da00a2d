"""Shards arrive in a watched folder and a watched bucket, and are in the ranking without a human step."""

import io
import json
import tarfile
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from service_stack import Stack, last_commit, note, now, seconds_between, until

from tests.conftest import S3_KEYS, make_jpeg
from tests.services.s3_servers import client

pytestmark = pytest.mark.services


def make_shard(path: Path, first: int, count: int = 12) -> list[bytes]:
    images = [make_jpeg(seed) for seed in range(first, first + count)]
    with tarfile.open(path.with_suffix(".tmp"), "w") as tar:
        for position, data in enumerate(images):
            member = tarfile.TarInfo(f"{position}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.with_suffix(".tmp").rename(path)
    return images


def worked(stack: Stack, since: datetime) -> list[dict[str, Any]]:
    """Refresh runs that were executed; those cancelled while they waited, because another covered them, are not."""
    return [run for run in stack.runs("refresh", since=since) if run["state"]["type"] != "CANCELLED"]


def ranked(workspace: Path) -> int:
    commit = last_commit(workspace)
    return 0 if commit is None else int(commit["counts"]["ranked"])


@pytest.mark.timeout(400)
def test_what_lands_is_ranked_within_a_minute(stack: Stack, bucket: str, tmp_path: Path) -> None:
    """With the shipped values: a look every 30 s and a debounce of at most 10 s."""
    figures = {}
    landings: dict[str, Callable[[], object]] = {}
    make_shard(tmp_path / "folder.tar", 0)
    make_shard(tmp_path / "bucket.tar", 1000)
    landings["folder"] = lambda: (tmp_path / "folder.tar").rename(stack.workspace.parent / "shards" / "folder.tar")
    data, server = (tmp_path / "bucket.tar").read_bytes(), client(bucket, S3_KEYS)
    landings["bucket"] = lambda: server.put_object(Bucket="shards", Key="incoming/bucket.tar", Body=data)
    for where, land in landings.items():
        before, landed = ranked(stack.workspace), now()
        land()
        until(lambda before=before: ranked(stack.workspace) == before + 12, seconds=150, what=f"{where}: ranked")
        run = until(lambda landed=landed: stack.runs("refresh", since=landed), seconds=20, what="its run")[0]
        ready = time.time()
        figures[where] = {
            "arrival to run start, s": round(seconds_between(landed, run["start_time"]), 1),
            "arrival to ranking, s": round(ready - landed.timestamp(), 1),
        }
        stack.wait(run["id"])
        assert stack.run(run["id"])["name"].endswith("12 new images")
    note("arrivals", figures)
    assert all(figure["arrival to run start, s"] < 60 for figure in figures.values()), figures


@pytest.mark.timeout(400)
def test_a_hundred_shards_in_half_a_minute_start_at_most_two_runs(stack: Stack, tmp_path: Path) -> None:
    until(lambda: ranked(stack.workspace) > 0, seconds=120, what="a first refresh")
    before, landed = ranked(stack.workspace), now()
    for number in range(100):
        make_shard(tmp_path / f"{number}.tar", 10_000 + 3 * number, count=3)

    def drop() -> None:
        for number in range(100):
            (tmp_path / f"{number}.tar").rename(stack.workspace.parent / "shards" / f"many-{number}.tar")
            time.sleep(0.3)

    dropping = threading.Thread(target=drop)
    dropping.start()
    dropping.join()
    until(lambda: ranked(stack.workspace) == before + 300, seconds=150, what="all 300 images are ranked")
    time.sleep(35)  # one more look of the watch: nothing is left to start a run
    started = worked(stack, landed)
    note("hundred_shards", {"refresh runs": len(started), "names": [run["name"] for run in started]})
    assert 1 <= len(started) <= 2, [run["name"] for run in started]


@pytest.mark.timeout(300)
def test_a_buckets_own_notifications_start_one_run_more_for_what_lands_meanwhile(stack: Stack, tmp_path: Path) -> None:
    """Twenty posts over plain HTTP, as a bucket's notification does, with the watch switched off."""
    with stack.paused("watch"):
        before, landed = ranked(stack.workspace), now()
        for number in range(20):
            make_shard(tmp_path / f"{number}.tar", 20_000 + 3 * number, count=3)
            (tmp_path / f"{number}.tar").rename(stack.workspace.parent / "shards" / f"posted-{number}.tar")
            post_arrival(stack, f"posted-{number}.tar")
            time.sleep(0.6)
        until(lambda: ranked(stack.workspace) == before + 60, seconds=150, what="all 60 images are ranked")
        until(lambda: not stack.unfinished("refresh"), seconds=60, what="all runs have ended")
        started = worked(stack, landed)
        assert 1 <= len(started) <= 2, [run["name"] for run in started]


def post_arrival(stack: Stack, key: str) -> None:
    """The call that deployments/README.md documents."""
    event = {
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)),
        "occurred": now().isoformat(),
        "event": "wtl.shards.arrived",
        "resource": {"prefect.resource.id": stack.api("GET", "/variables/name/wtl_resource")["value"]},
        "related": [],
        "payload": {"source": "shards", "count": 1, "bytes": 1},
    }
    request = urllib.request.Request(
        f"{stack.place.address}/api/events", json.dumps([event]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204


def test_the_nightly_run_is_scheduled(stack: Stack) -> None:
    """Prefect 3.8 with a newer SQLAlchemy starts, and schedules nothing."""
    wanted = {"deployments": {"id": {"any_": [stack.deployment("refresh")["id"]]}}, "limit": 5}
    wanted["flow_runs"] = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    assert stack.api("POST", "/flow_runs/filter", wanted)


def test_the_ranking_is_of_the_live_pool(stack: Stack) -> None:
    commit = last_commit(stack.workspace)
    assert commit is not None
    ranking = pl.read_parquet(stack.workspace / commit["selection"] / "ranking.parquet")
    assert ranking.height == commit["counts"]["samples"]


def test_arrivals_like_what_is_labelled_are_not_worth_a_run_and_others_are(stack: Stack, tmp_path: Path) -> None:
    """With `novelty` the watch embeds what has landed, and tells the server only of what is unlike the labelled."""
    with stack.paused("watch"):
        until(lambda: ranked(stack.workspace) > 0, seconds=120, what="a first refresh")
        until(lambda: not stack.unfinished("refresh"), seconds=120, what="what the watch had told is ranked")
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
        assert looked["name"].endswith("told"), looked["name"]
        run = until(lambda: stack.runs("refresh", since=landed), seconds=60, what="its refresh")[0]
        assert stack.wait(run["id"])["state"]["type"] == "COMPLETED"
