"""From image bytes to unit vectors at the pace of the network: on a GPU read, decode, copy and forward pass overlap.

Every forward pass has the same shape, the last one padded, so that a vector depends on its image and the encoder alone.
Experimental on a GPU: streams, events and what overlaps by them have not run on one yet; the rest is tested on the
processor (`tests/core/test_embedding.py`). Not here: where vectors are kept (`vectors`) and how images are read
(`pool`). Imports no storage library.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch

from wtl_core.embedding.nvjpeg import NvjpegDecoder, uses_nvjpeg
from wtl_core.embedding.squares import CpuDecoder, Failure, ImageFile, Squares, as_planes
from wtl_core.encoders.encoder import Encoder, pad
from wtl_core.errors import ConfigError
from wtl_core.training.image_cache import next_files

_log = logging.getLogger(__name__)

BAD_OUTPUT = "bad_vector"
"""Reason of a failure that is the encoder's and not the image's."""

_fitting_rows: dict[tuple[str, str], int] = {}
"""Images of a forward pass that fit into memory where the encoder's own number did not, by fingerprint and device."""

LEAST_PIECE_ROWS = 256
"""Images in a piece at least, so that small forward passes are not handed over one by one."""
_WORKER_ROWS = 32
"""Images of a piece for each decoding thread on a processor: on 64 threads a share was one file before."""
_MOST_AT_ONCE, _LEAST_AT_ONCE = 32, 8
"""Files that one thread decodes in one go on a processor. A go over a single file lets the other threads wait for the
interpreter: a file of 64 px then took 65 us on 2 cores instead of 40."""
_DECODE_ROWS, _NVJPEG_ROWS = 64, 512
"""Files that are decoded in one go beside a GPU: by one thread, and by nvJPEG, which decodes them as a batch."""
_READ_BYTES, _WORKER_BYTES = 128 << 20, 16 << 20
"""Bytes of files that are read ahead at a time, and more of them for many threads: a camera's files have 20 MB each."""
_MIN_NORM = 1e-6
"""Shorter outputs have no direction: they are refused, and not divided by."""


class Piece(NamedTuple):
    """Vectors of some samples that follow each other in the input.

    Within a piece the order is the input's, but files that the GPU's decoder leaves to the processor come last.

    Attributes:
        ids: Sample ids.
        vectors: (n, D) float16 of unit length, for `ids`.
        failures: The samples of the same stretch that have no vector, each with its reason.
    """

    ids: list[str]
    vectors: np.ndarray
    failures: list[Failure]


def embed(
    encoder: Encoder,
    images: Iterable[ImageFile],
    *,
    workers: int = 2,
) -> Iterator[Piece]:
    """Vectors of `images`, in pieces as they are ready.

    Args:
        encoder: Loaded on the device to use.
        images: `(sample_id, image file's bytes)`, None for bytes that are gone; consumed in another thread.
        workers: Decoding threads. They do not change any vector.

    Raises:
        ConfigError: not even one image fits into the device's memory.
    """
    rows, forward = piece_rows(encoder, workers), _Forward(encoder)
    pass_rows = forward.encoder.forward_rows
    _log.info("embedding: %d images of %d px in a pass on %s", pass_rows, encoder.side_px, encoder.device)
    is_cpu = encoder.device.type == "cpu"
    decoded = _decoded_in_turns(encoder, images, workers, rows) if is_cpu else _decoded(encoder, images, workers)
    return _overlapped(forward, _regrouped(decoded, rows))


def _overlapped(forward: "_Forward", groups: Iterator[Squares]) -> Iterator[Piece]:
    """Pieces in order; on a GPU the next one is started before this one is waited for."""
    running: deque[_Running] = deque()
    for squares in groups:
        running.append(forward.launch(squares))
        if len(running) > forward.ahead:
            yield running.popleft().collect()
    while running:
        yield running.popleft().collect()


@dataclass
class _Running:
    """A piece whose forward passes have been started: `vectors` and `norms` are complete once `is_done` has passed."""

    squares: Squares
    vectors: torch.Tensor
    norms: torch.Tensor
    is_done: torch.cuda.Event | None

    def collect(self) -> Piece:
        """Wait for the piece; rows that are not finite or of length zero become failures."""
        if self.is_done is not None:
            self.is_done.synchronize()
        norms, vectors, squares = self.norms.numpy(), self.vectors.numpy(), self.squares
        is_good = np.isfinite(norms) & (norms > _MIN_NORM)
        if is_good.all():
            return Piece(squares.ids, vectors, squares.failures)
        bad = [(squares.ids[row], BAD_OUTPUT, _bad_output(norms[row])) for row in np.flatnonzero(~is_good)]
        return Piece([squares.ids[row] for row in np.flatnonzero(is_good)], vectors[is_good], squares.failures + bad)


class _Forward:
    """The network and the stream that copies to its device; when memory is short, passes are halved and logged."""

    def __init__(self, encoder: Encoder) -> None:
        self.key = (encoder.fingerprint, str(encoder.device))
        self.encoder = replace(encoder, forward_rows=_fitting_rows.get(self.key, encoder.forward_rows))
        is_cuda = encoder.device.type == "cuda"
        self.ahead = 1 if is_cuda else 0
        self.copies = torch.cuda.Stream(encoder.device) if is_cuda else None  # type: ignore[no-untyped-call]

    def launch(self, squares: Squares) -> _Running:
        """Start the squares' forward passes and the copy of their vectors to the processor."""
        with self._current():
            return self._started(squares)

    def _current(self) -> AbstractContextManager[object]:
        """Make the encoder's device current: streams and events belong to it, and threads begin with `cuda:0`."""
        return torch.cuda.device(self.encoder.device) if self.copies is not None else nullcontext()

    def _started(self, squares: Squares) -> _Running:
        features = self._features(squares.pixels)
        norms = torch.linalg.vector_norm(features, dim=1)
        vectors = (features / norms.clamp(min=_MIN_NORM).unsqueeze(1)).to(torch.float16)
        if self.copies is None:
            return _Running(squares, vectors, norms, None)
        # a non-blocking copy goes to pinned memory, which may be read once the event has passed
        there = [values.to("cpu", non_blocking=True) for values in (vectors, norms)]
        is_done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        is_done.record()
        return _Running(squares, there[0], there[1], is_done)

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        while True:
            try:
                return self._in_passes(pixels)
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
                _fitting_rows[self.key] = rows
                if self.encoder.device.type == "cuda":
                    torch.cuda.empty_cache()

    def _in_passes(self, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.encoder.forward_rows
        out = [torch.empty(0, self.encoder.dimensions, device=self.encoder.device)]
        for start in range(0, len(pixels), rows):
            batch = pixels[start : start + rows]
            out.append(self.encoder.features(pad(self._on_device(batch), rows))[: len(batch)])
        return torch.cat(out)

    def _on_device(self, batch: torch.Tensor) -> torch.Tensor:
        """Copied on a stream of its own, so that the copy runs beside the previous forward pass."""
        if self.copies is None or batch.device.type == "cuda":
            return batch.to(self.encoder.device)
        with torch.cuda.stream(self.copies):
            copy = batch.pin_memory().to(self.encoder.device, non_blocking=True)
        torch.cuda.current_stream().wait_stream(self.copies)
        copy.record_stream(torch.cuda.current_stream())
        return copy


def _bad_output(length: float) -> str:
    return f"expected a vector of finite, positive length, the encoder gave length {length}"


def piece_rows(encoder: Encoder, workers: int) -> int:
    """Images in a piece: whole forward passes, two at least, so that one runs while the other's vectors are fetched.

    On a processor enough of them for each of many threads to decode several shares.
    """
    least = max(LEAST_PIECE_ROWS, _WORKER_ROWS * workers if encoder.device.type == "cpu" else 0)
    return max(2, -(-least // encoder.forward_rows)) * encoder.forward_rows


def rows_at_once(count: int, workers: int, *, is_whole: bool) -> int:
    """Of `count` files that were read together, how many a thread decodes in one go: a quarter of its share.

    So threads end together although files take unequally long. Where fewer files than a piece's were read, not
    `is_whole`, they are so large that one at a time takes long enough.
    """
    return max(_LEAST_AT_ONCE if is_whole else 1, min(_MOST_AT_ONCE, count // (4 * max(1, workers))))


def _decoded_in_turns(encoder: Encoder, images: Iterable[ImageFile], workers: int, rows: int) -> Iterator[Squares]:
    """On a processor all cores decode, then all multiply; only reading runs ahead.

    Side by side they would wait for each other: a product ends with its slowest thread, and a decoder on the same core
    makes that one slow (a third of the throughput on 2 cores).
    """
    decode, stop = CpuDecoder(encoder), threading.Event()
    reader = ThreadPoolExecutor(1, "wtl-read")
    pool = ThreadPoolExecutor(max(1, workers), "wtl-decode")
    read = _read_together(images, rows, stop, most_bytes=max(_READ_BYTES, _WORKER_BYTES * workers))
    following: Future[list[ImageFile]] = reader.submit(next, read, [])
    try:
        while files := following.result():
            following = reader.submit(next, read, [])
            yield _side_by_side(decode, files, pool, rows_at_once(len(files), workers, is_whole=len(files) == rows))
    finally:
        stop.set()
        reader.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)


def _side_by_side(decode: CpuDecoder, files: list[ImageFile], pool: ThreadPoolExecutor, rows: int) -> Squares:
    """The files decoded by the pool's threads, `rows` in one go, into one array: copying would cost a tenth more."""
    room = decode.room(len(files))

    def decoded(start: int) -> Squares:
        return decode(files[start : start + rows], room[start : start + rows])

    done = list(pool.map(decoded, range(0, len(files), rows)))
    if any(squares.failures for squares in done):
        return _merge(done)
    return Squares([sample_id for sample_id, _ in files], as_planes(room), [])


def _decoded(encoder: Encoder, images: Iterable[ImageFile], workers: int) -> Iterator[Squares]:
    """Decoded images in input order for a network on a GPU, at most a few groups of files ahead of it."""
    is_nvjpeg = uses_nvjpeg(encoder)
    decode = NvjpegDecoder(encoder) if is_nvjpeg else CpuDecoder(encoder)
    ahead = 3 if is_nvjpeg else 2 * workers + 2
    stop = threading.Event()
    reader = ThreadPoolExecutor(1, "wtl-read")
    pool = ThreadPoolExecutor(1 if is_nvjpeg else max(1, workers), "wtl-decode")
    read = _read_together(images, _NVJPEG_ROWS if is_nvjpeg else _DECODE_ROWS, stop)
    reads: deque[Future[list[ImageFile]]] = deque()
    jobs: deque[Future[Squares]] = deque()
    try:
        reads.extend(reader.submit(next, read, []) for _ in range(2))
        while reads or jobs:
            while reads and len(jobs) < ahead and (reads[0].done() or not jobs):
                files = reads.popleft().result()
                if files:
                    jobs.append(pool.submit(decode, files))
                    reads.append(reader.submit(next, read, []))
            if jobs:
                yield jobs.popleft().result()
    finally:
        stop.set()
        reader.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)


def _read_together(
    images: Iterable[ImageFile], rows: int, stop: threading.Event, *, most_bytes: int = _READ_BYTES
) -> Iterator[list[ImageFile]]:
    source = iter(images)
    while not stop.is_set() and (files := next_files(source, rows, most_bytes)):
        yield files


def _regrouped(decoded: Iterator[Squares], rows: int) -> Iterator[Squares]:
    """The same images in groups of `rows`, the last one smaller; failures are in the group that is full next."""
    held: list[Squares] = []
    count = 0
    for squares in decoded:
        held.append(squares)
        count += len(squares.ids)
        while count >= rows:
            merged = _merge(held)
            yield Squares(merged.ids[:rows], merged.pixels[:rows], merged.failures)
            count -= rows
            held = [Squares(merged.ids[rows:], merged.pixels[rows:], [])] if count else []
    if held and (count or any(squares.failures for squares in held)):
        yield _merge(held)


def _merge(held: list[Squares]) -> Squares:
    if len(held) == 1:
        return held[0]
    return Squares(
        [sample_id for squares in held for sample_id in squares.ids],
        torch.cat([squares.pixels for squares in held]),
        [failure for squares in held for failure in squares.failures],
    )
