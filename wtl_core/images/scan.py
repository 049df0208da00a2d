"""Whether a JPEG's image data reaches its last block: settles files that were cut and then closed or filled with zeros.

libjpeg pads such a file with grey and only warns on stderr. A grey corner, or zeros before the end marker, makes a file
suspect at no cost; only suspects are walked here, block by block, without computing a pixel. Walked: Huffman-coded
sequential scans; of a progressive file only the list of its scans is checked. Not seen: a cut inside the last unit
(16 x 16 pixels) of a sequential file, or inside the last scan of a progressive one.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit

from wtl_core.images.faults import ImageError, Reason
from wtl_core.images.jpeg import JpegHeader

_GREY = b"\x80\x80\x80"
_TAIL = bytes(32)
_HUFFMAN_SEQUENTIAL = (0xC0, 0xC1)
_SPARE_BYTES = 8


def check(data: bytes, header: JpegHeader, pixels: np.ndarray) -> None:
    """Refuse a JPEG whose last pixels are padding.

    Args:
        data: A file that has been decoded.
        header: Its header.
        pixels: (H, W, 3) uint8, what the decoder made of it, in any orientation.

    Raises:
        ImageError: TRUNCATED.
    """
    if header.is_progressive:
        check_scans(data, header)
        return
    end = data.rfind(b"\xff\xd9")
    if has_grey_corner(pixels) or data[end - len(_TAIL) : end] == _TAIL:
        check_blocks(data, header, end)


def has_grey_corner(pixels: np.ndarray) -> bool:
    """Whether a corner has exactly the grey that libjpeg pads with."""
    corners = (pixels[-1, -1], pixels[0, 0], pixels[0, -1], pixels[-1, 0])
    return _GREY in [corner.tobytes() for corner in corners]


@dataclass
class _Tables:
    """What the segments before a scan define: Huffman lookups by class and id, sampling, restart interval."""

    lookups: dict[tuple[int, int], np.ndarray]
    sampling: dict[int, tuple[int, int]]
    restart: int


def check_blocks(data: bytes, header: JpegHeader, end: int) -> None:
    """Walk the first scan of a Huffman-coded sequential file, at some 100 MB a second. Raises ImageError: TRUNCATED."""
    if header.frame not in _HUFFMAN_SEQUENTIAL:
        return
    try:
        tables = _read_tables(data, header.scan_start)
        blocks, num_units = _layout(data, header, tables)
    except (IndexError, KeyError, ValueError):
        return  # the decoder was content with it
    done, reached = _walk(np.frombuffer(data, np.uint8), header.scan_start, *blocks, num_units, tables.restart)
    if done < num_units:
        raise ImageError(
            Reason.TRUNCATED, f"JPEG's image data ends after {done} of {num_units} blocks; the rest is padding"
        )
    zeros_from = len(data[:end].rstrip(b"\0"))
    if zeros_from < reached - _SPARE_BYTES and reached < end - _SPARE_BYTES:
        raise ImageError(Reason.TRUNCATED, f"JPEG is filled with zeros from byte {zeros_from}, inside its image data")


def check_scans(data: bytes, header: JpegHeader) -> None:
    """A complete progressive file refines the DC of every component to its last bit and sends all 63 AC bands."""
    lacking: dict[int, int] = {}
    # from the first scan to the first end marker: a colour profile before, a preview behind may hold anything
    start, end = data.rfind(b"\xff\xda", 0, header.scan_start), data.find(b"\xff\xd9", header.scan_start)
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


def _read_tables(data: bytes, scan_start: int) -> _Tables:
    tables, position = _Tables({}, {}, 0), 2
    while position < scan_start:
        if data[position] != 0xFF or data[position + 1] in (0xFF, 0, 1):
            position += 1
            continue
        marker, length = data[position + 1], int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        if marker == 0xC4:  # DHT
            while body:
                count = sum(body[1:17])
                tables.lookups[body[0] >> 4, body[0] & 15] = _lookup(body[1:17], body[17 : 17 + count])
                body = body[17 + count :]
        elif marker in _HUFFMAN_SEQUENTIAL:
            tables.sampling = {body[i]: (body[i + 1] >> 4, body[i + 1] & 15) for i in range(6, 6 + 3 * body[5], 3)}
        elif marker == 0xDD:  # DRI
            tables.restart = int.from_bytes(body[:2], "big")
        position += 2 + length
    return tables


def _lookup(counts: bytes, symbols: bytes) -> np.ndarray:
    """(65536,) int32: length << 8 | symbol of the code that the 16 bits begin with, 0 if none does."""
    lookup = np.zeros(1 << 16, np.int32)
    code = used = 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[used : used + count]:
            lookup[code << (16 - length) : (code + 1) << (16 - length)] = length << 8 | symbol
            code += 1
        used += count
        code <<= 1
    return lookup


def _layout(data: bytes, header: JpegHeader, tables: _Tables) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    """The DC and AC lookups of the blocks of one unit, in order, and the number of units of the first scan."""
    length = int.from_bytes(data[data.rfind(b"\xff\xda", 0, header.scan_start) + 2 :][:2], "big")
    body = data[header.scan_start - length + 2 : header.scan_start]
    parts = [(body[1 + 2 * i], body[2 + 2 * i]) for i in range(body[0])]
    most_wide = max(wide for wide, _ in tables.sampling.values())
    most_high = max(high for _, high in tables.sampling.values())
    if len(parts) == 1:
        wide, high = tables.sampling[parts[0][0]]
        columns = _ceil(_ceil(header.width * wide, most_wide), 8)
        rows = _ceil(_ceil(header.height * high, most_high), 8)
        repeats = [1]
    else:
        columns, rows = _ceil(header.width, 8 * most_wide), _ceil(header.height, 8 * most_high)
        repeats = [tables.sampling[part][0] * tables.sampling[part][1] for part, _ in parts]
    direct = [tables.lookups[0, ids >> 4] for (_, ids), n in zip(parts, repeats, strict=True) for _ in range(n)]
    others = [tables.lookups[1, ids & 15] for (_, ids), n in zip(parts, repeats, strict=True) for _ in range(n)]
    return (np.stack(direct), np.stack(others)), columns * rows


def _ceil(size: int, step: int) -> int:
    return -(-size // step)


@njit(cache=True, nogil=True)
def _walk(
    data: np.ndarray, position: int, direct: np.ndarray, others: np.ndarray, num_units: int, restart: int
) -> tuple[int, int]:
    """Units whose bits are all there, and the byte reached."""
    held, num_held = np.uint64(0), 0
    size = data.shape[0]
    for unit in range(num_units):
        if restart and unit and unit % restart == 0:
            held, num_held = np.uint64(0), 0
            while position + 1 < size and not (data[position] == 0xFF and 0xD0 <= data[position + 1] <= 0xD9):
                position += 1
            if position + 1 >= size or data[position + 1] > 0xD7:
                return unit, position
            position += 2
        for block in range(direct.shape[0]):
            coefficient = 0
            while coefficient < 64:
                while num_held <= 48 and position + 1 < size:
                    byte = data[position]
                    if byte == 0xFF:
                        if data[position + 1] != 0:
                            break
                        position += 1
                    position += 1
                    held = (held << np.uint64(8)) | np.uint64(byte)
                    num_held += 8
                if num_held >= 16:
                    index = (held >> np.uint64(num_held - 16)) & np.uint64(0xFFFF)
                else:
                    index = (held << np.uint64(16 - num_held)) & np.uint64(0xFFFF)
                entry = direct[block, index] if coefficient == 0 else others[block, index]
                length, symbol = entry >> 8, entry & 255
                extra = symbol if coefficient == 0 else symbol & 15
                if length == 0 or length + extra > num_held:
                    return unit, position
                num_held -= length + extra
                if coefficient == 0:
                    coefficient = 1
                elif symbol == 0:
                    break
                else:
                    coefficient += (symbol >> 4) + 1
    return num_units, position - num_held // 8
