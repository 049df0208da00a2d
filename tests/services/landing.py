"""Shards that land in the watched folder, and what has become of them."""

import io
import tarfile
from pathlib import Path

from service_stack import Stack, last_commit, until

from tests.conftest import make_jpeg


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
    """Wait for one; let a shard land where no test before this one has."""
    if last_commit(stack.workspace) is None:
        make_shard(stack.workspace.parent / "shards" / "first.tar", 50_000, count=300)
    until(lambda: ranked(stack.workspace) > 0, seconds=150, what="a first refresh")
    until(lambda: not stack.unfinished("refresh"), seconds=120, what="no refresh is under way")
