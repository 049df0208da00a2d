"""Whether a JPEG's image data reaches its last block: settles files that were cut and then closed or filled with zeros.

libjpeg pads such a file with grey and only warns. torchvision passes no warning on; `simplejpeg` does, so it decodes
suspects once more, at an eighth of their size. Suspects are progressive files, where a lost last scan leaves no grey
behind, and sequential ones with a grey corner or with zeros before their end marker. Not seen: a cut inside the last
unit (16 x 16 pixels) of a sequential file, which leaves the corners as they were.

Not every file is decoded twice: simplejpeg keeps the interpreter, so that decoding threads would wait for each other.
"""

import re

import numpy as np
import simplejpeg

from wtl_core.images.faults import ImageError, Reason
from wtl_core.images.headers import JpegHeader

_END = b"\xff\xd9"
_GREY = b"\x80\x80\x80"
_ZEROS = bytes(32)
"""Fewer zeros can end a scan by chance: they spell the last blocks of a flat image."""
_SPARE_ZEROS = 8
"""Zeros that may belong to the scan itself. All behind them are padding, of the scan (harmless) or instead of it."""
_ENDS_EARLY = ("remature end", "found marker 0xd9 instead of RST")
_STRAY = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
"""libjpeg's warnings that matter here. All others are harmless, or no matter of where the image data ends."""


def check(data: bytes, header: JpegHeader, pixels: np.ndarray) -> None:
    """Refuse a JPEG whose last pixels are padding.

    Args:
        data: A file that has been decoded.
        header: Its header.
        pixels: (H, W, 3) uint8, what the decoder made of it, in any orientation.

    Raises:
        ImageError: TRUNCATED.
    """
    end = data.rfind(_END)
    has_zeros = data.endswith(_ZEROS, 0, end)
    if header.is_progressive:
        _check_scans(data, header)
    elif not has_zeros and not has_grey_corner(pixels):
        return
    if has_zeros:
        # with them, a scan that lacks its end is complete to libjpeg: zeros stand for the shortest codes
        data = data[: len(data[:end].rstrip(b"\0")) + _SPARE_ZEROS] + _END
    _check_end(data, header)


def has_grey_corner(pixels: np.ndarray) -> bool:
    """Whether a corner has exactly the grey that libjpeg pads with."""
    corners = (pixels[-1, -1], pixels[0, 0], pixels[0, -1], pixels[-1, 0])
    return _GREY in [corner.tobytes() for corner in corners]


def _check_end(data: bytes, header: JpegHeader) -> None:
    """Refuse a file whose image data ends too early for libjpeg."""
    warning = _warning_of(data, header)
    stray = _STRAY.search(warning)
    if stray is not None:  # libjpeg's first warning hides the next one, of a restart interval that is not there
        warning = _warning_of(data[: data.rfind(_END) - int(stray[1])] + _END, header)
    if any(early in warning for early in _ENDS_EARLY):
        raise ImageError(Reason.TRUNCATED, "JPEG's image data ends before its last block; the rest is padding")


def _warning_of(data: bytes, header: JpegHeader) -> str:
    """The first warning of libjpeg, or why the file is not decoded at all; empty if all is well."""
    try:
        # as small as can be: only the entropy-coded data is of interest
        simplejpeg.decode_jpeg(
            data, "CMYK" if header.components == 4 else "GRAY", min_height=1, min_width=1, min_factor=8
        )
    except ValueError as error:
        return str(error)
    return ""


def _check_scans(data: bytes, header: JpegHeader) -> None:
    """Refuse a progressive file that lacks whole scans, of which libjpeg does not warn.

    A complete one refines the DC of every component to its last bit and sends all 63 AC bands.
    """
    lacking: dict[int, int] = {}
    # from the first scan to the first end marker: a colour profile before, a preview behind may hold anything
    start, end = data.rfind(b"\xff\xda", 0, header.scan_start), data.find(_END, header.scan_start)
    while 0 <= start < end - 5:
        count = data[start + 4]
        ids = data[start + 5 : start + 5 + 2 * count : 2]
        band = data[start + 5 + 2 * count : start + 8 + 2 * count]
        if len(band) == 3:  # first and last coefficient, bits
            for component in ids:
                for coefficient in range(band[0], min(band[1], 63) + 1):
                    lacking[component * 64 + coefficient] = band[2] & 15
        start = data.find(b"\xff\xda", start + 2, end)
    if len(lacking) < 64 * header.components or any(lacking.values()):
        raise ImageError(Reason.TRUNCATED, "progressive JPEG lacks its last scans; what they would refine is padding")
