"""What a JPEG's markers say, read before anything is decoded: size, kind, EXIF, and whether the file is all there.

libjpeg pads missing data with grey and only warns. torchvision refuses a file that simply ends, but accepts one whose
scan breaks off before an end marker; `scan` settles those.
"""

from dataclasses import dataclass

from wtl_core.images import exif
from wtl_core.images.exif import Exif
from wtl_core.images.faults import ImageError, Reason

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


def read_header(data: bytes) -> JpegHeader:
    """Walk the markers up to the first scan.

    Raises:
        ImageError: truncated, corrupt, or a kind of JPEG that no usual decoder reads (lossless, hierarchical).
    """
    position, size, block = 2, len(data), exif.NO_EXIF
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
        elif marker == 0xE1 and data[position + 3 : position + 9] == b"Exif\0\0" and block is exif.NO_EXIF:
            block = exif.parse(data[position + 9 : after])
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
