"""Listing of a local folder: every file below it, workspaces left out. Reads names and stat only."""

import os
import stat
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from wtl_core.errors import InputError
from wtl_core.images import kinds
from wtl_core.shards.objects import MISSING_SIZE, REFUSED_ETAG, SPECIAL_ETAG, SourceObject
from wtl_core.shards.paths import path_of, uri_of

WORKSPACE_MARK = "wtl.json"
_SYSTEM_FOLDER = "lost+found"
"""At the top of every ext file system, readable by root alone; it holds no images."""


def walk(root: str, *, exclude: Sequence[str] = ()) -> Iterator[SourceObject]:
    """Yield the files below `root`, in no order. Symbolic links are followed, each folder once.

    A folder below `root` is listed under its own path. One that only links lead to is listed under the first link. One
    that is removed while the others are listed has no files.

    Raises:
        InputError: a folder cannot be listed; without the error its files would seem to have vanished.
    """
    source = uri_of(root)
    left_out = {os.path.realpath(folder) for folder in exclude}
    seen: set[tuple[int, int]] = set()
    folders, links = [root], list[str]()
    while folders or links:
        folder = folders.pop() if folders else heappop(links)
        try:
            status = os.stat(folder)  # noqa: PTH116
            identity = (status.st_dev, status.st_ino)
            if identity in seen or (left_out and os.path.realpath(folder) in left_out):
                continue
            seen.add(identity)
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            is_gone = isinstance(error, FileNotFoundError | NotADirectoryError)
            is_system = isinstance(error, PermissionError) and os.path.basename(folder) == _SYSTEM_FOLDER  # noqa: PTH119
            if folder != root and (is_gone or is_system):
                continue
            raise InputError(
                f"{uri_of(folder)}: cannot be listed ({error.strerror}); make it readable, or name the folders beside "
                "it as sources"
            ) from error
        if any(entry.name == WORKSPACE_MARK for entry in found):
            continue
        for entry in found:
            if not _is_folder(entry):
                yield describe(source, entry.path, entry)
            elif entry.is_symlink():
                heappush(links, entry.path)
            else:
                folders.append(entry.path)


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a folder; a link that leads nowhere, for example to itself, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def describe(source: str, path: str, entry: "os.DirEntry[str] | None" = None) -> SourceObject:
    """One file as a listing holds it. A missing one has size -1; denied files, pipes and devices are marked."""
    uri = uri_of(path)
    kind = kinds.kind_by_name(path)
    try:
        status = entry.stat() if entry is not None else os.stat(path)  # noqa: PTH116
    except PermissionError:
        return SourceObject(source, uri, kind, 0, 0, REFUSED_ETAG)
    except OSError:  # a broken link, or what a list names
        return SourceObject(source, uri, kind, MISSING_SIZE, 0, "")
    if not stat.S_ISREG(status.st_mode):
        return SourceObject(source, uri, "loose", 0, 0, SPECIAL_ETAG)
    return SourceObject(source, uri, kind, status.st_size, status.st_mtime_ns, "")


def describe_uri(source: str, uri: str) -> SourceObject:
    """One file by its URI."""
    return describe(source, path_of(uri))
