"""The local engine: every item done, by workers that are made once; lost workers, errors, order."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.counting import Squares
from tests.plain_ingest import plans_of
from tests.plain_refresh import PIXELS
from wtl_core import pipeline
from wtl_core.embedding import chunks
from wtl_core.engines.engine import MOST_LOSSES, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.errors import ConfigError, InputError, TransientError
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.recipe.ingest import IngestParams
from wtl_core.workspace.storage import Store

NUMBERS = [3, 1, 4, 15, 9, 2, 6]
EXPECTED = {number: value * value for number, value in enumerate(NUMBERS)}


def test_each_item_is_done_once_by_workers_that_are_made_once(tmp_path: Path) -> None:
    work = Squares(tmp_path, seconds=0.1)
    assert dict(LocalEngine(2).run(work, NUMBERS)) == EXPECTED
    assert len(work.processes()) == 2
    assert os.getpid() not in work.processes()
    assert sorted(work.begun()) == sorted(["made", "made", *map(str, NUMBERS)])


@pytest.mark.parametrize(
    ("engine", "numbers", "needs"),
    [(LocalEngine(1), NUMBERS, Needs()), (LocalEngine(4), [3], Needs()), (LocalEngine(4), NUMBERS, Needs(cpus=3))],
)
def test_one_worker_is_this_process(tmp_path: Path, engine: LocalEngine, numbers: list[int], needs: Needs) -> None:
    work = Squares(tmp_path)
    assert dict(engine.run(work, numbers, needs=needs)) == {n: value * value for n, value in enumerate(numbers)}
    assert work.processes() == {os.getpid()}
    assert work.begun() == ["made", *map(str, numbers)]


def test_nothing_to_do_makes_no_worker(tmp_path: Path) -> None:
    assert list(LocalEngine(2).run(Squares(tmp_path), [])) == []
    assert not list(tmp_path.iterdir())


def test_workers_are_no_more_than_gpus(tmp_path: Path) -> None:
    work = Squares(tmp_path, seconds=0.1)
    assert dict(LocalEngine(8, gpus=1).run(work, NUMBERS, needs=Needs(gpus=0.5))) == EXPECTED
    assert len(work.processes()) == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_the_heaviest_items_are_begun_first_and_equals_in_their_order(tmp_path: Path, workers: int) -> None:
    work = Squares(tmp_path, seconds=0.05)
    assert dict(LocalEngine(workers).run(work, NUMBERS, weights=[0, 1, 1, 1, 5, 1, 1])) == EXPECTED
    begun = [name for name in work.begun() if name != "made"]
    assert begun[0 if workers == 1 else slice(0, 2)] in ("9", ["9", "1"], ["1", "9"])
    assert begun[-1] == "3"


def test_what_a_killed_worker_was_at_is_done_by_another(tmp_path: Path) -> None:
    work = Squares(tmp_path, deadly=4)
    found = list(LocalEngine(2).run(work, NUMBERS))
    assert dict(found) == EXPECTED
    assert len(found) == len(NUMBERS)
    assert work.begun().count("4") == 2


def test_an_item_that_kills_each_worker_ends_the_run_with_one_message(tmp_path: Path) -> None:
    work = Squares(tmp_path, deadly=4, deaths=100)
    with pytest.raises(TransientError, match=f"killed {MOST_LOSSES} times, most likely because memory ran out"):
        list(LocalEngine(2).run(work, NUMBERS))
    assert work.begun().count("4") == MOST_LOSSES


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_item_raises_comes_out_as_it_was_raised(tmp_path: Path, workers: int) -> None:
    with pytest.raises(InputError, match="expected another number than 15"):
        list(LocalEngine(workers).run(Squares(tmp_path, refused=15), NUMBERS))


def test_workers_end_with_the_loop_over_their_results(tmp_path: Path) -> None:
    work = Squares(tmp_path, seconds=0.2)
    for _ in LocalEngine(2).run(work, NUMBERS):
        break
    deadline = time.monotonic() + 30
    while any(map(psutil.pid_exists, work.processes())):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(work.begun()) < 2 + len(NUMBERS)


@dataclass(frozen=True)
class Elsewhere:
    """An engine whose workers keep what they write to themselves, as on a node with a disk of its own."""

    result: Any

    def run(self, make_worker: object, items: Sequence[object], **_: object) -> Iterator[tuple[int, Any]]:
        return ((number, self.result) for number, _item in enumerate(items))


def test_vectors_that_a_worker_staged_elsewhere_are_refused(source: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "w"))
    run = pipeline.plan_refresh(store, [str(source)], PIXELS, Machine())
    pipeline.ingest_parts(run, 0)
    encoder = pipeline.ensure_encoder(run)
    [chunk] = pipeline.plan_embedding(run, encoder)
    worker = chunks.VectorWorker(store, encoder, Machine())
    with pytest.raises(ConfigError, match="expected what a worker has written, found nothing"):
        chunks.run_spread(chunk, store, Elsewhere(chunks.Staged("elsewhere", [])), worker, needs=Needs())
    embedded = chunks.run_spread(chunk, store, LocalEngine(1), worker, needs=Needs())
    assert embedded.images == 64


def test_parts_that_a_worker_made_elsewhere_are_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "IMAGES_WORTH_A_WORKER", 0)
    monkeypatch.setattr(ingest, "open_engine", lambda _machine: Elsewhere(None))
    params = IngestParams(part_images=20)
    with pytest.raises(ConfigError, match="expected what a worker has written, found nothing"):
        ingest.run_many(plans_of(source, params), Store(str(tmp_path / "w")), params, Machine(workers=2))
