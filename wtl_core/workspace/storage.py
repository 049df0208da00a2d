"""Files of a workspace or a source, in a local folder or under an `s3://` prefix, read and written through one class.

Here: whole-file reads, writes that are seen complete or not at all, and creation that fails if the file is there.
Not here: what the files mean (`workspace`, `pool`), and LanceDB, which brings its own storage options.
"""

import errno
import io
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlsplit

import fsspec

from wtl_core.errors import ConfigError, TransientError

if TYPE_CHECKING:
    import polars as pl

TEMPORARY_PREFIX = ".tmp-"
"""Local files of unfinished writes begin so; whoever holds the workspace's lease may delete them."""

_LEFT_BEHIND_SECONDS = 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_TEXT = re.compile(r"os error ({})\b".format("|".join(map(str, _FULL))))
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What file systems without hard links answer: exFAT, some mounts of SMB and FUSE."""
_CLAIM_SECONDS = 60.0
"""A claim is held for one look and one rename, so an older one is of a creator that was killed."""
_RELOOK_SECONDS = 0.01
_CONNECT_SECONDS, _READ_SECONDS, ATTEMPTS = 10, 60, 5
_PASSING_STATUS = (408, 409, 425, 429)
_PASSING_CODES = ("RequestTimeout", "SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded")
"""Answers that say `not now`; some servers give these codes with status 400."""


@dataclass(frozen=True)
class Store:
    """A root folder or prefix; keys below it are relative and use `/`. Small: connections are made on use.

    In a bucket every call may raise TransientError (the store keeps failing) or ConfigError (access denied).

    Attributes:
        root: An absolute local path, or `s3://bucket/prefix`, without a trailing slash.
    """

    root: str

    @property
    def is_local(self) -> bool:
        """Whether the root is a local folder."""
        return not self.root.startswith("s3://")

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system of the root. Credentials come from the SDK's usual chain, never from here."""
        return filesystem(self.root)

    def path(self, key: str) -> str:
        """The full path or URI of `key`."""
        return f"{self.root}/{key}" if key else self.root

    def exists(self, key: str) -> bool:
        """Whether a file or folder stands at `key`."""
        with self._translate_errors(key):
            return bool(self.fs.exists(self.path(key)))

    def read_bytes(self, key: str) -> bytes:
        """The file's bytes. Raises FileNotFoundError if there is none."""
        with self._translate_errors(key):
            return cast(bytes, self.fs.cat_file(self.path(key)))

    def read_frame(self, key: str, columns: Sequence[str] | None = None) -> "pl.DataFrame":
        """A Parquet file as a frame, or these columns of it. Raises FileNotFoundError if there is none."""
        import polars as pl  # here: a machine that only trains or embeds may lack it

        return pl.read_parquet(io.BytesIO(self.read_bytes(key)), columns=None if columns is None else list(columns))

    def scan_frame(self, key: str) -> "pl.LazyFrame":
        """A Parquet file to be read in part, from a bucket whole. Raises FileNotFoundError if there is none."""
        import polars as pl

        source = Path(self.path(key)) if self.is_local else io.BytesIO(self.read_bytes(key))
        if isinstance(source, Path) and not source.exists():
            raise FileNotFoundError(str(source))
        return pl.scan_parquet(source, glob=False)

    def write_frame(self, key: str, frame: "pl.DataFrame") -> None:
        """Write a frame as a whole Parquet file, as `write_bytes` does."""
        self.write_bytes(key, to_parquet(frame))

    @contextmanager
    def reader(self, key: str) -> Iterator[IO[bytes]]:
        """A seekable binary file. Raises FileNotFoundError if there is none."""
        with self._translate_errors(key), self.fs.open(self.path(key), "rb") as handle:
            yield handle

    def write_bytes(self, key: str, data: bytes) -> None:
        """Write a whole file; readers see the old one or the new one, never a part."""
        with self.writer(key) as handle:
            handle.write(data)

    @contextmanager
    def writer(self, key: str) -> Iterator[IO[bytes]]:
        """A binary file that appears at `key` when the block ends well, and not at all if it raises or is killed.

        A full disk is a ConfigError: waiting makes no room.
        """
        if self.is_local:
            target = Path(self.path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = _temporary(target)
            try:
                with explain_full_disk(str(target.parent), target.name), temporary.open("wb") as handle:
                    yield handle
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with self._translate_errors(key):
            handle = self.fs.open(self.path(key), "wb", autocommit=False)
            try:
                yield handle
                handle.close()
            except BaseException:
                handle.discard()
                handle.closed = True  # else its destructor would try to upload the rest
                raise
            handle.commit()

    def create(self, key: str, data: bytes) -> bool:
        """Write a whole file if none is there; False, and nothing changed, if one is. Atomic on both kinds of store.

        On a file system without hard links, a creator that is killed in the middle may let the next one wait for 60 s.
        A full disk is a ConfigError.
        """
        if self.is_local:
            target = Path(self.path(key))
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = _temporary(target)
            try:
                with explain_full_disk(str(target.parent), target.name):
                    with temporary.open("wb") as handle:
                        handle.write(data)
                        handle.flush()
                        os.fsync(handle.fileno())
                    _link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
            return True
        with self._translate_errors(key):
            try:
                self.fs.pipe_file(self.path(key), data, mode="create")
            except FileExistsError:
                return False
            except OSError as error:
                if error_code(error) in ("PreconditionFailed", "412"):  # s3fs raises a bare EINVAL for some servers'
                    return False
                raise
            return True

    def delete(self, key: str) -> None:
        """Remove a file; nothing happens if there is none."""
        with self._translate_errors(key):
            try:
                self.fs.rm_file(self.path(key))
            except FileNotFoundError:
                return

    def delete_folder(self, key: str) -> None:
        """Remove a folder with all that is in it; nothing happens if there is none."""
        with self._translate_errors(key), suppress(FileNotFoundError):
            self.fs.rm(self.path(key), recursive=True)

    def modified(self, key: str) -> datetime:
        """When a file was last written, with its time zone. Raises FileNotFoundError if there is none."""
        with self._translate_errors(key):
            return cast(datetime, self.fs.modified(self.path(key)))

    def names(self, key: str) -> list[str]:
        """Names of the files and folders directly under `key`, sorted; empty if there is no such folder."""
        with self._translate_errors(key):
            try:
                entries = self.fs.ls(self.path(key), detail=False, refresh=True) if not self.is_local else None
            except FileNotFoundError:
                return []
        if entries is None:
            folder = Path(self.path(key))
            return sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208, names and not paths
        names = (str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        return sorted({name for name in names if name and name != key.rstrip("/").rsplit("/", 1)[-1]})

    def sweep(self) -> None:
        """Delete what killed writers left behind. For the holder of the lease; partial uploads are unseen.

        At the root others may be asking for the lease at this moment, so there only what is old is taken.
        """
        if not self.is_local:
            return
        root, now = Path(self.root), time.time()
        for left in root.rglob(f"{TEMPORARY_PREFIX}*"):
            with suppress(FileNotFoundError):  # one of another's at the root may be gone by now
                if left.is_file() and (left.parent != root or now - left.stat().st_mtime > _LEFT_BEHIND_SECONDS):
                    left.unlink()

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        """Turn a bucket's errors into ConfigError or TransientError; those of a local folder pass through."""
        try:
            yield
        except Exception as error:
            if self.is_local or isinstance(error, (FileNotFoundError, FileExistsError)) or not is_of_store(error):
                raise
            raise explain(error, self.path(key)) from error

    def lance_options(self) -> dict[str, str]:
        """LanceDB's storage options for this root; address and credentials come from its own environment chain.

        LanceDB refuses an `http://` address unless it is told that this is meant; on others this changes nothing.
        """
        return {} if self.is_local else {"allow_http": "true"}


def to_parquet(frame: "pl.DataFrame") -> bytes:
    """A frame as the bytes of a Parquet file; the same frame gives the same bytes."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    return buffer.getvalue()


def open_store(uri: str) -> Store:
    """The store at a local path (made absolute) or an `s3://` URI. Touches nothing.

    Raises:
        ConfigError: the URI has another scheme, or names no bucket.
    """
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme == "s3":
        if not urlsplit(uri).netloc:
            raise ConfigError(f"{uri}: expected s3://bucket/prefix, found no bucket; name one")
        return Store(uri.rstrip("/"))
    if scheme == "file":
        uri = unquote(urlsplit(uri.replace("#", "%23").replace("?", "%3F")).path)
    elif scheme:
        raise ConfigError(f"{uri}: expected a local path or an s3:// URI, found {scheme}://; copy or mount it first")
    return Store(os.path.abspath(os.path.expanduser(uri)))  # noqa: PTH100, PTH111 (links are kept)


def filesystem(uri: str) -> Any:
    """The fsspec file system of `uri`; S3 with limits on every call, since a task's timeout cannot stop one."""
    if not uri.startswith("s3://"):
        return fsspec.filesystem("file")
    limits = {
        "connect_timeout": _CONNECT_SECONDS,
        "read_timeout": _READ_SECONDS,
        "retries": {"max_attempts": ATTEMPTS, "mode": "standard"},
    }
    return fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=limits)


def check_conditional_writes(store: Store, key: str) -> None:
    """Refuse a store that lets a second create overwrite the first: commits would be lost there without an error.

    Raises:
        ConfigError: the store does not honour `If-None-Match: *`.
        TransientError: the store could not be reached.
    """
    if store.is_local:
        return
    probe = f"{key}-{secrets.token_hex(8)}"
    is_first_made = store.create(probe, b"1")
    is_second_made = store.create(probe, b"2")
    store.delete(probe)
    if not is_first_made or is_second_made:
        raise ConfigError(
            f"{store.root}: expected a store that refuses a second conditional write (If-None-Match: *), found one "
            "that lets it pass, which loses commits; use another store for the workspace (as a source this one is fine)"
        )


@contextmanager
def explain_full_disk(folder: str, what: str) -> Iterator[None]:
    """Turn the error of a full disk, or of a full quota, into a ConfigError that says where; others pass through.

    Lance says it in the text of its errors alone, in `folder` as given here.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) and error.errno else 0
        if number not in _FULL and not _FULL_TEXT.search(str(error)):
            raise
        raise ConfigError(
            f"{folder}: expected room to write {what}, found none left; make room there, or name another workspace, "
            "and run again: what was finished is kept"
        ) from error


def _link(temporary: Path, target: Path) -> None:
    """Give the finished file its name. Raises FileExistsError if there is a file of that name."""
    try:
        os.link(temporary, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        claim = _claim(temporary, target)
        try:
            if target.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
            temporary.replace(target)
        finally:
            claim.unlink(missing_ok=True)


def _claim(temporary: Path, target: Path) -> Path:
    """Wait for the sole right to rename a file to `target`: a file beside it, for the caller to delete.

    The claim of a killed creator is passed over after 60 s, by claiming the next number, and left to `Store.sweep`: of
    two that delete an old claim, the second could delete the new claim of the first.
    """
    number, start, written = 0, time.monotonic(), temporary.stat().st_mtime
    while True:
        claim = target.parent / f"{TEMPORARY_PREFIX}claim-{target.name}-{number}"  # ends as no file of a workspace does
        try:
            claim.touch(exist_ok=False)
            return claim
        except FileExistsError:
            now = written + time.monotonic() - start  # by the file system's clock, which may be another host's
            with suppress(FileNotFoundError):
                number += abs(now - claim.stat().st_mtime) > _CLAIM_SECONDS
            time.sleep(_RELOOK_SECONDS)


def _temporary(target: Path) -> Path:
    """A fresh name beside `target`, so that the rename stays on one file system."""
    return target.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"


def is_of_store(error: BaseException) -> bool:
    """Whether an S3 client raised it: botocore's own errors, and what s3fs makes of the server's answers."""
    modules = [kind.__module__ for kind in type(error).__mro__]
    clients = ("botocore", "aiobotocore", "aiohttp")
    return isinstance(error, OSError) or any(name.startswith(clients) for name in modules)


def is_missing(error: BaseException) -> bool:
    """Whether a store says that there is no such key or bucket."""
    return isinstance(error, FileNotFoundError) or error_code(error) in ("404", "NoSuchKey", "NoSuchBucket", "NotFound")


def is_denied(error: BaseException) -> bool:
    """Whether a store refuses the credentials, or has been given none."""
    codes = ("403", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "401")
    return isinstance(error, PermissionError) or error_code(error) in codes or lacks_credentials(error)


def lacks_credentials(error: BaseException) -> bool:
    """Whether there are no credentials to ask with."""
    return type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError")


def is_refused(error: BaseException) -> bool:
    """Whether a store answered, and will answer the same again: an archived object, say, or one encrypted elsewhere.

    Answers about the state of the server, or about requests that came too often or too late, may change.
    """
    status = _answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error_code(error)
    status = int(code) if code.isdecimal() else status
    return 400 <= status < 500 and status not in _PASSING_STATUS and code not in _PASSING_CODES


def explain(error: BaseException, uri: str) -> ConfigError | TransientError:
    """The store's failure as one of ours."""
    if is_denied(error):
        return ConfigError(f"{uri}: access denied ({error}); check the credentials in the environment")
    if is_missing(error):
        return ConfigError(f"{uri}: no such bucket or key; check the name and the endpoint")
    if type(error).__name__ == "ParamValidationError":
        return ConfigError(f"{uri}: no name that a bucket can have; check it")
    answer = f"{type(error).__name__}: {str(error)[:300]}"
    if is_refused(error):
        return ConfigError(f"{uri}: the store refuses this for good: {answer}; mend it there, or leave it out")
    return TransientError(f"{uri}: the store failed after retries: {answer}; run again")


def error_code(error: BaseException) -> str:
    """The code in a server's answer, such as `NoSuchKey`; empty where there was none."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def _answer(error: BaseException) -> dict[str, Any]:
    """What the server answered, as botocore read it; empty where it did not answer."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response
    return {} if error.__cause__ is None or error.__cause__ is error else _answer(error.__cause__)
