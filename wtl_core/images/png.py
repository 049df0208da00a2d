"""What a PNG's chunks say, read before anything is decoded: size, frames, EXIF, and whether it is all there."""

import struct
from dataclasses import dataclass

from wtl_core.images import exif
from wtl_core.images.exif import Exif
from wtl_core.images.faults import ImageError, Reason

_HEADER_END = 33
_MOST_CHUNKS = 1_000_000


@dataclass(frozen=True, slots=True)
class PngHeader:
    """Size, bits per channel, frames (1 unless animated) and EXIF."""

    width: int
    height: int
    frames: int
    exif: Exif


def read_header(data: bytes) -> PngHeader:
    """Walk all chunks to IEND.

    Raises:
        ImageError: truncated (a chunk runs past the end, or IEND is missing) or corrupt (no IHDR).
    """
    if len(data) < _HEADER_END:
        raise ImageError(Reason.TRUNCATED, f"PNG of {len(data)} bytes ends in its header")
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        raise ImageError(Reason.CORRUPT, "PNG does not begin with IHDR")
    frames, block, position, has_pixels = 1, exif.NO_EXIF, 8, False
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(data):
            raise ImageError(Reason.TRUNCATED, f"PNG of {len(data)} bytes ends before its IEND chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            raise ImageError(Reason.TRUNCATED, f"PNG chunk {kind!r} at byte {position} runs past the end")
        if kind == b"IEND":
            if not has_pixels:
                raise ImageError(Reason.TRUNCATED, "PNG has no IDAT chunk")
            return PngHeader(width, height, frames, block)
        if kind == b"acTL" and length == 8:
            frames = max(struct.unpack_from(">I", data, position + 8)[0], 1)
        elif kind == b"eXIf":
            block = exif.parse(data[position + 8 : position + 8 + length])
        has_pixels = has_pixels or kind == b"IDAT"
        position += 12 + length
    raise ImageError(Reason.CORRUPT, f"PNG with more than {_MOST_CHUNKS} chunks")
