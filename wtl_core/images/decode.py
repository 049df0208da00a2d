"""Decodes image bytes to pixels, in the same way for ingest, encoders and reports. Nothing here measures or stores.

JPEG and PNG are decoded by torchvision, everything else by Pillow. Pixels are upright (EXIF), 8 bits, RGB; alpha is
dropped and the first frame taken, as the usual training loaders do. Size is checked on the header, before pixels exist.
"""

import importlib.util
import io
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from wtl_core.images import headers, kinds, scan
from wtl_core.images.faults import ImageError, Reason

DEFAULT_MAX_PIXELS, HIGHEST_MAX_PIXELS = 100_000_000, 1_000_000_000
_SMALL_PIXELS = 256 * 256
"""Larger JPEGs are decoded one by one: a decoder is busy with each for so long that threads hardly wait, and their
pixels would fill the memory."""
_RGB = 3  # torchvision's ImageReadMode.RGB
_PILLOW_FORMATS = {"jpeg": "JPEG", "png": "PNG", "gif": "GIF", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP"}
_PILLOW_FORMATS |= {"avif": "AVIF", "heic": "HEIF"}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # Pillow names the buffer that it was given, by where it lay in memory


class _PillowScope:
    """Holds while any thread decodes with Pillow: its warnings are off, and so is its limit of pixels.

    Pillow warns about damage that it either repairs or then refuses. Our limit stands in for its own: ours is a
    parameter and gives a reason. Both belong to the whole process, so the first thread switches them off and the last
    one puts them back as they were.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_threads = 0
        self._settings = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            self._num_threads += 1
            if self._num_threads == 1:
                self._settings.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
                self._settings.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                Image.MAX_IMAGE_PIXELS = None

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_threads -= 1
            if self._num_threads == 0:
                self._settings.close()


_pillow_scope = _PillowScope()


@dataclass(frozen=True, slots=True)
class Decoded:
    """Upright pixels (H, W, 3) uint8, and what the header said."""

    pixels: np.ndarray
    format: str
    is_first_of_several: bool
    taken_at: str | None


@cache
def load_codecs() -> None:
    """Make torchvision's codecs callable as `torch.ops.image`; called before the first image.

    Only their library is loaded. The package around it imports torch's compiler, which costs each process that decodes
    1.0 s.
    """
    package = importlib.util.find_spec("torchvision")
    folder = Path((package and package.origin) or "").parent
    library = next(folder.glob("image*.so"), None)
    if library is None:  # another layout of the package: it knows its own
        import torchvision.io  # noqa: F401
    else:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]


def decode_rgb(data: bytes) -> torch.Tensor:
    """Pixels (3, H, W) uint8 of an image file, upright and RGB; memory is laid out row by row (`channels_last`).

    Raises:
        ImageError: the bytes are refused, with the reason.
    """
    pixels = decode(data, max_pixels=HIGHEST_MAX_PIXELS).pixels  # ingest has applied the recipe's limit
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decode_trusted(files: Sequence[bytes]) -> Iterator[np.ndarray | ImageError]:
    """Decode files that ingest has verified, without verifying them again: the same pixels as `decode` gives.

    For threads that decode side by side. Of the small JPEGs all headers are read, then all are decoded. File by file,
    two threads were no faster than one: a thread that comes back from torch waits for the interpreter, which the other
    one is using.

    Args:
        files: Bytes whose SHA-256 is the id of a sample in the pool. Of others, damage goes unseen if libjpeg pads it.

    Yields:
        Upright pixels (H, W, 3) uint8 of each file in order, or why it cannot be decoded.
    """
    small = [_small_jpeg_header(data) for data in files]
    planes = [_planes_or_none(data, header) for data, header in zip(files, small, strict=True)]
    for data, found in zip(files, planes, strict=True):
        try:
            yield _decode(data, HIGHEST_MAX_PIXELS, 1, is_verified=True).pixels if found is None else _rows(found)
        except ImageError as error:
            yield error


def _small_jpeg_header(data: bytes) -> headers.JpegHeader | None:
    """The header of a file that is decoded beside others; None for all that are decoded by themselves."""
    if kinds.sniff_image(data[: kinds.HEAD_BYTES]) != "jpeg":
        return None
    try:
        header = headers.read_jpeg(data)
    except ImageError:
        return None
    return header if header.width * header.height <= _SMALL_PIXELS else None


def _planes_or_none(data: bytes, header: headers.JpegHeader | None) -> torch.Tensor | None:
    try:
        return None if header is None else _jpeg_planes(data, header)
    except RuntimeError:
        return None


def decode(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS, min_side_px: int = 1) -> Decoded:
    """Decode and verify an image file. Its first bytes decide what format it is read as, not its name.

    Raises:
        ImageError: the bytes are refused, with the reason.
    """
    return _decode(data, max_pixels, min_side_px, is_verified=False)


def _decode(data: bytes, max_pixels: int, min_side_px: int, *, is_verified: bool) -> Decoded:
    kind = kinds.sniff_image(data[: kinds.HEAD_BYTES])
    if kind is None:
        reason = Reason.NOT_AN_IMAGE if data else Reason.EMPTY
        raise ImageError(reason, f"expected an image, found {len(data)} bytes that begin {data[:8]!r}")
    if kind == "jpeg":
        return _decode_jpeg(data, max_pixels, min_side_px, is_verified=is_verified)
    if kind == "png":
        return _decode_png(data, max_pixels, min_side_px)
    if kind == "other":
        raise ImageError(Reason.UNSUPPORTED, f"image of a format that is not read here, begins {data[:12]!r}")
    return _decode_pillow(data, kind, max_pixels, min_side_px)


def check_size(width: int, height: int, *, max_pixels: int, min_side_px: int) -> None:
    """Refuse a size that a header announces.

    Raises:
        ImageError: too many pixels, or a side too short.
    """
    if width * height > max_pixels:
        raise ImageError(Reason.TOO_MANY_PIXELS, f"{width} x {height} pixels announced, {max_pixels} allowed")
    if min(width, height) < min_side_px:
        raise ImageError(Reason.TOO_SMALL, f"{width} x {height} pixels, a side of at least {min_side_px} is needed")


def _decode_jpeg(data: bytes, max_pixels: int, min_side_px: int, *, is_verified: bool) -> Decoded:
    header = headers.read_jpeg(data)
    check_size(header.width, header.height, max_pixels=max_pixels, min_side_px=min_side_px)
    if not is_verified:
        headers.check_complete(data, header)
    try:
        planes = _jpeg_planes(data, header)
    except RuntimeError as error:
        if "truncated" in str(error):
            raise ImageError(Reason.TRUNCATED, f"JPEG of {len(data)} bytes ends before its pixels do") from error
        return _decode_pillow(data, "jpeg", max_pixels, min_side_px)
    rows = _rows(planes)
    if not is_verified:
        scan.check(data, header, rows)
    return Decoded(rows, "jpeg", False, header.exif.taken_at)


def _jpeg_planes(data: bytes, header: headers.JpegHeader) -> torch.Tensor:
    """Upright pixels (3, H, W). Raises RuntimeError where torchvision does not read the file."""
    is_turned = header.exif.orientation != 1
    load_codecs()
    planes: torch.Tensor = torch.ops.image.decode_jpeg(_as_tensor(data), _RGB, is_turned)
    return planes


def _decode_png(data: bytes, max_pixels: int, min_side_px: int) -> Decoded:
    header = headers.read_png(data)
    check_size(header.width, header.height, max_pixels=max_pixels, min_side_px=min_side_px)
    is_turned = header.exif.orientation != 1
    load_codecs()
    try:
        pixels = torch.ops.image.decode_png(_as_tensor(data), _RGB, is_turned)
    except RuntimeError:
        return _decode_pillow(data, "png", max_pixels, min_side_px)
    if pixels.dtype == torch.uint16:
        pixels = (pixels.to(torch.int32) >> 8).to(torch.uint8)
    return Decoded(_rows(pixels), "png", header.frames > 1, header.exif.taken_at)


def _decode_pillow(data: bytes, kind: str, max_pixels: int, min_side_px: int) -> Decoded:
    if kind == "heic":
        _register_heic()
    if kind == "webp":
        _check_canvas(data, max_pixels, min_side_px)
    with _pillow_scope:
        try:
            with Image.open(io.BytesIO(data), formats=[_PILLOW_FORMATS[kind]]) as image:
                check_size(*image.size, max_pixels=max_pixels, min_side_px=min_side_px)
                is_first_of_several = bool(getattr(image, "is_animated", False))
                taken_at = _taken_at(image)
                image.seek(0)
                image.load()
                upright = ImageOps.exif_transpose(image)
                pixels = np.array(_to_rgb(upright))
        except ImageError:
            raise
        except MemoryError:
            raise
        except Exception as error:
            raise _explain(error, kind, len(data)) from error
    return Decoded(pixels, kind, is_first_of_several, taken_at)


def _check_canvas(data: bytes, max_pixels: int, min_side_px: int) -> None:
    """Refuse an extended WebP by its header: the decoder makes room for the canvas as soon as it is opened."""
    if data[12:16] == b"VP8X" and len(data) >= 30:
        width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
        check_size(width, height, max_pixels=max_pixels, min_side_px=min_side_px)


def _explain(error: Exception, kind: str, size: int) -> ImageError:
    text = _ADDRESS.sub("", f"{type(error).__name__}: {error}")[:300]
    lowered = text.lower()
    if any(word in lowered for word in ("truncated", "not enough", "unexpected end", "eof", "incomplete")):
        return ImageError(Reason.TRUNCATED, f"{kind} of {size} bytes ends too early: {text}")
    if isinstance(error, NotImplementedError) or any(word in lowered for word in ("unsupported", "not supported")):
        return ImageError(Reason.UNSUPPORTED, f"{kind}: {text}")
    return ImageError(Reason.CORRUPT, f"{kind} of {size} bytes: {text}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ImageError(Reason.UNSUPPORTED, f"pixels of mode {image.mode}: 32-bit values have no agreed brightness")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _taken_at(image: Image.Image) -> str | None:
    block = image.info.get("exif")
    return headers.parse_exif(block.removeprefix(b"Exif\0\0")).taken_at if isinstance(block, bytes) else None


def _register_heic() -> None:
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageError(Reason.UNSUPPORTED, "HEIC needs the optional extra: pip install wtl[heic]") from error
    pillow_heif.register_heif_opener()


def _rows(planes: torch.Tensor) -> np.ndarray:
    """(H, W, 3) of (3, H, W), by NumPy, which keeps the interpreter; a copy only of a turned image."""
    return np.ascontiguousarray(planes.numpy().transpose(1, 2, 0))


def _as_tensor(data: bytes) -> torch.Tensor:
    # a bytearray, since torch warns about memory that it must not write to; the copy costs 1 us at 3 KB
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)
