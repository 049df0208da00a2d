"""Objects of a bucket as streams, with retries from the byte reached; each asks for the listed version alone."""

import io
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from wtl_core.errors import ConfigError
from wtl_core.shards import bucket
from wtl_core.shards.objects import REFUSED_ETAG, ObjectChangedError, SourceObject
from wtl_core.shards.paths import split_s3
from wtl_core.workspace.storage import explain, filesystem, is_denied, is_missing, is_refused

logger = logging.getLogger(__name__)

BLOCK_BYTES = 8 << 20
"""Read by one request, so that its round trip is short beside its transfer."""
_ATTEMPTS, FIRST_PAUSE_SECONDS = 4, 0.2
"""Pauses of 0.2, 0.4 and 0.8 s: the client has waited much longer by itself where the store said to slow down."""


@contextmanager
def open_key(obj: SourceObject) -> Iterator[IO[bytes]]:
    """A seekable, buffered stream of the object as it was listed.

    Raises:
        ObjectChangedError: here or by a later read: the object is not the listed one any more.
        FileNotFoundError, PermissionError, OSError: the store says so; the last for any other refusal.
        TransientError: the store keeps failing.
    """
    yield io.BufferedReader(cast(io.RawIOBase, RangedKey(filesystem("s3://"), obj)), BLOCK_BYTES)


class RangedKey(io.RawIOBase):
    """A key read by ranges, each bound to the listed etag, so that no other version is ever read.

    Where the listing gave no etag, a HEAD request gives one, and size and time must be the listed ones.
    """

    def __init__(self, fs: Any, obj: SourceObject) -> None:
        self._fs, self._uri, self._position = fs, obj.uri, 0
        found = obj
        if not has_etag(obj):
            found = bucket.from_head(obj.source, obj.uri, self._call("head_object", {}))
            if (found.size, found.mtime_ns) != (obj.size, obj.mtime_ns):
                raise ObjectChangedError(obj.uri)
        self._condition, self.size = condition(found), found.size

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read one range."""
        end = min(self._position + len(buffer), self.size)
        if end <= self._position:
            return 0
        data = self._call("get_object", {"Range": f"bytes={self._position}-{end - 1}", **self._condition})
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _call(self, method: str, arguments: dict[str, str]) -> Any:
        return insist(self._fs, self._uri, method, arguments)


def fetch(obj: SourceObject) -> bytes:
    """A whole object by one request, in the listed version alone, whatever is written meanwhile.

    Raises:
        ObjectChangedError: the object is not the listed one any more.
        FileNotFoundError, PermissionError, OSError: the store says so; the last for any other refusal.
        TransientError: the store keeps failing.
    """
    return cast(bytes, insist(filesystem("s3://"), obj.uri, "get_object", condition(obj)))


def has_etag(obj: SourceObject) -> bool:
    """Whether the listing names a version of the object; not where the store gave no etag or refused to describe it."""
    return obj.plain_etag not in ("", REFUSED_ETAG)


def condition(obj: SourceObject) -> dict[str, str]:
    """The argument by which a request reads the listed version or nothing."""
    return {"IfMatch": f'"{obj.plain_etag}"'} if has_etag(obj) else {}


def insist(fs: Any, uri: str, method: str, arguments: dict[str, str]) -> Any:
    """Make a request for one key, and retry it if the failure may pass; a lasting refusal raises at once.

    The client itself retries answers such as 503. A body that breaks off is retried only here.
    """
    bucket_name, key = split_s3(uri)
    for attempt in range(_ATTEMPTS):
        try:
            return bucket.call(fs, method, Bucket=bucket_name, Key=key, **arguments)
        except Exception as error:
            if is_missing(error):
                raise FileNotFoundError(uri) from error
            if is_denied(error):
                raise PermissionError(uri) from error
            if bucket.is_changed(error):
                raise ObjectChangedError(uri) from error
            if is_refused(error):  # an archived object, for example: a retry is of no use, and the run can go on
                raise OSError(str(error)) from error
            explained = explain(error, uri)
            if attempt == _ATTEMPTS - 1 or isinstance(explained, ConfigError):
                raise explained from error
            logger.info("%r: %s, tried again", uri, type(error).__name__)
            time.sleep(FIRST_PAUSE_SECONDS * 2**attempt)
    raise AssertionError
