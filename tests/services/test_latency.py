"""How long it takes from landing to a run, with the shipped values; a file of its own, so that it can run alone."""

import time
from datetime import datetime
from pathlib import Path

import pytest
from service_stack import Stack, note, now, seconds_between, until

from tests.conftest import S3_KEYS
from tests.services.landing import first_refresh, make_shard, ranked
from tests.services.s3_servers import client

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


def wait_for_the_end_of_a_look(stack: Stack) -> None:
    """What lands now waits longest for the next look, so the figure is the same each time, and no lucky one."""
    since = now()

    def has_ended() -> bool:
        runs = [run for run in stack.runs("watch") if run["state"]["type"] == "COMPLETED"]
        return any(datetime.fromisoformat(run["end_time"]) > since for run in runs)

    until(has_ended, seconds=120, what="a look of the watch ends", every=0.2)


def test_what_lands_is_ranked_within_a_minute(stack: Stack, bucket: str, tmp_path: Path) -> None:
    """A look every 30 s and a debounce of at most 10 s, as shipped; a shard in the folder and one in the bucket."""
    first_refresh(stack)
    make_shard(tmp_path / "folder.tar", 0)
    make_shard(tmp_path / "bucket.tar", 1000)
    data, server = (tmp_path / "bucket.tar").read_bytes(), client(bucket, S3_KEYS)
    before, landed = ranked(stack.workspace), {}
    wait_for_the_end_of_a_look(stack)
    landed["folder"] = now()
    (tmp_path / "folder.tar").rename(stack.workspace.parent / "shards" / "folder.tar")
    landed["bucket"] = now()
    server.put_object(Bucket="shards", Key="incoming/bucket.tar", Body=data)
    until(lambda: ranked(stack.workspace) == before + 24, seconds=150, what="all 24 images are ranked")
    ready = time.time()
    run = until(lambda: stack.runs("refresh", since=landed["folder"]), seconds=20, what="its run")[0]
    figures = {
        where: {
            "arrival to run start, s": round(seconds_between(when, run["start_time"]), 1),
            "arrival to ranking, s": round(ready - when.timestamp(), 1),
        }
        for where, when in landed.items()
    }
    note("arrivals", figures)
    stack.wait(run["id"])
    assert stack.run(run["id"])["name"].endswith("24 new images")
    assert all(figure["arrival to run start, s"] < 60 for figure in figures.values()), figures
