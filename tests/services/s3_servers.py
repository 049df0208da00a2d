"""S3-compatible servers for tests, each in processes of its own: Ceph's gateway (some 13 s to start), and moto's."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import botocore.exceptions
from service_stack import free_port, until

CEPH_PACKAGES = "radosgw ceph-mon ceph-osd"


def has_ceph() -> bool:
    """Whether Ceph's programs are installed."""
    return all(shutil.which(name) for name in ("radosgw", "ceph-mon", "ceph-osd", "radosgw-admin"))


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[tuple[str, int]]:
    """Host and port of a gateway before one monitor and one store in memory; user `test`, secret `testtest`."""
    port = free_port()
    script = Path(__file__).with_name("start_ceph.sh")
    try:
        subprocess.run(["bash", str(script), str(folder), str(port), str(free_port())], check=True, timeout=240)
        until(lambda: _answers(port), seconds=120, what="Ceph's gateway answers", every=0.1)
        yield "127.0.0.1", port
    finally:
        for pid_file in folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text()), 9)


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[tuple[str, int]]:
    """Host and port of moto's server, which takes any key."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            until(lambda: _answers(port), seconds=60, what="moto's server answers", every=0.1)
            yield "127.0.0.1", port
        finally:
            server.terminate()
            server.wait()


def makes_bucket(address: str, name: str, keys: dict[str, str]) -> bool:
    """Whether the server makes a bucket, now that it has started."""
    try:
        client(address, keys).create_bucket(Bucket=name)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError):
        return False
    return True


def client(address: str, keys: dict[str, str]) -> "boto3.client":
    """A plain S3 client."""
    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        region_name=keys["AWS_DEFAULT_REGION"],
    )


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    time.sleep(0.1)
    return False
