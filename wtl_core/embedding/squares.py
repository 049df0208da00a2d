"""Chunks of image files decoded to squares that an encoder takes: on the processor, or on the GPU where that wins."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.preprocessing import fit_rows
from wtl_core.images.decode import codecs, decode_trusted
from wtl_core.images.faults import ImageError
from wtl_core.images.jpeg import read_header

GONE = "missing"
"""Reason of a failure: there are no bytes to decode."""

_GONE_MESSAGE = "its bytes are neither in the pool nor, unchanged, at their source"

_NVJPEG_MIN_SIDE_PX = 128
_BATCH_BYTES, _RUN_BYTES = 512 << 20, 256 << 20
"""Decoded bytes of the images that nvJPEG gets at once, and float32 bytes of those that are scaled at once."""

_BASELINE, _PROGRESSIVE, _APP1, _START_OF_SCAN = 0xC0, 0xC2, 0xE1, 0xDA

Failure = tuple[str, str, str]
"""`(sample_id, reason, message)`: the sample has no vector, and why."""

Chunk = list[tuple[str, bytes | None]]


@dataclass
class Squares:
    """Decoded images of one chunk: `pixels` (n, 3, S, S) uint8 for `ids`; what could not be decoded in `failures`."""

    ids: list[str]
    pixels: torch.Tensor
    failures: list[Failure]


def uses_nvjpeg(encoder: Encoder) -> bool:
    """Whether JPEGs are decoded on the GPU: a rule and no timing, since its pixels differ a little."""
    return encoder.device.type == "cuda" and encoder.side_px >= _NVJPEG_MIN_SIDE_PX


class CpuDecoder:
    """Decodes and fits a chunk on the thread that calls it."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def room(self, count: int) -> np.ndarray:
        """For `count` images, as decoders lay pixels out and networks take them: a copy is one run of bytes."""
        return np.empty((count, self.encoder.side_px, self.encoder.side_px, 3), np.uint8)

    def __call__(self, chunk: Chunk, room: np.ndarray | None = None) -> Squares:
        """Squares on the processor, in the chunk's order; in the first rows of `room` if that is given."""
        rows = self.room(len(chunk)) if room is None else room
        ids: list[str] = []
        failures = [(sample_id, GONE, _GONE_MESSAGE) for sample_id, data in chunk if data is None]
        there = [(sample_id, data) for sample_id, data in chunk if data is not None]
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


class NvjpegDecoder:
    """Decodes a chunk's plain JPEGs on the GPU in batches, on a stream of its own; the rest on the processor.

    nvJPEG alone does 31,000 files of 256 px a second where 16 cores do 10,500.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.cpu = CpuDecoder(encoder)
        self.stream = torch.cuda.Stream(encoder.device)  # type: ignore[no-untyped-call]

    def __call__(self, chunk: Chunk) -> Squares:
        """Squares on the GPU: the plain JPEGs in the chunk's order, then the others in theirs."""
        sizes = [0 if data is None else plain_pixels(data) for _, data in chunk]
        others = self.cpu([item for item, size in zip(chunk, sizes, strict=True) if not size])
        plain = [(sample_id, data, size) for (sample_id, data), size in zip(chunk, sizes, strict=True) if data and size]
        refused: Chunk = []
        with torch.cuda.device(self.encoder.device), torch.cuda.stream(self.stream):
            early = [self._decoded(batch, refused) for batch in _batches(plain)]
            late = self.cpu(refused)
            pixels = torch.cat([squares.pixels.to(self.encoder.device) for squares in (*early, late, others)])
        self.stream.synchronize()
        if pixels.is_cuda:
            # Allocated on this stream and read on the network's: without the note it could be reused too early.
            pixels.record_stream(torch.cuda.default_stream(self.encoder.device))
        ids = [sample_id for squares in (*early, late, others) for sample_id in squares.ids]
        return Squares(ids, pixels, late.failures + others.failures)

    def _decoded(self, batch: list[tuple[str, bytes]], refused: Chunk) -> Squares:
        """The batch's squares; what nvJPEG refuses is added to `refused`."""
        decoded = _decode_batch([data for _, data in batch], self.encoder.device)
        refused += [item for item, image in zip(batch, decoded, strict=True) if image is None]
        ids = [sample_id for (sample_id, _), image in zip(batch, decoded, strict=True) if image is not None]
        return Squares(ids, self._fitted([image for image in decoded if image is not None]), [])

    def _fitted(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Squares in order; images of one size are scaled together, as many as memory is set aside for."""
        side = self.encoder.side_px
        out = torch.empty((len(images), 3, side, side), dtype=torch.uint8, device=self.encoder.device)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            sizes.setdefault(tuple(image.shape), []).append(row)
        for size, rows in sizes.items():
            run = max(1, _RUN_BYTES // (4 * math.prod(size)))
            for start in range(0, len(rows), run):
                some = rows[start : start + run]
                out[some] = self.encoder.fit(torch.stack([images[row] for row in some]))
        return out


def _batches(files: list[tuple[str, bytes, int]]) -> Iterator[list[tuple[str, bytes]]]:
    """Files with their pixels' number, in runs that fit into `_BATCH_BYTES` when decoded; a larger file is alone."""
    batch: list[tuple[str, bytes]] = []
    held = 0
    for sample_id, data, pixels in files:
        if batch and held + 3 * pixels > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append((sample_id, data))
        held += 3 * pixels
    if batch:
        yield batch


def plain_pixels(data: bytes) -> int:
    """Pixels of a JPEG that nvJPEG sees as the processor does (three components, upright), else 0. Some 2 us a file."""
    position, size = 2, len(data)
    if data[:3] != b"\xff\xd8\xff":
        return 0
    while position + 9 < size and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (_BASELINE, _PROGRESSIVE):
            height, width = (data[at] << 8 | data[at + 1] for at in (position + 5, position + 7))
            return height * width if data[position + 9] == 3 else 0
        if marker == _APP1 and data[position + 4 : position + 8] == b"Exif" and not _is_upright(data):
            return 0
        if marker == _START_OF_SCAN:
            return 0
        position += 2 + (data[position + 2] << 8 | data[position + 3])
    return 0


def _is_upright(data: bytes) -> bool:
    try:
        return read_header(data).exif.orientation == 1
    except ImageError:
        return False


def _decode_batch(files: list[bytes], device: torch.device) -> list[torch.Tensor | None]:
    """Decoded images on the GPU; None for a file that nvJPEG refuses, whatever its neighbours in the batch are."""
    inputs = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    try:
        images: list[torch.Tensor | None] = codecs().decode_jpeg(inputs, mode=codecs().ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise  # is a RuntimeError too, and free memory must not decide which decoder's pixels an image gets
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [image for data in files for image in _decode_batch([data], device)]
    return images
