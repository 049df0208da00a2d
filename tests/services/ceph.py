"""Ceph's S3 gateway for tests: one monitor, one store in memory, one gateway on loopback; some 13 s to start."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from service_stack import free_port

PACKAGES = "radosgw ceph-mon ceph-osd"


def is_installed() -> bool:
    """Whether its programs are there."""
    return all(shutil.which(name) for name in ("radosgw", "ceph-mon", "ceph-osd", "radosgw-admin"))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[tuple[str, int]]:
    """Host and port of a gateway that knows the user `test` with the secret `testtest`."""
    port = free_port()
    script = Path(__file__).with_name("start_ceph.sh")
    try:
        subprocess.run(["bash", str(script), str(folder), str(port), str(free_port())], check=True, timeout=120)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield "127.0.0.1", port
    finally:
        for pid_file in folder.glob("*.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid_file.read_text()), 9)
