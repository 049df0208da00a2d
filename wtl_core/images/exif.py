"""The two EXIF fields that matter here, orientation and time, from a TIFF block; hostile blocks give nothing."""

import re
import struct
from dataclasses import dataclass

_ORIENTATION, _DATE_TIME, _EXIF_FOLDER, _DATE_TIME_ORIGINAL = 0x0112, 0x0132, 0x8769, 0x9003
_MOST_ENTRIES = 512
_TIME = re.compile(rb"^(\d{4}):(\d\d):(\d\d)[ T](\d\d):(\d\d):(\d\d)")


@dataclass(frozen=True, slots=True)
class Exif:
    """Orientation 1..8 (1 is upright) and the time of the photograph as `YYYY-MM-DDTHH:MM:SS`, without a zone."""

    orientation: int = 1
    taken_at: str | None = None


NO_EXIF = Exif()


def parse(block: bytes) -> Exif:
    """Read a TIFF block (what follows `Exif` and two zero bytes). Never raises: what cannot be read is left out."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None or len(block) < 8:
        return NO_EXIF
    main = _entries(block, order, struct.unpack_from(order + "I", block, 4)[0])
    orientation = _short(block, order, main.get(_ORIENTATION))
    folder = _long(block, order, main.get(_EXIF_FOLDER))
    original = _entries(block, order, folder).get(_DATE_TIME_ORIGINAL) if folder else None
    taken_at = _time(block, order, original) or _time(block, order, main.get(_DATE_TIME))
    return Exif(orientation if 1 <= orientation <= 8 else 1, taken_at)


def _entries(block: bytes, order: str, offset: int) -> dict[int, int]:
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
