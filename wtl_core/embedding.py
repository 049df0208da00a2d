"""From image bytes to unit vectors at the pace of the network: read, decode, copy and forward pass overlap.

Every forward pass has the same shape, the last one padded, so that a vector depends on its image and the encoder alone.
Not here: where vectors are kept (`vectors`) and how images are read (`pool`). Imports no storage library.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from wtl_core.encoders.encoder import Encoder, pad
from wtl_core.encoders.squares import CpuDecoder, Failure, NvjpegDecoder, Squares, uses_nvjpeg
from wtl_core.errors import ConfigError

_log = logging.getLogger(__name__)

VERSION = 1
"""Raise when the engine would give other vectors for the same encoder and images."""

BAD_OUTPUT = "bad_vector"
"""Reason of a failure that is the encoder's and not the image's."""

_DECODE_ROWS, _NVJPEG_ROWS, _MIN_NORM = 64, 512, 1e-6


class Piece(NamedTuple):
    """Some samples' vectors, in the order of the input.

    `vectors` is (n, D) float16 of unit length for `ids`; `failures` are samples of the same stretch without a vector.
    """

    ids: list[str]
    vectors: np.ndarray
    failures: list[Failure]


def embed(
    encoder: Encoder,
    images: Iterable[tuple[str, bytes | None]],
    *,
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    total: int = 0,
) -> Iterator[Piece]:
    """Vectors of `images`, in pieces as they are done.

    Args:
        encoder: Loaded on the device to use.
        device: The encoder's, if it is named at all.
        images: `(sample_id, image file's bytes)`, None for bytes that are gone; consumed in another thread.
        workers: Decoding threads. They do not change any vector.
        batch_size: Rows in a piece, rounded up to whole forward passes; None finds one. It does not change any vector.
        on_progress: Called with (done, total) after each piece.
        total: How many images there are, for `on_progress` alone.

    Raises:
        ConfigError: not even one image fits into the device's memory.
    """
    assert device is None or torch.device(device).type == encoder.device.type, (device, encoder.device)
    forward = _Forward(encoder)
    rows = _piece_rows(encoder, batch_size)
    held: list[Squares] = []
    count = done = 0
    for squares in _decoded(encoder, images, workers):
        held.append(squares)
        count += len(squares.ids)
        if count < rows:
            continue
        ready, held = _cut(held, rows)
        count -= rows
        yield (piece := forward.run(ready))
        done += len(piece.ids) + len(piece.failures)
        if on_progress:
            on_progress(done, total)
    if held:
        yield (piece := forward.run(_merge(held)))
        if on_progress:
            on_progress(done + len(piece.ids) + len(piece.failures), total)


def compiled(encoder: Encoder) -> Encoder:
    """The encoder with its network compiled for its GPU: half a minute once, 1.4 to 1.6 times the speed after it.

    Low bits of vectors differ from the plain network's, so a caller decides by recipe and never by amount of work.
    """
    return replace(encoder, module=torch.compile(encoder.module, mode="max-autotune-no-cudagraphs"))  # type: ignore[arg-type]


class _Forward:
    """The network with its copy stream, and the only place that shrinks on out-of-memory."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        is_cuda = encoder.device.type == "cuda"
        self.copies = torch.cuda.Stream(encoder.device) if is_cuda else None  # type: ignore[no-untyped-call]

    def run(self, squares: Squares) -> Piece:
        """Vectors of the squares; rows that are not finite or of length zero become failures."""
        features = self._features(squares.pixels)
        norms = torch.linalg.vector_norm(features, dim=1)
        is_good = torch.isfinite(norms) & (norms > _MIN_NORM)
        vectors = (features / norms.clamp(min=_MIN_NORM).unsqueeze(1)).to(torch.float16)
        good, lengths = is_good.cpu().numpy(), norms.cpu().numpy()
        if good.all():
            return Piece(squares.ids, vectors.cpu().numpy(), squares.failures)
        bad = [(squares.ids[row], BAD_OUTPUT, _bad_output(lengths[row])) for row in np.flatnonzero(~good)]
        ids = [squares.ids[row] for row in np.flatnonzero(good)]
        return Piece(ids, vectors.cpu().numpy()[good], squares.failures + bad)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        while True:
            try:
                return self._in_chunks(pixels)
            except torch.OutOfMemoryError as error:
                rows = self.encoder.forward_rows // 2
                if not rows:
                    side = self.encoder.side_px
                    raise ConfigError(
                        f"encoder {self.encoder.name}: expected one image of {side} px to fit into the memory of "
                        f"{self.encoder.device}, it does not; take a smaller network"
                    ) from error
                _log.warning("embedding: out of memory, forward passes halved to %d images", rows)
                self.encoder = replace(self.encoder, forward_rows=rows)
                if self.encoder.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _in_chunks(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.encoder.forward_rows
        out = [torch.empty(0, self.encoder.dimensions, device=self.encoder.device)]
        for start in range(0, len(pixels), rows):
            chunk = pixels[start : start + rows]
            out.append(self.encoder.features(pad(self._on_device(chunk), rows))[: len(chunk)])
        return torch.cat(out)

    def _on_device(self, chunk: torch.Tensor) -> torch.Tensor:
        """Copied on a stream of its own, so that the copy runs beside the previous forward pass."""
        if self.copies is None or chunk.device.type == "cuda":
            return chunk.to(self.encoder.device)
        with torch.cuda.stream(self.copies):
            copy = chunk.pin_memory().to(self.encoder.device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self.copies)
        copy.record_stream(torch.cuda.current_stream())
        return copy


def _bad_output(length: float) -> str:
    return f"expected a vector of finite, positive length, the encoder gave length {length}"


def _piece_rows(encoder: Encoder, batch_size: int | None) -> int:
    passes = max(1, -(-(batch_size or max(256, 2 * encoder.forward_rows)) // encoder.forward_rows))
    return passes * encoder.forward_rows


def _decoded(encoder: Encoder, images: Iterable[tuple[str, bytes | None]], workers: int) -> Iterator[Squares]:
    """Chunks of decoded images in input order, at most a few ahead of the network."""
    is_nvjpeg = uses_nvjpeg(encoder)
    chunk_rows = _NVJPEG_ROWS if is_nvjpeg else _DECODE_ROWS
    decode = NvjpegDecoder(encoder) if is_nvjpeg else CpuDecoder(encoder)
    ahead = 3 if is_nvjpeg else 2 * workers + 2
    stop = threading.Event()
    reader = ThreadPoolExecutor(1, "wtl-read")
    pool = ThreadPoolExecutor(1 if is_nvjpeg else max(1, workers), "wtl-decode")
    chunks = _chunks(images, chunk_rows, stop)
    reads: deque[Future[list[tuple[str, bytes | None]]]] = deque()
    jobs: deque[Future[Squares]] = deque()
    try:
        reads.extend(reader.submit(next, chunks, []) for _ in range(2))
        while reads or jobs:
            while reads and len(jobs) < ahead and (reads[0].done() or not jobs):
                chunk = reads.popleft().result()
                if chunk:
                    jobs.append(pool.submit(decode, chunk))
                    reads.append(reader.submit(next, chunks, []))
            if jobs:
                yield jobs.popleft().result()
    finally:
        stop.set()
        reader.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(
    images: Iterable[tuple[str, bytes | None]], rows: int, stop: threading.Event
) -> Iterator[list[tuple[str, bytes | None]]]:
    source = iter(images)
    while not stop.is_set() and (chunk := list(islice(source, rows))):
        yield chunk


def _merge(held: list[Squares]) -> Squares:
    return Squares(
        [sample_id for squares in held for sample_id in squares.ids],
        torch.cat([squares.pixels for squares in held]),
        [failure for squares in held for failure in squares.failures],
    )


def _cut(held: list[Squares], rows: int) -> tuple[Squares, list[Squares]]:
    """The first `rows` images, with all failures so far, and the rest."""
    merged = _merge(held)
    rest = Squares(merged.ids[rows:], merged.pixels[rows:], [])
    ready = Squares(merged.ids[:rows], merged.pixels[:rows], merged.failures)
    return ready, [rest] if rest.ids else []
