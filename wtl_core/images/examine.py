"""Everything that ingest measures of an image, from a single decode of its bytes."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from blake3 import blake3

from wtl_core.images import measure
from wtl_core.images.decode import Decoded, decode, load_codecs
from wtl_core.images.measure import Measures

_THUMBNAIL_QUALITIES = (80, 50, 25)
"""Tried in this order until the bytes allowed are enough; below 25 a thumbnail shows blocks instead of the image."""
_SHOWN_AS_THEY_ARE = ("jpeg", "png", "webp", "gif")


class Examined(NamedTuple):
    """What is known of one image.

    Attributes:
        sample_id: SHA-256 hex of the file's bytes.
        pixel_digest: BLAKE3 hex of size and upright RGB pixels: equal for twins in other bytes.
        is_first_of_several: The file holds more frames; the figures are the first one's.
        taken_at: EXIF time without a zone, or None.
        thumbnail: A small JPEG of the image; None if none was asked for, or the file itself serves as one.
        is_own_thumbnail: A thumbnail was asked for, and the file is small enough to be shown as it is.
    """

    sample_id: str
    format: str
    width: int
    height: int
    is_first_of_several: bool
    taken_at: str | None
    pixel_digest: str
    measures: Measures
    thumbnail: bytes | None
    is_own_thumbnail: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """What an image may be, and how large its thumbnail; all from `IngestParams`."""

    max_pixels: int
    min_side_px: int
    thumbnail_px: int
    thumbnail_bytes: int


def examine(data: bytes, limits: Limits, *, has_thumbnail: bool) -> Examined:
    """Decode once, verify and measure.

    Raises:
        ImageError: the image is refused, with the reason.
    """
    return measure_decoded(data, decode_within(data, limits), limits, has_thumbnail=has_thumbnail)


def decode_within(data: bytes, limits: Limits) -> Decoded:
    """The first step of `examine`: decode and verify. Raises ImageError."""
    return decode(data, max_pixels=limits.max_pixels, min_side_px=limits.min_side_px)


def measure_decoded(data: bytes, decoded: Decoded, limits: Limits, *, has_thumbnail: bool) -> Examined:
    """The second step of `examine`: digest and measure what was decoded from `data`."""
    pixels = decoded.pixels
    height, width = pixels.shape[:2]
    small = measure.shrink(pixels)
    is_own_thumbnail = has_thumbnail and _is_shown_as_it_is(data, small, decoded.format, limits)
    return Examined(
        sample_id=hashlib.sha256(data).hexdigest(),
        format=decoded.format,
        width=width,
        height=height,
        is_first_of_several=decoded.is_first_of_several,
        taken_at=decoded.taken_at,
        pixel_digest=_pixel_digest(pixels),
        measures=measure.measure(small),
        thumbnail=_make_thumbnail(small, limits) if has_thumbnail and not is_own_thumbnail else None,
        is_own_thumbnail=is_own_thumbnail,
    )


def _is_shown_as_it_is(data: bytes, small: np.ndarray, image_format: str, limits: Limits) -> bool:
    """Whether the file is small in pixels and bytes and of a format that browsers show."""
    is_small = max(small.shape[:2]) <= limits.thumbnail_px
    return is_small and len(data) <= limits.thumbnail_bytes and image_format in _SHOWN_AS_THEY_ARE


def _make_thumbnail(small: np.ndarray, limits: Limits) -> bytes | None:
    """A small JPEG; None if even the lowest quality takes more bytes than allowed."""
    # the encoder is twice as fast on pixels that lie row by row than on planes
    pixels = torch.from_numpy(measure.resize_within(small, limits.thumbnail_px)).permute(2, 0, 1)
    load_codecs()
    for quality in _THUMBNAIL_QUALITIES:
        thumbnail: bytes = torch.ops.image.encode_jpeg(pixels, quality).numpy().tobytes()
        if len(thumbnail) <= limits.thumbnail_bytes:
            return thumbnail
    return None


def _pixel_digest(pixels: np.ndarray) -> str:
    """BLAKE3 over size and all pixels: a quarter of SHA-256's time, which is half of a photograph's decoding."""
    size = b"%dx%d" % (pixels.shape[1], pixels.shape[0])
    return blake3(size).update(pixels.reshape(-1).data).hexdigest()
