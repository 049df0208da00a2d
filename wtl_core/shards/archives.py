"""Entries of a tar (plain, gz, zst) or a zip, with WebDataset's sidecars as metadata and unpacking kept in bounds."""

import gzip
import io
import lzma
import zipfile
import zlib
from typing import IO, cast

import zstandard

from wtl_core.images import kinds
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards import tar
from wtl_core.shards.objects import APPLE_DOUBLE, Entries, Entry, classify, shown
from wtl_core.shards.samples import SampleGroups, is_sidecar

SPARE_BYTES = 256 << 20
_MOST_EXPANSION = 100
"""An archive may unpack to 256 MiB and 100 times its size: real images hardly shrink, bombs grow a thousandfold."""
_ZST_WINDOW_BYTES = 1 << 27
"""Memory that a zst archive may ask for: `zstd --long` asks for as much, a hostile one for 2 GiB."""


def read_tar(stream: IO[bytes], packing: str, *, size: int, max_file_bytes: int) -> Entries:
    """Entries of a tar; `packing` is `tar`, `gz` or `zst`.

    Raises:
        ImageError: BROKEN_SHARD or TOO_LARGE, after the entries before the fault.
    """
    plain = _unpacked(stream, packing, size)
    groups, ordinal = SampleGroups(), -1
    try:
        for ordinal, member in enumerate(tar.read_members(plain, max_file_bytes=max_file_bytes)):
            key = shown(member.name)
            entry = Entry(key, ordinal, member.offset if packing == "tar" else -1, member.size)
            sidecar = _classify_member(entry, member, max_file_bytes)
            yield from groups.add(entry, sidecar)
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        yield from groups.flush()
        raise ImageError(Reason.BROKEN_SHARD, f"{packing} data is damaged or cut: {error}") from error
    except (ImageError, OSError):
        yield from groups.flush()
        raise
    yield from groups.flush()


def _classify_member(entry: Entry, member: tar.TarMember, max_file_bytes: int) -> bytes | None:
    """Set what the member is on its entry. Returns its bytes if it is a sidecar."""
    if not member.is_regular:
        entry.note = "link, sparse or special file"
        if kinds.claims_image(entry.key):
            entry.reason, entry.note = Reason.UNSUPPORTED, "named like an image, is a link, sparse or special file"
        return None
    if classify(entry, entry.key, member.head):
        entry.data = member.data
        if member.data is None:
            entry.reason, entry.note = Reason.TOO_LARGE, f"{member.size} bytes, {max_file_bytes} allowed"
        return None
    return member.data if entry.note != APPLE_DOUBLE and is_sidecar(entry.key, member.size) else None


class _Bounded(io.RawIOBase):
    """A decompressed stream that ends with an error once it has given `limit` bytes."""

    def __init__(self, inner: IO[bytes], limit: int) -> None:
        self._inner, self._left, self._limit = inner, limit, limit

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ImageError(
                Reason.TOO_LARGE, f"archive unpacks to more than {self._limit} bytes; members before are kept"
            )
        return data


def _unpacked(stream: IO[bytes], packing: str, size: int) -> IO[bytes]:
    if packing == "tar":
        return stream
    limit = SPARE_BYTES + _MOST_EXPANSION * size
    if packing == "gz":
        return cast(IO[bytes], _Bounded(cast(IO[bytes], gzip.GzipFile(fileobj=stream)), limit))
    unpacker = zstandard.ZstdDecompressor(max_window_size=_ZST_WINDOW_BYTES)
    reader = unpacker.stream_reader(stream, read_across_frames=True, closefd=False)
    return cast(IO[bytes], _Bounded(cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, reader), 1 << 20)), limit))


def read_zip(stream: IO[bytes], *, size: int, max_file_bytes: int) -> Entries:
    """Entries of a zip, in the order of its directory.

    Raises:
        ImageError: BROKEN_SHARD if the directory cannot be read; a damaged member is one refused entry.
    """
    try:
        archive = zipfile.ZipFile(stream)
        members = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise ImageError(Reason.BROKEN_SHARD, f"zip directory cannot be read: {error}") from error
    groups, left = SampleGroups(), SPARE_BYTES + _MOST_EXPANSION * size
    for ordinal, info in enumerate(members):
        key = shown(info.filename)
        entry = Entry(key, ordinal, -1, info.file_size)
        try:
            data = _zip_member(archive, info, entry, max_file_bytes)
        except OSError:
            yield from groups.flush()
            raise
        left -= len(data)
        if left < 0:
            yield from groups.flush()
            raise ImageError(Reason.TOO_LARGE, "zip unpacks to far more than its size; members before are kept")
        is_whole = entry.reason is None and not entry.note
        if is_whole and classify(entry, key, data[: kinds.HEAD_BYTES]):
            entry.data, is_whole = data, False
        is_side = is_whole and entry.note != APPLE_DOUBLE and is_sidecar(key, len(data))
        yield from groups.add(entry, data if is_side else None)
    yield from groups.flush()


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: Entry, max_file_bytes: int) -> bytes:
    """The member's bytes; empty if they cannot be read, and then the entry says why."""
    try:
        with archive.open(info) as handle:
            data = handle.read(max_file_bytes + 1)
        if len(data) <= max_file_bytes:
            entry.size = len(data)
            return data
        reason, note = Reason.TOO_LARGE, f"more than {max_file_bytes} bytes"
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError) as error:
        reason, note = Reason.CORRUPT, f"zip member cannot be unpacked: {error}"
    except OSError as error:
        if error.errno is not None:  # raised by the disk or the store; bzip2 raises OSError without a number
            raise
        reason, note = Reason.CORRUPT, f"zip member cannot be unpacked: {error}"
    except (RuntimeError, NotImplementedError) as error:
        reason, note = Reason.UNSUPPORTED, f"zip member is encrypted or packed in an unknown way: {error}"
    entry.note = note
    if kinds.claims_image(entry.key):
        entry.reason = reason
    return b""
