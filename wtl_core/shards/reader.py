"""Objects opened and read. First bytes decide what an object is; its failures and changes become entries or errors.

Failures that may pass are retried a few times, from the byte reached; a lasting one is a refused entry. Only the
version that was listed is read, since its size and time (or etag) name the part that holds it. An object that is
another version when it is opened is a refused entry, and the next run reads it. One that changes while it is read
raises `ObjectChangedError`, and the caller begins its part again.
"""

import io
import logging
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import islice
from typing import IO, NamedTuple

from wtl_core.errors import ConfigError, TransientError
from wtl_core.images import kinds
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards import archives, bucket, folder, paths, remote, tables
from wtl_core.shards.objects import (
    MISSING_SIZE,
    SPECIAL_ETAG,
    Entries,
    Entry,
    ObjectChangedError,
    SourceObject,
    classify,
)

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 1 << 20
_FETCHES, _SMALL_BYTES = 32, 4 << 20
"""Requests at a time, each for an object of at most so many bytes: they hide each other's waiting, in 128 MiB."""
_SHARD_KINDS = ("tar", "parquet", "zip")


def read_objects(objects: Sequence[SourceObject], *, max_file_bytes: int) -> Iterator[tuple[SourceObject, Entries]]:
    """Yield each object with its entries, in order. Small loose objects of a bucket are fetched ahead, in parallel.

    The entries of one object are to be used up before the next is asked for.
    """
    ahead: deque[Future[bytes]] = deque()
    small = [obj for obj in objects if _is_small_and_remote(obj)]
    with ThreadPoolExecutor(_FETCHES, thread_name_prefix="fetch") as pool:
        queue = iter(small)
        try:
            for obj in objects:
                if not _is_small_and_remote(obj):
                    yield obj, read_object(obj, max_file_bytes=max_file_bytes)
                    continue
                ahead.extend(pool.submit(remote.fetch, each) for each in islice(queue, _FETCHES - len(ahead)))
                yield obj, _read_fetched(obj, ahead.popleft(), max_file_bytes)
        finally:
            for future in ahead:
                future.cancel()


def _is_small_and_remote(obj: SourceObject) -> bool:
    is_small = obj.kind == "loose" and 0 <= obj.size <= _SMALL_BYTES
    return is_small and paths.is_s3(obj.uri) and remote.has_etag(obj)


def _read_fetched(obj: SourceObject, future: "Future[bytes]", max_file_bytes: int) -> Entries:
    try:
        yield from _read_stream(obj, io.BytesIO(future.result()), max_file_bytes)
    except ObjectChangedError:
        yield changed_entry(obj)
    except ImageError as error:
        yield Entry("", -1, -1, max(obj.size, 0), reason=error.reason, note=error.message)
    except OSError as error:
        yield _unreadable(obj, error)


def read_object(obj: SourceObject, *, max_file_bytes: int) -> Entries:
    """Yield what one object holds: its members, or itself.

    A shard that cannot be read (further) ends with one refused entry of key "". So does an object that is not the
    listed one any more, if that shows before its first entry.

    Raises:
        ObjectChangedError: it was written to meanwhile; entries given so far do not count.
        TransientError: the store keeps failing.
    """
    if obj.etag == SPECIAL_ETAG:
        yield Entry("", 0, -1, 0, note="pipe, socket or device")
        return
    has_given = False
    try:
        with open_object(obj) as stream:
            for entry in _read_stream(obj, stream, max_file_bytes):
                has_given = True
                yield entry
    except ObjectChangedError:
        if has_given:
            raise
        yield changed_entry(obj)
    except ImageError as error:
        yield Entry("", -1, -1, max(obj.size, 0), reason=error.reason, note=error.message)
    except OSError as error:
        yield _unreadable(obj, error)


class NotAFileError(OSError):
    """A path leads to a folder, pipe, socket or device. It is not opened, since that can wait for ever."""


class Wanted(NamedTuple):
    """Where an image lay in its object when it was ingested."""

    key: str
    ordinal: int
    offset: int
    byte_length: int


def read_again(uri: str, wanted: list[Wanted]) -> Iterator[bytes | None]:
    """Yield the bytes of members of one object, one for each asked for, in ascending ordinals; None if gone.

    A plain tar and a loose file are read where the image lies; other shards are read through from the start. Whether
    the bytes are still the same image is for the caller to check.
    """
    given = 0
    try:
        for data in _read_again(describe_now(uri), wanted):
            yield data
            given += 1
    except (OSError, ObjectChangedError) as error:
        logger.warning("%r cannot be read again: %s", uri, error)
    yield from [None] * (len(wanted) - given)


def _read_again(obj: SourceObject, wanted: list[Wanted]) -> Iterator[bytes | None]:
    if wanted[0].key == "" or wanted[0].offset >= 0:
        with open_object(obj) as stream:
            for place in wanted:
                stream.seek(max(place.offset, 0))
                yield stream.read(place.byte_length)
        return
    left = iter(wanted)
    place = next(left)
    for entry in read_object(obj, max_file_bytes=max(each.byte_length for each in wanted)):
        if entry.ordinal < place.ordinal:
            continue
        yield entry.data
        following = next(left, None)
        if following is None:
            return
        place = following


def is_readable(uri: str, *, is_whole: bool = False) -> bool:
    """Whether the object can be opened and its first byte read, or all of it with `is_whole`."""
    try:
        with open_object(describe_now(uri)) as stream:
            read = stream.read(1)
            while read and is_whole:
                read = stream.read(_BUFFER_BYTES)
    except (OSError, ConfigError, TransientError, ObjectChangedError):
        return False
    return True


def read_targets(uri: str, ordinals: Sequence[int]) -> list[str]:
    """URIs that rows of a Parquet file name instead of holding an image; empty if the file cannot be read now."""
    try:
        with open_object(describe_now(uri)) as stream:
            named = tables.read_targets(stream, ordinals)
    except (*tables.UNREADABLE, ConfigError, TransientError, ObjectChangedError):
        return []
    found = []
    for name in named:
        with suppress(ConfigError):  # no URI that could ever be read
            found.append(_resolve(name, uri))
    return found


def describe_now(uri: str) -> SourceObject:
    """The object as it is now."""
    if paths.is_s3(uri):
        return bucket.describe_uri("", uri)
    return folder.describe_uri("", uri)


def changed_entry(obj: SourceObject) -> Entry:
    """The refusal of an object that is not the listed one any more, whatever it is by name."""
    note = "written to after it was listed; the next run reads what is there then"
    return Entry("", -1, -1, max(obj.size, 0), reason=Reason.CHANGED, note=note)


def _unreadable(obj: SourceObject, error: OSError) -> Entry:
    if isinstance(error, FileNotFoundError):
        reason, note = Reason.MISSING, "listed, and not there when it was read"
    elif isinstance(error, PermissionError):
        reason, note = Reason.ACCESS_DENIED, "not readable with the present permissions or credentials"
    elif isinstance(error, NotAFileError):
        reason, note = Reason.UNSUPPORTED, "folder, pipe, socket or device"
    else:
        reason, note = Reason.READ_ERROR, f"{type(error).__name__}: {str(error)[:300]}"
    entry = Entry("", -1, -1, max(obj.size, 0), note=note)
    if obj.kind in _SHARD_KINDS or kinds.claims_image(obj.uri):
        entry.reason = reason
    else:
        entry.note = f"no image by name, and {reason}: {note}"
    return entry


@contextmanager
def open_object(obj: SourceObject) -> Iterator[IO[bytes]]:
    """A seekable stream of the object as it was listed, which is checked on entering and on leaving.

    Raises:
        ObjectChangedError: it is another one by now; in a bucket, reading from the stream may raise this too.
        FileNotFoundError: it was listed as missing, or is missing now.
        NotAFileError: a local path leads to something else than a file.
    """
    if obj.size == MISSING_SIZE:
        raise FileNotFoundError(obj.uri)
    if paths.is_s3(obj.uri):
        with remote.open_key(obj) as stream:
            yield stream
        return
    path = paths.path_of(obj.uri)
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116, names may not be UTF-8
        raise NotAFileError(path)
    with open(path, "rb", buffering=_BUFFER_BYTES) as stream:  # noqa: PTH123
        _check_unchanged(obj, stream)
        try:
            yield stream
        except ImageError:  # a shard that grows looks broken
            _check_unchanged(obj, stream)
            raise
        _check_unchanged(obj, stream)


def _check_unchanged(obj: SourceObject, stream: IO[bytes]) -> None:
    status = os.fstat(stream.fileno())
    if (status.st_size, status.st_mtime_ns) != (obj.size, obj.mtime_ns):
        raise ObjectChangedError(obj.uri)


def settle_kind(obj: SourceObject, head: bytes) -> str:
    """What the object is by its first bytes: `tar`, `gz`, `zst`, `parquet`, `zip`, or `loose`.

    Only objects named like a shard, or without a suffix, can be shards: office documents are zips too.
    """
    has_suffix = "." in obj.uri.rsplit("/", 1)[-1]
    if obj.kind in _SHARD_KINDS or not has_suffix:
        found = kinds.sniff_container(head)
        if found is not None:
            return found
        if obj.kind == "tar" and kinds.sniff_image(head) is None and len(head) == kinds.HEAD_BYTES:
            return "tar"  # before 1988 tars had no magic; the checksum decides
    return "loose"


def _read_stream(obj: SourceObject, stream: IO[bytes], max_file_bytes: int) -> Entries:
    head = stream.read(kinds.HEAD_BYTES)
    kind = settle_kind(obj, head)
    if kind == "loose":
        yield _loose(obj, stream, head, max_file_bytes)
        return
    stream.seek(0)
    if kind in ("tar", "gz", "zst"):
        yield from archives.read_tar(stream, kind, size=obj.size, max_file_bytes=max_file_bytes)
    elif kind == "zip":
        yield from archives.read_zip(stream, size=obj.size, max_file_bytes=max_file_bytes)
    else:
        for row in tables.read_table(stream, max_file_bytes=max_file_bytes):
            yield row if isinstance(row, Entry) else _fetch(row, obj, max_file_bytes)


def _loose(obj: SourceObject, stream: IO[bytes], head: bytes, max_file_bytes: int) -> Entry:
    entry = Entry("", 0, -1, max(obj.size, len(head)))
    if obj.kind in _SHARD_KINDS and kinds.sniff_image(head) is None:
        entry.reason, entry.note = Reason.BROKEN_SHARD, f"named like a {obj.kind}, begins {head[:8]!r}"
    elif classify(entry, obj.uri, head):
        data = head + stream.read(max_file_bytes + 1 - len(head)) if len(head) == kinds.HEAD_BYTES else head
        entry.size = max(obj.size, len(data))
        if len(data) > max_file_bytes:
            entry.reason, entry.note = Reason.TOO_LARGE, f"{entry.size} bytes, {max_file_bytes} allowed"
        else:
            entry.data = data
    return entry


def _resolve(name: str, table_uri: str) -> str:
    """What a row of a table names: relative to the table's folder. Raises ConfigError."""
    return paths.resolve(name, table_uri.rsplit("/", 1)[0])


def _fetch(row: tables.UriRow, obj: SourceObject, max_file_bytes: int) -> Entry:
    """The entry of an image that a row names. It claims to be an image, so a failure is always a refusal."""
    entry, uri = Entry(row.key, row.ordinal, -1, 0, metadata=row.metadata), row.uri
    try:
        uri = _resolve(row.uri, obj.uri)
        with open_object(describe_now(uri)) as stream:
            data = stream.read(max_file_bytes + 1)
    except ConfigError as error:
        entry.reason, entry.note = Reason.UNSUPPORTED, str(error)
    except ObjectChangedError:  # it is not an object of the part, so beginning the part again would not help
        entry.reason, entry.note = Reason.CHANGED, f"{uri[:200]}: written to while it was read"
    except (OSError, ValueError) as error:
        failed = _unreadable(
            SourceObject(obj.source, uri, "tar", 0, 0, ""), error if isinstance(error, OSError) else OSError(error)
        )
        entry.reason, entry.note = failed.reason, f"{uri[:200]}: {failed.note}"
    else:
        entry.size = len(data)
        if len(data) > max_file_bytes:
            entry.reason, entry.note = Reason.TOO_LARGE, f"{uri[:200]}: more than {max_file_bytes} bytes"
        elif classify(entry, "row.jpg", data[: kinds.HEAD_BYTES]):
            entry.data = data
    return entry
