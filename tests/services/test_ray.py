"""The Ray engine on real clusters of this machine: the same results as the local engine, whoever is lost on the way."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.clusters import Nodes, actors_of, disconnect, running_nodes
from tests.conftest import S3_KEYS, build_source, use_s3
from tests.counting import Squares, read_environment
from tests.plain_ingest import write_tar
from tests.plain_refresh import files, ranking, refresh
from tests.service_stack import until
from tests.small_encoders import write_weights
from wtl_core import pipeline
from wtl_core.embedding import chunks, vectors
from wtl_core.engines.engine import MOST_LOSSES, Needs
from wtl_core.engines.ray import RayEngine
from wtl_core.errors import ConfigError, InputError, LostWorkersError, TransientError
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

pytestmark = pytest.mark.services

NUMBERS = [3, 1, 4, 15, 9, 2, 6]
EXPECTED = {number: value * value for number, value in enumerate(NUMBERS)}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running_nodes() as started:
        yield started


@pytest.fixture
def engine(nodes: Nodes) -> RayEngine:
    return RayEngine(nodes.address, cpus=1, gpus=0)


@pytest.fixture(autouse=True)
def nothing_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "IMAGES_WORTH_A_WORKER", 0)
    monkeypatch.setattr(chunks, "IMAGES_WORTH_A_CLUSTER", 0)
    monkeypatch.setattr(chunks, "PIECE_IMAGES", 16)


def test_an_address_without_a_cluster_is_refused_at_once() -> None:
    disconnect()
    with pytest.raises(
        TransientError, match=r"WTL_RAY_ADDRESS=127\.0\.0\.1:9: expected a Ray cluster, found no answer"
    ):
        list(RayEngine("127.0.0.1:9", cpus=1, gpus=0).run(Squares(Path()), NUMBERS))


REFUSED = """
import sys
from tests.counting import read_environment
from wtl_core.engines.ray import RayEngine
from wtl_core.errors import ConfigError

try:
    list(RayEngine(sys.argv[1], cpus=1, gpus=0).run(read_environment, ["HOME"]))
except ConfigError as error:
    print(error)
"""


def test_a_machine_without_the_clusters_token_is_refused_in_one_line(nodes: Nodes, tmp_path: Path) -> None:
    settings = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_TOKEN"}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED, nodes.address],
        env={**settings, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert re.fullmatch(
        r"WTL_RAY_ADDRESS=\S+: expected a Ray cluster .*no authentication token.*its token\n", done.stdout
    )


def test_each_item_is_done_once_by_actors_that_are_made_once(tmp_path: Path, engine: RayEngine) -> None:
    work = Squares(tmp_path, seconds=0.3)
    assert dict(engine.run(work, NUMBERS, weights=[0, 1, 1, 1, 5, 1, 1])) == EXPECTED
    assert 1 <= len(work.processes()) <= 2
    begun = [name for name in work.begun() if name != "made"]
    assert sorted(begun) == sorted(map(str, NUMBERS))
    assert begun.index("9") < 2
    assert begun[-1] == "3"


def test_what_a_killed_actor_was_at_is_done_by_another(
    tmp_path: Path, engine: RayEngine, capfd: pytest.CaptureFixture[str]
) -> None:
    work = Squares(tmp_path, deadly=("4",))
    found = list(engine.run(work, NUMBERS))
    assert dict(found) == EXPECTED
    assert len(found) == len(NUMBERS)
    assert work.begun().count("4") == 2
    assert capfd.readouterr().out == ""  # where nothing but results belongs


def test_an_item_that_kills_each_actor_ends_the_run_with_one_message(tmp_path: Path, engine: RayEngine) -> None:
    work = Squares(tmp_path, deadly=("4",), deaths=100)
    message = f"{MOST_LOSSES} were lost over the same piece, most likely because memory ran out; .*nodes more memory"
    with pytest.raises(LostWorkersError, match=message):
        list(engine.run(work, NUMBERS))
    assert work.begun().count("4") == MOST_LOSSES


def test_workers_load_wherever_there_is_room_and_those_that_a_node_takes_along_count_once(
    tmp_path: Path, nodes: Nodes, engine: RayEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wtl_core.engines.ray.SPARE", 0)
    joined, work = nodes.join(cpus=3), Squares(tmp_path, held="made")

    def kill() -> None:
        try:
            until(lambda: len(work.processes()) == 5, seconds=60, what="five workers load", every=0.05)
            for process in sorted(work.processes())[:MOST_LOSSES]:
                os.kill(process, signal.SIGKILL)
            until(lambda: caplog.text.count("a worker was lost:") == MOST_LOSSES, seconds=30, what="they are missed")
        finally:
            work.release()

    with ThreadPoolExecutor(1) as threads:
        killed = threads.submit(kill)
        assert dict(engine.run(work, NUMBERS, needs=Needs(memory_bytes=2**20))) == EXPECTED
        killed.result()
    nodes.lose(joined)


def test_workers_that_never_start_end_the_run_with_one_message(
    tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wtl_core.engines.ray.TOGETHER_SECONDS", 0.0)
    with pytest.raises(LostWorkersError, match=f"{MOST_LOSSES} were lost as they started, most likely because memory"):
        list(engine.run(Squares(tmp_path, deadly=("made",), deaths=100), NUMBERS))


def test_what_an_item_raises_comes_out_as_it_was_raised_and_the_actors_end(tmp_path: Path, engine: RayEngine) -> None:
    work = Squares(tmp_path, refused=15)
    with pytest.raises(InputError, match="expected another number than 15"):
        list(engine.run(work, NUMBERS))
    until(lambda: not any(map(psutil.pid_exists, work.processes())), seconds=30, what="the actors have ended")


def test_no_room_for_a_worker_is_told(
    tmp_path: Path, engine: RayEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("wtl_core.engines.ray.TELL_SECONDS", 1.0)
    monkeypatch.setattr("wtl_core.engines.ray.PATIENCE_SECONDS", 3.0)
    message = "expected a worker to be at work, found none for"
    with pytest.raises(TransientError, match=message):
        list(engine.run(Squares(tmp_path), NUMBERS, needs=Needs(cpus=64)))
    assert caplog.text.count(message) == 1


def test_credentials_of_the_store_reach_the_actors(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "known")
    monkeypatch.setenv("WTL_UNKNOWN", "kept here")
    asked = ["AWS_ACCESS_KEY_ID", "WTL_UNKNOWN"]
    assert dict(engine.run(read_environment, asked)) == {0: "known", 1: None}


def test_a_node_with_other_packages_is_refused(engine: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wtl_core.engines.ray.metadata.version", lambda _name: "0.0")
    several = "".join(rf".* {name} [\d.]+ for 0\.0" for name in ("numba", "numpy", "pillow-heif", "pyarrow"))
    with pytest.raises(ConfigError, match=f"expected the same packages as on{several}"):
        list(engine.run(read_environment, ["HOME"]))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_source(tmp_path_factory.mktemp("source") / "s", count=240)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    weights = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    write_weights(weights, 1)
    by_regions = {"regions_from": 100, "region_size": 100}
    return Recipe.model_validate(
        {"encoder": {"name": f"file:{weights}"}, "ingest": {"part_images": 20}, "selection": by_regions}
    )


@pytest.fixture(scope="module")
def locally(tmp_path_factory: pytest.TempPathFactory, source: Path, recipe: Recipe) -> tuple[Path, Commit]:
    root = tmp_path_factory.mktemp("local") / "w"
    return root, pipeline.refresh_workspace(Store(str(root)), [str(source)], recipe, Machine(workers=1))


def check_same(root: Path, commit: Commit, locally: tuple[Path, Commit]) -> None:
    """Parts byte for byte, vectors bit for bit, and the ranking row for row."""
    other, expected = locally
    pools = [
        {name: data for name, data in files(each).items() if name.startswith("pool/") and ".tmp-" not in name}
        for each in (root, other)  # the next run deletes what a killed worker had begun to write
    ]
    assert pools[0] == pools[1]
    assert commit.counts == expected.counts
    stores = [Store(str(each)) for each in (root, other)]
    ids = sorted(vectors.existing_ids(stores[1], expected.encoder))
    table = vectors.open_table(stores[0], commit.encoder)
    assert table is not None
    assert sorted(table.search().select(["sample_id"]).to_arrow()["sample_id"].to_pylist()) == ids
    found = [vectors.load(store, expected.encoder, ids).view(np.uint16) for store in stores]
    assert (found[0] == found[1]).all()
    assert ranking(root).equals(ranking(other))


def test_with_actors_lost_in_each_stage_the_result_is_that_of_the_local_engine(
    nodes: Nodes,
    source: Path,
    recipe: Recipe,
    locally: tuple[Path, Commit],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine = Machine(engine="ray", ray_address=nodes.address)
    root, stage = tmp_path / "w", KillingStage()
    commit = pipeline.refresh_workspace(Store(str(root)), [str(source)], recipe, machine, stage=stage)
    check_same(root, commit, locally)
    assert stage.killed.keys() == {"ingest", "embedding", "selection"}
    assert caplog.text.count("ray: a worker was lost; its work is begun again") >= len(stage.killed)
    assert stage.seen["embedding"] == (240, 240)


def test_a_workspace_in_a_bucket_is_filled_by_actors(
    nodes: Nodes,
    source: Path,
    recipe: Recipe,
    locally: tuple[Path, Commit],
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_s3(monkeypatch, bucket, {**S3_KEYS, "AWS_REGION": "us-east-1"})
    store, machine = Store("s3://shards/by-actors"), Machine(engine="ray", ray_address=nodes.address)
    commit = pipeline.refresh_workspace(store, [str(source)], recipe, machine)
    root, expected = locally
    assert commit.counts == expected.counts
    parts = {name: store.read_bytes(f"pool/{name}") for name in store.names("pool")}
    assert parts == {path.name: path.read_bytes() for path in (root / "pool").iterdir()}
    assert selections.read_ranking(store, commit.selection).equals(ranking(root))


class KillingStage:
    """The progress of stages, `seen`; once a stage has done something, the actors at work get SIGKILL."""

    def __init__(self) -> None:
        self.seen, self.killed = dict[str, tuple[int, int]](), dict[str, int]()

    def __call__(self, name: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
        def show(done: int, total: int) -> None:
            if name in ("ingest", "embedding", "selection") and name not in self.killed:
                actors = actors_of(psutil.Process())
                for actor in actors:
                    actor.send_signal(signal.SIGKILL)
                self.killed[name] = len(actors)
            self.seen[name] = (done, total)

        return nullcontext(show)


def test_a_node_that_does_not_see_the_source_is_refused_and_none_of_its_images_is_taken_for_lost(
    nodes: Nodes, source: Path, tmp_path: Path, recipe: Recipe
) -> None:
    worker = ingest.PartWorker(Store(str(tmp_path / "w")), recipe.ingest, (str(tmp_path / "elsewhere"),))
    with pytest.raises(ConfigError, match=f"expected to see {tmp_path}/elsewhere as the machine that runs the refresh"):
        list(RayEngine(nodes.address, cpus=1, gpus=0).run(worker, [None]))  # type: ignore[list-item]


def test_what_a_lost_node_was_at_is_done_by_another_and_a_new_node_takes_part(
    tmp_path: Path, nodes: Nodes, engine: RayEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Of three nodes, one that joined during the work is lost with what it was at."""
    work, done, numbers = Squares(tmp_path, seconds=0.5), dict[int, int](), list(range(60))
    joined = None
    for number, square in engine.run(work, numbers):
        done[number] = square
        if len(done) == 2:
            joined = nodes.join()
        if joined is not None and len(work.processes()) == 3:
            nodes.lose(joined)
            joined = None
    assert joined is None
    assert done == {number: number * number for number in numbers}
    assert "a worker was lost; its work is begun again" in caplog.text


INTERRUPTED = """
import signal, sys
from pathlib import Path
from tests.counting import Squares, read_environment
from wtl_core.engines.ray import RayEngine

def terminate(number, frame):
    raise SystemExit(143)

signal.signal(signal.SIGTERM, terminate)
try:
    print(list(RayEngine(None, cpus=2, gpus=0).run(Squares(Path(sys.argv[1]), seconds=1), list(range(1000)))))
except KeyboardInterrupt:
    raise SystemExit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_actors(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C goes to all processes of the group, as a terminal sends it; SIGTERM to ours alone, as a supervisor does.

    SIGTERM to all ends Ray's own processes too, and its library then ends ours with 1 if it sees that first.
    """
    work = Squares(tmp_path)
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        until(lambda: len(work.begun()) >= 3, seconds=120, what="workers are at work")
        actors = actors_of(psutil.Process(process.pid))
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert printed == b""
    gone(actors)


@pytest.mark.timeout(600)  # two runs, 78 s on two cores that had other work too
def test_a_run_that_is_killed_is_finished_by_the_next_with_the_result_of_the_local_engine(tmp_path: Path) -> None:
    # three commits of vectors for two workers: when the first is staged, the third is still to be made
    source = write_noise(tmp_path / "source", 12_000)
    root = tmp_path / "w"
    command = [sys.executable, "-m", "flows.cli.main", "run", str(source), "-w", str(root), "--encoder", "pixels"]
    settings = {**os.environ, "WTL_ENGINE": "ray", "WTL_WORKERS": "2"}
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        until(lambda: list(root.glob("staging/*/*.arrow")), seconds=200, what="a worker has staged vectors", every=0.1)
        actors = actors_of(psutil.Process(process.pid))
        process.kill()
        process.communicate(timeout=60)
    gone(actors)
    assert not list(root.glob("refreshes/*"))
    done = subprocess.run([*command, "--json"], env=settings, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refresh"] == 1
    assert "ray" not in done.stderr.replace(str(tmp_path), "")  # what Ray says of itself stays in its logs
    refresh(tmp_path / "local", source)
    assert ranking(root).equals(ranking(tmp_path / "local"))


def write_noise(folder: Path, count: int) -> Path:
    """Two tars with `count` different images of noise."""
    folder.mkdir()
    random = np.random.default_rng(0)
    members = []
    for number in range(count):
        buffer = io.BytesIO()
        pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
        members.append((f"{number}.png", buffer.getvalue()))
    for half in range(2):
        write_tar(folder / f"{half}.tar", members[half::2])
    return folder


def gone(processes: list[psutil.Process]) -> None:
    """See that there were processes and that none is left. Ray's own agents take longer to miss their cluster."""
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=30)
    assert not [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
