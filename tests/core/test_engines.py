"""The local engine: every item done, by workers that are made once; lost workers, errors, order."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.counting import Squares, read_environment
from tests.plain_ingest import plans_of
from tests.plain_refresh import PIXELS
from tests.service_stack import until
from wtl_core import pipeline
from wtl_core.embedding import chunks
from wtl_core.engines.engine import MOST_LOSSES, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.engines.opening import worker_needs
from wtl_core.errors import ConfigError, InputError, LostWorkersError
from wtl_core.machine import Machine, free_memory
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
    # Of two workers on a busy machine one may stand still for a tenth of a second, while the other goes on.
    work = Squares(tmp_path, seconds=0.01 if workers == 1 else 0.5)
    assert dict(LocalEngine(workers).run(work, NUMBERS, weights=[0, 1, 1, 1, 5, 1, 1])) == EXPECTED
    begun = [name for name in work.begun() if name != "made"]
    assert begun[0 if workers == 1 else slice(0, 2)] in ("9", ["9", "1"], ["1", "9"])
    assert begun[-1] == "3"


def test_what_a_killed_worker_was_at_is_done_by_another(tmp_path: Path) -> None:
    work = Squares(tmp_path, deadly=("4",))
    found = list(LocalEngine(2).run(work, NUMBERS))
    assert dict(found) == EXPECTED
    assert len(found) == len(NUMBERS)
    assert work.begun().count("4") == 2


def test_an_item_that_kills_each_worker_ends_the_run_with_one_message(tmp_path: Path) -> None:
    work = Squares(tmp_path, deadly=("4",), deaths=100)
    message = f"{MOST_LOSSES} were lost over the same piece, most likely because memory ran out; .*with fewer workers"
    with pytest.raises(LostWorkersError, match=message):
        list(LocalEngine(2).run(work, NUMBERS))
    assert work.begun().count("4") == MOST_LOSSES


def test_a_killed_worker_costs_only_what_it_was_at(tmp_path: Path) -> None:
    """Not the others, however often: one that takes long stays with its worker."""
    work, done = Squares(tmp_path, deadly=("1", "4", "15", "2"), held="3"), dict[int, int]()
    for number, square in LocalEngine(2).run(work, NUMBERS):
        done[number] = square
        if len(done) == len(NUMBERS) - 1:
            work.release()
    assert done == EXPECTED
    assert work.begun().count("3") == 1


def test_workers_that_are_killed_while_they_have_nothing_to_do_cost_nothing(tmp_path: Path) -> None:
    work, kills = Squares(tmp_path, held="3"), 0
    for number, _ in LocalEngine(2).run(work, NUMBERS):
        if kills <= MOST_LOSSES:
            kills += 1
            [process] = work.processes(str(NUMBERS[number]))
            psutil.Process(process).kill()
            until(lambda gone=process: not psutil.pid_exists(gone), seconds=30, what="it has ended", every=0.05)
        else:
            work.release()
    assert work.begun().count("made") == 2 + kills
    assert sorted(name for name in work.begun() if name != "made") == sorted(map(str, NUMBERS))


def test_what_makes_the_workers_is_sent_to_each_of_them_once(tmp_path: Path) -> None:
    work = Squares(tmp_path)
    assert dict(LocalEngine(2).run(work, NUMBERS)) == EXPECTED
    assert work.sent() == work.begun().count("made") == 2


@pytest.mark.parametrize(
    ("gpus", "share", "seen", "expected"),
    [
        (2, 1, None, {"0", "1"}),
        (2, 1, "GPU-a,GPU-b", {"GPU-a", "GPU-b"}),
        (4, 1, None, {"0", "2"}),
        (1, 0.5, None, {None}),
        (2, 0, None, {None}),
    ],
)
def test_each_worker_sees_a_gpu_of_its_own_if_there_are_several(
    gpus: int, share: float, seen: str | None, expected: set[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "CUDA_VISIBLE_DEVICES"
    monkeypatch.delenv(name, raising=False) if seen is None else monkeypatch.setenv(name, seen)
    found = dict(LocalEngine(2, gpus=gpus).run(read_environment, [name, name], needs=Needs(gpus=share)))
    assert set(found.values()) == expected


def test_workers_are_no_more_than_have_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wtl_core.engines.local.free_memory", lambda: 2**30 - 1)
    caplog.set_level("INFO")
    work = Squares(tmp_path)
    assert dict(LocalEngine(4).run(work, NUMBERS, needs=Needs(memory_bytes=2**29))) == EXPECTED
    assert work.processes() == {os.getpid()}
    assert "free memory is enough for 1 workers of 4" in caplog.text


def test_free_memory_heeds_the_limit_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wtl_core.machine.CGROUP", tmp_path)
    of_the_machine = free_memory()
    assert of_the_machine > 2**28
    (tmp_path / "memory.stat").write_text(f"anon {2**26}\nfile {2**40}\ninactive_anon 0\n")
    (tmp_path / "memory.max").write_text(f"{2**27}\n")
    assert free_memory() == 2**26
    (tmp_path / "memory.max").write_text("max\n")
    assert free_memory() > 2**27


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (Machine(workers=8), Needs()),
        (Machine(workers=8, device="cuda", devices=2), Needs(gpus=1, device="cuda")),
        (Machine(workers=8, device="cuda:1"), Needs(gpus=1, device="cuda:1")),
        (Machine(engine="ray", ray_worker_cpus=4, device="cuda:1"), Needs(cpus=4)),
        (Machine(engine="ray", ray_worker_gpus=0.5), Needs(gpus=0.5, device="cuda")),
    ],
)
def test_workers_take_what_the_settings_say_and_not_what_this_machine_has(machine: Machine, expected: Needs) -> None:
    assert worker_needs(machine) == expected


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
