"""Chunks of image files decoded to squares that an encoder takes: on the processor, or on the GPU where that wins."""

from dataclasses import dataclass

import torch

from wtl_core.encoders.encoder import Encoder
from wtl_core.images.decode import codecs, decode_rgb
from wtl_core.images.faults import ImageError
from wtl_core.images.jpeg import read_header

GONE = "missing"
"""Reason of a failure: there are no bytes to decode."""

_NVJPEG_MIN_SIDE_PX = 128
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

    def __call__(self, chunk: Chunk) -> Squares:
        """Squares on the processor, in the chunk's order."""
        side = self.encoder.side_px
        # laid out as decoders give pixels and as the network takes them, so that a copy is one run of bytes
        pixels = torch.empty((len(chunk), side, side, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
        ids: list[str] = []
        failures: list[Failure] = []
        for sample_id, data in chunk:
            if data is None:
                failures.append((sample_id, GONE, "its bytes are neither in the pool nor, unchanged, at their source"))
                continue
            try:
                pixels[len(ids)] = self.encoder.fit(decode_rgb(data))
            except ImageError as error:
                failures.append((sample_id, str(error.reason), error.message))
                continue
            ids.append(sample_id)
        return Squares(ids, pixels[: len(ids)], failures)


class NvjpegDecoder:
    """Decodes a chunk's plain JPEGs on the GPU in one batch, on a stream of its own; the rest on the processor.

    nvJPEG alone does 31,000 files of 256 px a second where 16 cores do 10,500.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.cpu = CpuDecoder(encoder)
        self.stream = torch.cuda.Stream(encoder.device)  # type: ignore[no-untyped-call]

    def __call__(self, chunk: Chunk) -> Squares:
        """Squares on the GPU: the plain JPEGs in the chunk's order, then the others in theirs."""
        plain = [(sample_id, data) for sample_id, data in chunk if data is not None and is_plain_jpeg(data)]
        names = {sample_id for sample_id, _ in plain}
        others = self.cpu([item for item in chunk if item[0] not in names])
        with torch.cuda.device(self.encoder.device), torch.cuda.stream(self.stream):
            decoded = _decode_batch([data for _, data in plain], self.encoder.device)
            refused = [item for item, image in zip(plain, decoded, strict=True) if image is None]
            late = self.cpu(list(refused))
            pixels = torch.cat(
                [self._fitted([image for image in decoded if image is not None])]
                + [squares.pixels.to(self.encoder.device) for squares in (late, others)]
            )
        self.stream.synchronize()
        if pixels.is_cuda:
            # Allocated on this stream and read on the network's: without the note it could be reused too early.
            pixels.record_stream(torch.cuda.default_stream(self.encoder.device))
        kept = [item[0] for item, image in zip(plain, decoded, strict=True) if image is not None]
        return Squares(kept + late.ids + others.ids, pixels, late.failures + others.failures)

    def _fitted(self, images: list[torch.Tensor]) -> torch.Tensor:
        """Squares in order; images of one size are scaled together."""
        side = self.encoder.side_px
        out = torch.empty((len(images), 3, side, side), dtype=torch.uint8, device=self.encoder.device)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for row, image in enumerate(images):
            sizes.setdefault(tuple(image.shape), []).append(row)
        for rows in sizes.values():
            out[rows] = self.encoder.fit(torch.stack([images[row] for row in rows]))
        return out


def is_plain_jpeg(data: bytes) -> bool:
    """Whether nvJPEG sees the same picture as the processor: three components, upright. Some 2 us a file."""
    position, size = 2, len(data)
    if data[:3] != b"\xff\xd8\xff":
        return False
    while position + 9 < size and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in (_BASELINE, _PROGRESSIVE):
            return data[position + 9] == 3
        if marker == _APP1 and data[position + 4 : position + 8] == b"Exif" and not _is_upright(data):
            return False
        if marker == _START_OF_SCAN:
            return False
        position += 2 + (data[position + 2] << 8 | data[position + 3])
    return False


def _is_upright(data: bytes) -> bool:
    try:
        return read_header(data).exif.orientation == 1
    except ImageError:
        return False


def _decode_batch(files: list[bytes], device: torch.device) -> list[torch.Tensor | None]:
    """Decoded images on the GPU; None for a file that nvJPEG refuses, whatever its neighbours in the batch are."""
    if not files:
        return []
    inputs = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    try:
        images: list[torch.Tensor | None] = codecs().decode_jpeg(inputs, mode=codecs().ImageReadMode.RGB, device=device)
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [image for data in files for image in _decode_batch([data], device)]
    return images
