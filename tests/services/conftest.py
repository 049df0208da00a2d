"""The stack that the tests of this folder share: one server and one worker, a watched folder and a watched bucket."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from service_stack import Stack, free_port, running, until

from tests.services import ceph

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testtest", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3-compatible server with the bucket `shards`: Ceph's gateway where it is installed."""
    if not ceph.is_installed():
        yield from moto(tmp_path_factory)
        return
    with ceph.running(tmp_path_factory.mktemp("ceph")) as (host, port):
        address = f"http://{host}:{port}"
        until(lambda: _makes_bucket(address), seconds=60, what="the bucket is there")
        yield address


def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: _makes_bucket(address), seconds=60, what="the bucket is there")
        yield address
    finally:
        server.terminate()
        server.wait()
        log.close()


@pytest.fixture(scope="session")
def stack(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    (folder / "shards").mkdir()
    sources = [str(folder / "shards"), "s3://shards/incoming"]
    stack = Stack(folder, sources=sources, env={**KEYS, "WTL_S3_ENDPOINT_URL": bucket})
    with running(stack):
        yield stack


def s3(address: str) -> "boto3.client":
    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )


def _makes_bucket(address: str) -> bool:
    import botocore.exceptions

    try:
        s3(address).create_bucket(Bucket="shards")
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return True


@pytest.fixture
def put_object(bucket: str):
    def put(key: str, path: Path) -> None:
        s3(bucket).put_object(Bucket="shards", Key=key, Body=path.read_bytes())

    return put
