"""A source with near-duplicates, for several test modules."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_near_duplicates(source: Path, *, pairs: int, alone: int) -> None:
    """Images `{seed}-90.jpg`, the first `pairs` of them once more with less loss as `{seed}-95.jpg`."""
    source.mkdir()
    for seed in range(pairs + alone):
        coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8))
        image = coarse.resize((96, 96), Image.Resampling.BICUBIC)
        for quality in (90, 95) if seed < pairs else (90,):
            image.save(source / f"{seed}-{quality}.jpg", quality=quality)
