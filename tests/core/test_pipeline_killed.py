"""Refreshes that are killed, or meet another writer: the next one ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_jpeg
from tests.forked import Forks, forked
from tests.plain_refresh import SSL, files, ranking, refresh
from wtl_core import pipeline
from wtl_core.errors import BusyError, TransientError
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import commits, lease
from wtl_core.workspace.storage import Store


def test_a_killed_run_reads_no_part_again_for_what_is_still_missing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for i in range(40):
        (tmp_path / "source" / f"{i}.jpg").write_bytes(make_jpeg(i))
    pq.write_table(pa.table({"path": ["gone.jpg", "0.jpg"]}), tmp_path / "source" / "a.parquet")
    (tmp_path / "source" / "x.jpg").symlink_to("/nowhere/x.jpg")
    store = Store(str(tmp_path / "w"))
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"part_images": 100}})
    made = []
    for _ in range(3):
        pipeline.ingest_parts(pipeline.plan_refresh(store, [str(tmp_path / "source")], recipe, Machine()), 0)
        made.append(store.names("pool"))
    assert made[0] == made[1] == made[2]
    (tmp_path / "source" / "gone.jpg").write_bytes(make_jpeg(99))
    assert refresh(tmp_path / "w", tmp_path / "source", recipe=recipe).counts.quarantined == 1


def test_a_held_workspace_is_busy(source: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "w"))
    with lease.hold(store), pytest.raises(BusyError):
        refresh(tmp_path / "w", source)


@pytest.fixture(scope="module")
def processes() -> Iterator[Forks]:
    with forked(_SCRIPT) as processes:
        yield processes


@pytest.mark.parametrize(
    ("store", "kills"),
    [
        ("bytes", 3),
        ("reference", 2),
        *(pytest.param(store, 20, marks=pytest.mark.slow) for store in ("bytes", "reference")),
    ],
)
def test_a_run_killed_anywhere_is_finished_by_the_next(
    processes: Forks, source: Path, tmp_path: Path, store: str, kills: int
) -> None:
    """SIGKILL when the workspace holds its n-th file, for n spread over the whole run."""
    given = {"encoder": {"name": "pixels"}, "ingest": {"store": store}}
    recipe = Recipe.model_validate(given)
    refresh(tmp_path / "undisturbed", source, recipe=recipe)
    want = ranking(tmp_path / "undisturbed")
    total = len(files(tmp_path / "undisturbed"))
    landed = 0
    for n in range(2, total, max(1, total // kills)):
        root = tmp_path / f"w{n}"
        code, _ = processes.run(
            str(root),
            str(source),
            given,
            kill_when=lambda n=n, root=root: sum(len(names) for _, _, names in os.walk(root)) >= n,
        )
        assert code in (0, -signal.SIGKILL)
        landed += code == -signal.SIGKILL
        refresh(root, source, recipe=recipe)
        assert ranking(root).equals(want), f"killed at file {n} of {total}"
    assert landed >= kills // 2


_SCRIPT = """
from wtl_core import pipeline
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.storage import Store

def work(root, source, given):
    recipe = Recipe.model_validate(given)
    pipeline.refresh_workspace(Store(root), [source], recipe, Machine(embedding_part_images=16))
"""


@pytest.mark.slow
def test_a_run_killed_while_it_trains_ends_with_the_same_ranking(source: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoints; the next run goes on from there, to the same weights."""
    recipe = Recipe.model_validate(SSL)
    refresh(tmp_path / "undisturbed", source, recipe=recipe)
    root = tmp_path / "killed"
    command = [sys.executable, "-c", _TRAINING_SCRIPT, str(root), str(source), json.dumps(SSL)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and not list(root.glob("encoders/.training/*/checkpoint.safetensors")):
            time.sleep(0.002)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert commits.latest(Store(str(root))) is None
    assert not list(root.glob("encoders/*/card.json"))
    refresh(root, source, recipe=recipe)
    assert ranking(root).equals(ranking(tmp_path / "undisturbed"))


_TRAINING_SCRIPT = """
import json, sys
from functools import partial
from wtl_core import pipeline
from wtl_core.training import training
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.storage import Store
training.train = partial(training.train, checkpoint_seconds=0)
recipe = Recipe.model_validate(json.loads(sys.argv[3]))
pipeline.refresh_workspace(Store(sys.argv[1]), [sys.argv[2]], recipe, Machine())
"""


def test_a_commit_whose_answer_was_lost_is_ours_and_anothers_is_not(source: Path, tmp_path: Path) -> None:
    record = refresh(tmp_path / "w", source)
    commits.write(Store(str(tmp_path / "w")), record)
    with pytest.raises(TransientError, match="by another process"):
        commits.write(Store(str(tmp_path / "w")), record.model_copy(update={"created": "later"}))
