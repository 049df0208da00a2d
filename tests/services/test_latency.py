"""How long it takes from landing to a run, with the shipped values; a file of its own, so that it can run alone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_stack import Stack, note, now, seconds_between, until

from flows.serving.site_values import Site
from tests.conftest import S3_KEYS
from tests.services.landing import first_refresh, make_shard, ranked
from tests.services.s3_servers import client

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


@pytest.fixture
def shipped(stack: Stack) -> Iterator[Stack]:
    """The stack with a look as often as shipped."""
    site = stack.site.read_text()
    assert "watch_seconds = 10\n" in site
    stack.site.write_text(site.replace("watch_seconds = 10\n", f"watch_seconds = {Site().watch_seconds}\n"))
    stack.wtl("deploy", "--site", stack.site)
    yield stack
    stack.site.write_text(site)
    stack.wtl("deploy", "--site", stack.site)


def test_what_lands_is_ranked_within_a_minute(shipped: Stack, bucket: str, tmp_path: Path) -> None:
    """A look every 30 s and a debounce of at most 10 s, as shipped; a shard in the folder and one in the bucket."""
    stack = shipped
    first_refresh(stack)
    make_shard(tmp_path / "folder.tar", 0)
    make_shard(tmp_path / "bucket.tar", 1000)
    data, server = (tmp_path / "bucket.tar").read_bytes(), client(bucket, S3_KEYS)
    before, landed = ranked(stack.workspace), {}
    stack.wait_for_a_look()  # what lands now waits longest for the next one: the figure is no lucky one
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
