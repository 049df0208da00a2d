"""Shared parts of the tests: small real images, a messy source of them, and how `wtl` is called as a stranger does."""

import fcntl
import io
import json
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

TINY = {"encoder": {"name": "pixels"}}


def pytest_configure() -> None:
    """One thread of torch in each process: two workers with two each, on two cores, took ten times as long.

    Threads that wait for each other spin. The variable is read when torch is imported, and by every process below.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def make_jpeg(seed: int, side: int = 40) -> bytes:
    """A small smooth image that differs from every other seed's."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((side, side), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_pictures(folder: Path, *, count: int, side: int = 40) -> Path:
    """A folder of `count` loose images and nothing else."""
    folder.mkdir()
    for seed in range(count):
        (folder / f"{seed}.jpg").write_bytes(make_jpeg(seed, side))
    return folder


TINTS = {"amber": (200, 120, 20), "blue": (20, 40, 200), "cyan": (20, 190, 200)}


def make_tinted(seed: int, tint: tuple[int, int, int]) -> bytes:
    """A small image whose pixels scatter about one colour, as a class of its own."""
    noise = np.random.default_rng(seed).integers(-20, 20, (8, 8, 3))
    pixels = np.clip(np.array(tint) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((40, 40)).save(buffer, "PNG")
    return buffer.getvalue()


def build_source(folder: Path, *, count: int = 64, order_seed: int = 0) -> Path:
    """`count` images over a tar, a Parquet file and loose files, with a copy, a broken file and a text beside them.

    Another `order_seed` puts the same images into other shards in another order.
    """
    order = np.random.default_rng(order_seed).permutation(count)
    images = [make_jpeg(int(i)) for i in order]
    third = count // 3
    (folder / "loose").mkdir(parents=True)
    with tarfile.open(folder / f"a-{order_seed}.tar", "w") as tar:
        for i, data in enumerate(images[:third]):
            member = tarfile.TarInfo(f"{i}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    rows = [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images[third : 2 * third])]
    image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": image}), folder / f"b-{order_seed}.parquet")
    for i, data in enumerate(images[2 * third :]):
        (folder / "loose" / f"{i}.jpg").write_bytes(data)
    (folder / "loose" / "copy.jpg").write_bytes(make_jpeg(0))
    (folder / "loose" / "broken.jpg").write_bytes(make_jpeg(1)[:200])
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture(autouse=True)
def core_lines_are_captured() -> None:
    """Let caplog see the lines of `wtl_core`: prefect, once it has set up logging here, keeps them from the root."""
    logging.getLogger("wtl_core").propagate = True


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return build_source(tmp_path / "source")


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON object that a successful call printed."""
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def use_s3(patch: pytest.MonkeyPatch, address: str, keys: dict[str, str]) -> None:
    """Let both S3 clients of this process ask `address`. fsspec keeps connections of an earlier address."""
    import fsspec

    for name, value in {**keys, "AWS_ENDPOINT_URL": address}.items():
        patch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


S3_KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a fresh server with S3's interface, moto's in this process, with the bucket `team`."""
    import boto3  # here: most tests of the core need neither
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    use_s3(monkeypatch, url, {**S3_KEYS, "AWS_REGION": "us-east-1"})
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket="team")
    yield url
    server.stop()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Selection's own pools, which are as wide as torch's, have two threads although torch has one."""
    import torch

    threads = torch.get_num_threads()
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    yield
    torch.set_num_threads(threads)  # what lets torch have one thread for a while gives it two afterwards


_MAKE_DATABASE = (
    "import asyncio; from prefect.server.database import provide_database_interface as interface\n"
    "asyncio.run(interface().create_db())"
)


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new database of a Prefect server, to be copied into homes: 5 s of migrations, once for all workers."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "prefect-database"
    home.mkdir(exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "made").exists():
            environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
            environment |= {"PREFECT_HOME": str(home), "PREFECT_LOGGING_TO_API_ENABLED": "false"}
            subprocess.run([sys.executable, "-c", _MAKE_DATABASE], check=True, timeout=200, env=environment)
            (home / "made").touch()
    return home / "prefect.db"


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3-compatible server with the bucket `shards`: Ceph's gateway where it is installed."""
    from service_stack import until

    from tests.services import s3_servers

    server = s3_servers.ceph if s3_servers.has_ceph() else s3_servers.moto
    with server(tmp_path_factory.mktemp("bucket")) as (host, port):
        address = f"http://{host}:{port}"
        until(lambda: s3_servers.makes_bucket(address, "shards", S3_KEYS), seconds=150, what="the bucket is there")
        yield address


@pytest.fixture(scope="session")
def stack(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One server, one worker and a folder for all tests of services and browser.

    Its watch is paused: a look each ten seconds, of three seconds of imports, would take a third of a core.
    """
    from service_stack import Stack, running

    folder = tmp_path_factory.mktemp("stack")
    (folder / "shards").mkdir()
    stack = Stack(folder, sources=[str(folder / "shards")], new_database=prefect_database)
    with running(stack), stack.paused("watch"):
        yield stack
