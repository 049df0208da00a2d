"""How long it takes from landing to a run, with the shipped values; a file of its own, so that it can run alone."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_stack import Stack, note, now, running, seconds_between, until

from flows.serving.site_values import Site
from tests.conftest import S3_KEYS
from tests.services.landing import first_refresh, make_shard, ranked
from tests.services.s3_servers import client

pytestmark = [pytest.mark.services, pytest.mark.timeout(400)]


@pytest.fixture
def shipped(prefect_database: Path, bucket: str, tmp_path: Path) -> Iterator[Stack]:
    """A stack that has ranked once, watches a folder and a bucket, and looks at them as often as shipped."""
    folder = tmp_path / "stack"
    (folder / "shards").mkdir(parents=True)
    sources = [str(folder / "shards"), "s3://shards/incoming"]
    env = {**S3_KEYS, "WTL_S3_ENDPOINT_URL": bucket}
    stack = Stack(folder, sources=sources, env=env, new_database=prefect_database)
    site = re.sub("watch_seconds = .*", f"watch_seconds = {Site().watch_seconds}", stack.site.read_text())
    stack.site.write_text(site)
    with running(stack):
        with stack.paused("watch"):
            first_refresh(stack)
        yield stack


def test_what_lands_is_ranked_within_a_minute(shipped: Stack, bucket: str, tmp_path: Path) -> None:
    """A look every 30 s and a debounce of at most 10 s, as shipped; a shard in the folder and one in the bucket."""
    stack = shipped
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
