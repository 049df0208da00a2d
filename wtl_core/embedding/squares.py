"""Image files decoded to the squares that an encoder takes, on the processor. For the GPU there is `nvjpeg`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.preprocessing import fit_rows
from wtl_core.images.decode import decode_trusted
from wtl_core.images.faults import ImageError

GONE = "missing"
"""Reason of a failure: there are no bytes to decode."""

_GONE_MESSAGE = "its bytes are neither in the pool nor, unchanged, at their source"

Failure = tuple[str, str, str]
"""`(sample_id, reason, message)`: the sample has no vector, and why."""

ImageFile = tuple[str, bytes | None]
"""`(sample_id, bytes)`, None for bytes that are gone."""


@dataclass
class Squares:
    """Decoded images: `pixels` (n, 3, S, S) uint8 for `ids`; the files that could not be decoded are in `failures`."""

    ids: list[str]
    pixels: torch.Tensor
    failures: list[Failure]


class CpuDecoder:
    """Decodes files and fits them to squares, on the thread that calls it."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def room(self, count: int) -> np.ndarray:
        """Memory for `count` squares, (count, S, S, 3) uint8: as decoders lay pixels out, so a copy is one run."""
        return np.empty((count, self.encoder.side_px, self.encoder.side_px, 3), np.uint8)

    def __call__(self, files: Sequence[ImageFile], room: np.ndarray | None = None) -> Squares:
        """Squares on the processor, in the order of the files; in the first rows of `room` if that is given."""
        rows = self.room(len(files)) if room is None else room
        ids: list[str] = []
        failures = [(sample_id, GONE, _GONE_MESSAGE) for sample_id, data in files if data is None]
        there = [(sample_id, data) for sample_id, data in files if data is not None]
        for (sample_id, _), image in zip(there, decode_trusted([data for _, data in there]), strict=True):
            if isinstance(image, ImageError):
                failures.append((sample_id, str(image.reason), image.message))
                continue
            rows[len(ids)] = fit_rows(image, self.encoder.preprocessing)
            ids.append(sample_id)
        return Squares(ids, as_planes(rows[: len(ids)]), failures)


def as_planes(rows: np.ndarray) -> torch.Tensor:
    """(n, 3, S, S) in `channels_last` of (n, S, S, 3), without a copy."""
    return torch.from_numpy(rows).permute(0, 3, 1, 2)
