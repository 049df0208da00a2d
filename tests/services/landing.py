"""Shards that land in the watched folder, and what has become of them."""

import io
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from service_stack import Stack, last_commit, until

from tests.conftest import make_jpeg

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def make_shard(path: Path, first: int, count: int = 12) -> list[bytes]:
    images = [make_jpeg(seed) for seed in range(first, first + count)]
    with tarfile.open(path.with_suffix(".tmp"), "w") as tar:
        for position, data in enumerate(images):
            member = tarfile.TarInfo(f"{position}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path.with_suffix(".tmp").rename(path)
    return images


def ranked(workspace: Path) -> int:
    commit = last_commit(workspace)
    return 0 if commit is None else int(commit["counts"]["ranked"])


def first_refresh(stack: Stack) -> None:
    """See that there was one; let a shard land where no test before this one has."""
    if last_commit(stack.workspace) is None:
        make_shard(stack.workspace.parent / "shards" / "first.tar", 50_000, count=300)
        stack.finish("refresh", quiet_seconds=0)
    until(lambda: not stack.unfinished("refresh"), seconds=120, what="no refresh is under way")


def post_arrival(stack: Stack, key: str, *, is_old: bool = False) -> None:
    """Run the command by which docs/operations.md lets a bucket tell of an arrival; or as it once said, `source`."""
    missing = [package for name, package in (("curl", "curl"), ("uuidgen", "uuid-runtime")) if not shutil.which(name)]
    if missing:
        pytest.skip(f"not installed: apt-get install {' '.join(missing)}")
    (command,) = re.findall(r"^\$ (curl .*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if is_old:
        command = re.sub(r'"sources": \[("[^"]*")\]', r'"source": \1', command)
        assert '"source": "' in command
    resource = stack.api("GET", "/variables/name/wtl_test_resource")["value"]
    told = {"PREFECT_API_URL": f"{stack.place.address}/api", "WTL_RESOURCE": resource}
    told |= {"BUCKET": "shards", "KEY": key, "ETAG": "1"}
    done = subprocess.run(
        ["bash", "-c", command.replace("curl ", "curl --silent --show-error --fail ", 1)],
        env={**os.environ, **told}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
