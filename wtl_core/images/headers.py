"""What headers say before anything is decoded: size, kind, frames and EXIF of JPEG and PNG, and whether all is there.

libjpeg pads missing data with grey and only warns. torchvision refuses a file that simply ends, but accepts one whose
scan breaks off before an end marker; `scan` finds those.

Own code, since it takes 2 us a file where Pillow takes 20-40 us to open one. EXIF is read here too, since Pillow's
reader takes 13 us and reports damage as warnings, which belong to the whole process.
"""

import re
import struct
from dataclasses import dataclass

from wtl_core.images.faults import ImageError, Reason

_ORIENTATION, _DATE_TIME, _EXIF_FOLDER, _DATE_TIME_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x9003
_MOST_ENTRIES = 512
"""Real folders have some 50 entries; a hostile one can announce 65,535."""
_TIME = re.compile(rb"^(\d{4}):(\d\d):(\d\d)[ T](\d\d):(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Exif:
    """Orientation 1..8 (1 is upright) and the time of the photograph as `YYYY-MM-DDTHH:MM:SS`, without a zone."""

    orientation: int = 1
    taken_at: str | None = None


NO_EXIF = Exif()


def parse_exif(block: bytes) -> Exif:
    """Read a TIFF block (what follows `Exif` and two zero bytes). Never raises: what cannot be read is left out."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return NO_EXIF
    main = _folder(block, order, struct.unpack_from(order + "I", block, 4)[0])
    orientation = _short(block, order, main.get(_ORIENTATION))
    folder = _long(block, order, main.get(_EXIF_FOLDER))
    original = _folder(block, order, folder).get(_DATE_TIME_ORIGINAL) if folder else None
    taken_at = _time(block, order, original) or _time(block, order, main.get(_DATE_TIME))
    return Exif(orientation if 1 <= orientation <= 8 else 1, taken_at)


def _folder(block: bytes, order: str, offset: int) -> dict[int, int]:
    """Offsets of the folder's entries by tag; the first of a repeated tag counts."""
    found: dict[int, int] = {}
    if offset + 2 > len(block):
        return found
    count = min(struct.unpack_from(order + "H", block, offset)[0], _MOST_ENTRIES)
    for entry in range(offset + 2, min(offset + 2 + 12 * count, len(block) - 11), 12):
        found.setdefault(struct.unpack_from(order + "H", block, entry)[0], entry)
    return found


def _short(block: bytes, order: str, entry: int | None) -> int:
    return 1 if entry is None else int(struct.unpack_from(order + "H", block, entry + 8)[0])


def _long(block: bytes, order: str, entry: int | None) -> int:
    return 0 if entry is None else int(struct.unpack_from(order + "I", block, entry + 8)[0])


def _time(block: bytes, order: str, entry: int | None) -> str | None:
    offset = _long(block, order, entry)
    match = _TIME.match(block[offset : offset + 20]) if offset else None
    if match is None or match[1] == b"0000":
        return None
    year, month, day, hour, minute, second = (part.decode() for part in match.groups())
    return f"{year}-{month}-{day}T{hour}:{minute}:{second}"


_STANDALONE = frozenset({0x01, 0xD8, *range(0xD0, 0xD8)})
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_READABLE_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_MOST_SCANS = 1000
"""Real progressive files have some ten; each scan of a hostile one costs a pass over the whole image."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What the markers up to the first scan say; `scan_start` is the first byte of entropy-coded data."""

    width: int
    height: int
    components: int
    frame: int
    exif: Exif
    scan_start: int

    @property
    def is_progressive(self) -> bool:
        """Whether the image comes in several scans over all of it."""
        return self.frame in _PROGRESSIVE


def read_jpeg(data: bytes) -> JpegHeader:
    """Walk the markers up to the first scan.

    Raises:
        ImageError: truncated, corrupt, or a kind of JPEG that no usual decoder reads (lossless, hierarchical).
    """
    position, size, block = 2, len(data), NO_EXIF
    width = height = components = frame = 0
    while True:
        if data[position : position + 1] != b"\xff":
            position = data.find(b"\xff", position)
        while 0 <= position < size and data[position] == 0xFF:
            position += 1
        if position < 0 or position + 3 > size:
            raise ImageError(Reason.TRUNCATED, f"JPEG of {size} bytes ends before its image data begins")
        marker = data[position]
        if marker in _STANDALONE or marker == 0:
            position += 1
            continue
        if marker == 0xD9:
            raise ImageError(Reason.TRUNCATED, "JPEG has an end marker and no image data")
        length = (data[position + 1] << 8) | data[position + 2]
        after = position + 1 + length
        if length < 2:
            raise ImageError(Reason.CORRUPT, f"JPEG segment {marker:#x} at byte {position} has length {length}")
        if after > size:
            raise ImageError(Reason.TRUNCATED, f"JPEG segment {marker:#x} at byte {position} runs past the end")
        if marker in _FRAMES:
            if marker not in _READABLE_FRAMES:
                raise ImageError(Reason.UNSUPPORTED, f"JPEG of kind SOF{marker - 0xC0} (lossless or hierarchical)")
            if length < 8:
                raise ImageError(Reason.CORRUPT, f"JPEG frame header has {length} bytes")
            frame, components = marker, data[position + 8]
            height = (data[position + 4] << 8) | data[position + 5]
            width = (data[position + 6] << 8) | data[position + 7]
        elif marker == 0xE1 and data[position + 3 : position + 9] == b"Exif\0\0" and block is NO_EXIF:
            block = parse_exif(data[position + 9 : after])
        elif marker == 0xDA:
            if not frame or not width or not height:
                raise ImageError(Reason.CORRUPT, f"JPEG announces {width} x {height} pixels before its image data")
            return JpegHeader(width, height, components, frame, block, after)
        position = after


def check_complete(data: bytes, header: JpegHeader) -> None:
    """Refuse a file without an end marker behind its image data, or with absurdly many scans."""
    if data.rfind(b"\xff\xd9", header.scan_start) < 0:
        raise ImageError(Reason.TRUNCATED, f"JPEG of {len(data)} bytes has no end marker")
    if header.is_progressive and data.count(b"\xff\xda") > _MOST_SCANS:
        raise ImageError(Reason.UNSUPPORTED, f"progressive JPEG with more than {_MOST_SCANS} scans")


_PNG_HEADER_BYTES = 33
_MOST_CHUNKS = 1_000_000
"""A chunk takes 12 bytes at least, so that 12 MB hold a million; real files have some thousands at most."""


@dataclass(frozen=True, slots=True)
class PngHeader:
    """Size, bits per channel, frames (1 unless animated) and EXIF."""

    width: int
    height: int
    frames: int
    exif: Exif


def read_png(data: bytes) -> PngHeader:
    """Walk all chunks to IEND.

    Raises:
        ImageError: truncated (a chunk runs past the end, or IEND is missing) or corrupt (no IHDR).
    """
    if len(data) < _PNG_HEADER_BYTES:
        raise ImageError(Reason.TRUNCATED, f"PNG of {len(data)} bytes ends in its header")
    length, kind, width, height = struct.unpack_from(">I4sII", data, 8)
    if kind != b"IHDR" or length != 13:
        raise ImageError(Reason.CORRUPT, "PNG does not begin with IHDR")
    frames, block, position, has_pixels = 1, NO_EXIF, 8, False
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
            block = parse_exif(data[position + 8 : position + 8 + length])
        has_pixels = has_pixels or kind == b"IDAT"
        position += 12 + length
    raise ImageError(Reason.CORRUPT, f"PNG with more than {_MOST_CHUNKS} chunks")
