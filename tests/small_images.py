"""Small pictures as files of many formats, for several test modules."""

import io

import numpy as np
import pytest
from PIL import Image

from wtl_core.images import decode, examine
from wtl_core.images.faults import ImageError, Reason

LIMITS = examine.Limits(max_pixels=10**8, min_side_px=8, thumbnail_px=128, thumbnail_bytes=16384)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth image with noise, so that no block of it is flat."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data: bytes, **limits: int) -> Reason:
    with pytest.raises(ImageError) as caught:
        decode.decode(data, **limits)
    return caught.value.reason
