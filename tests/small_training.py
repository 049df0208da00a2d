"""Small pools and a brief training, for several test modules."""

import hashlib
import io
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from wtl_core.recipe.encoder import EncoderParams
from wtl_core.training.image_cache import PoolImages

TINY = EncoderParams(epochs=2, width=8, batch_images=16, side_px=16)


def make_pool(count: int, *, side: int = 20, is_blank: bool = False) -> PoolImages:
    """`count` smooth images that differ from each other (or one grey), sorted by id like a pool."""
    files = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        image = Image.fromarray(coarse if not is_blank else np.full_like(coarse, 128)).resize((side, side))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        files.append(buffer.getvalue() + bytes([seed % 256]) * is_blank)
    files.sort(key=lambda data: hashlib.sha256(data).hexdigest())

    def read(rows: Sequence[int]) -> Iterator[tuple[int, bytes | None]]:
        return ((row, files[row]) for row in rows)

    return PoolImages([hashlib.sha256(data).hexdigest() for data in files], np.full(count, side), read)


class Killed(BaseException):
    """Stands for SIGKILL where a subprocess would cost seconds."""
