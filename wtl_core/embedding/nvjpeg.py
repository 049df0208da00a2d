"""Experimental: JPEGs decoded on a GPU by nvJPEG. This code has not run on a GPU yet.

Tested on the processor, which takes the same calls of torchvision: which files are decoded where, in which batches, and
what becomes of refused ones (`tests/core/test_embedding.py`). Whether it is faster here is not known.
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType

import torch

from wtl_core.embedding.squares import CpuDecoder, ImageFile, Squares
from wtl_core.encoders.encoder import Encoder
from wtl_core.images.faults import ImageError
from wtl_core.images.headers import read_jpeg

_MIN_SIDE_PX = 128
"""Smaller squares are left to the processor. The bound has not been measured with this code."""
BATCH_BYTES = 512 << 20
"""Decoded bytes of the images that nvJPEG gets at once; 512 photographs of 12 megapixels would take tens of GB."""
FITTED_BYTES = 256 << 20
"""float32 bytes of the images that are scaled at once."""

_BASELINE, _PROGRESSIVE, _APP1, _START_OF_SCAN = 0xC0, 0xC2, 0xE1, 0xDA


def uses_nvjpeg(encoder: Encoder) -> bool:
    """Whether JPEGs are decoded on the GPU: by a rule and never by timing, since its pixels differ a little."""
    return encoder.device.type == "cuda" and encoder.side_px >= _MIN_SIDE_PX


class NvjpegDecoder:
    """Decodes plain JPEGs on the GPU in batches, on a stream of its own; other files on the processor.

    A prototype on an H100 decoded 31,000 files of 256 px a second by nvJPEG, where 16 cores decoded 10,500.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.cpu = CpuDecoder(encoder)
        self.stream = torch.cuda.Stream(encoder.device)  # type: ignore[no-untyped-call]

    def __call__(self, files: Sequence[ImageFile]) -> Squares:
        """Squares on the GPU: plain JPEGs in the order of the files, then those refused by nvJPEG, then other files."""
        sizes = [0 if data is None else plain_pixels(data) for _, data in files]
        others = self.cpu([item for item, size in zip(files, sizes, strict=True) if not size])
        plain = [(sample_id, data, size) for (sample_id, data), size in zip(files, sizes, strict=True) if data and size]
        refused: list[ImageFile] = []
        with torch.cuda.device(self.encoder.device), torch.cuda.stream(self.stream):
            early = [self._decoded(batch, refused) for batch in _batches(plain)]
            late = self.cpu(refused)
            pixels = torch.cat([squares.pixels.to(self.encoder.device) for squares in (*early, late, others)])
        self.stream.synchronize()
        if pixels.is_cuda:
            # Allocated on this stream and read on the network's: otherwise the memory could be reused too early.
            pixels.record_stream(torch.cuda.default_stream(self.encoder.device))
        ids = [sample_id for squares in (*early, late, others) for sample_id in squares.ids]
        return Squares(ids, pixels, late.failures + others.failures)

    def _decoded(self, batch: list[tuple[str, bytes]], refused: list[ImageFile]) -> Squares:
        """The batch's squares; files that nvJPEG refuses are added to `refused`."""
        decoded = decode_batch([data for _, data in batch], self.encoder.device)
        refused += [item for item, image in zip(batch, decoded, strict=True) if image is None]
        ids = [sample_id for (sample_id, _), image in zip(batch, decoded, strict=True) if image is not None]
        return Squares(ids, self._fitted([image for image in decoded if image is not None]), [])

    def _fitted(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Squares in order; images of one size are scaled together, up to `FITTED_BYTES` of them at a time."""
        side = self.encoder.side_px
        out = torch.empty((len(images), 3, side, side), dtype=torch.uint8, device=self.encoder.device)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            sizes.setdefault(tuple(image.shape), []).append(row)
        for size, rows in sizes.items():
            run = max(1, FITTED_BYTES // (4 * math.prod(size)))
            for start in range(0, len(rows), run):
                together = rows[start : start + run]
                out[together] = self.encoder.fit(torch.stack([images[row] for row in together]))
        return out


def _batches(files: list[tuple[str, bytes, int]]) -> Iterator[list[tuple[str, bytes]]]:
    """Files in batches of at most `BATCH_BYTES` when decoded, by their number of pixels; a larger file is alone."""
    batch: list[tuple[str, bytes]] = []
    held = 0
    for sample_id, data, pixels in files:
        if batch and held + 3 * pixels > BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append((sample_id, data))
        held += 3 * pixels
    if batch:
        yield batch


def plain_pixels(data: bytes) -> int:
    """Pixels of a JPEG that nvJPEG decodes as the processor does (three components, upright), else 0. Some 2 us."""
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
        return read_jpeg(data).exif.orientation == 1
    except ImageError:
        return False


@cache
def codecs() -> ModuleType:
    """`torchvision.io`, loaded for the first image: torch's compiler comes with it and takes a second to import."""
    import torchvision.io

    module: ModuleType = torchvision.io
    return module


def decode_batch(files: list[bytes], device: torch.device) -> list[torch.Tensor | None]:
    """Decoded images on the GPU; None for a file that nvJPEG refuses, whatever its neighbours in the batch are."""
    inputs = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    try:
        images: list[torch.Tensor | None] = codecs().decode_jpeg(inputs, mode=codecs().ImageReadMode.RGB, device=device)
    except torch.OutOfMemoryError:
        raise  # is a RuntimeError too, and free memory must not decide which decoder's pixels an image gets
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [image for data in files for image in decode_batch([data], device)]
    return images
