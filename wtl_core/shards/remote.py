"""Objects of a bucket as streams, with retries from the byte reached and a check that the object stays the same."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from wtl_core.errors import TransientError
from wtl_core.shards import bucket
from wtl_core.shards.objects import ObjectChangedError, SourceObject
from wtl_core.shards.paths import split_s3
from wtl_core.storage import filesystem

_BLOCK_BYTES = 8 << 20
_ATTEMPTS = 5
_FIRST_PAUSE_SECONDS = 0.2


@contextmanager
def open_key(one: SourceObject, endpoint_url: str | None) -> Iterator[IO[bytes]]:
    """A seekable, buffered stream of the object as it is now.

    Raises:
        FileNotFoundError, PermissionError: the store says so.
        TransientError: the store keeps failing.
    """
    yield io.BufferedReader(cast(io.RawIOBase, RangedKey(filesystem("s3://", endpoint_url), one.uri)), _BLOCK_BYTES)


class RangedKey(io.RawIOBase):
    """A key read by ranges, each bound to the etag seen first, so that no two versions are ever mixed."""

    def __init__(self, fs: Any, uri: str) -> None:
        self._fs, self._uri, self._position = fs, uri, 0
        self._bucket, self._key = split_s3(uri)
        answer = self._call("head_object", {})
        self.etag, self.size = str(answer["ETag"]), int(answer["ContentLength"])

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
        data = self._call("get_object", {"Range": f"bytes={self._position}-{end - 1}", "IfMatch": self.etag})
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _call(self, method: str, arguments: dict[str, str]) -> Any:
        for attempt in range(_ATTEMPTS):
            try:
                return self._fs_call(method, arguments)
            except Exception as error:
                if bucket.is_missing(error):
                    raise FileNotFoundError(self._uri) from error
                if bucket.is_denied(error):
                    raise PermissionError(self._uri) from error
                if bucket.is_changed(error):
                    raise ObjectChangedError(self._uri) from error
                if attempt == _ATTEMPTS - 1:
                    raise TransientError(
                        f"{self._uri}: {type(error).__name__}: {str(error)[:300]}; run again"
                    ) from error
                time.sleep(_FIRST_PAUSE_SECONDS * 2**attempt)
        raise AssertionError

    def _fs_call(self, method: str, arguments: dict[str, str]) -> Any:
        if method == "head_object":
            return self._fs.call_s3(method, Bucket=self._bucket, Key=self._key)
        return bucket.get_range(self._fs, self._bucket, self._key, arguments)
