"""What orchestration costs: tasks are parts of some thousand images, however small the shards are."""

from pathlib import Path

import pytest
from service_stack import Stack, last_commit, until

from tests.services.drill import PIXELS
from tests.services.landing import make_shard

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
SHARDS = 1_000


def test_a_thousand_small_shards_are_a_handful_of_tasks(stack: Stack, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(SHARDS):
        make_shard(source / f"{number:04d}.tar", 100_000 + number, count=1)
    run = stack.finish("refresh", workspace=str(tmp_path / "workspace"), sources=[str(source)], recipe=PIXELS)
    commit = last_commit(tmp_path / "workspace")
    assert commit is not None
    assert commit["counts"]["samples"] == SHARDS
    assert len(list((tmp_path / "workspace" / "pool").glob("*.parquet"))) == 1
    wanted = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    tasks = until(lambda: stack.api("POST", "/task_runs/filter", wanted), seconds=30, what="its task runs are recorded")
    assert len(tasks) < 20, [task["name"] for task in tasks]
