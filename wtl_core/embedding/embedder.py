"""From image bytes to unit vectors at the pace of the network: on a GPU read, decode, copy and forward pass overlap.

Every forward pass has the same shape, the last one padded, so that a vector depends on its image and the encoder alone.
Not here: where vectors are kept (`vectors`) and how images are read (`pool`). Imports no storage library.
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

from wtl_core.embedding.squares import CpuDecoder, Failure, NvjpegDecoder, Squares, as_planes, uses_nvjpeg
from wtl_core.encoders.encoder import Encoder, pad
from wtl_core.errors import ConfigError
from wtl_core.training.image_cache import take_some

_log = logging.getLogger(__name__)

BAD_OUTPUT = "bad_vector"
"""Reason of a failure that is the encoder's and not the image's."""

_fitting_rows: dict[tuple[str, str], int] = {}
"""Rows of a forward pass that fitted where the rule's did not, by fingerprint and device: found out once a process."""

_DECODE_ROWS, _TURN_ROWS, _NVJPEG_ROWS, _LEAST_PIECE_ROWS, _MIN_NORM = 64, 32, 512, 256, 1e-6
_WORKER_ROWS, _LEAST_PART_ROWS = 32, 8
_CHUNK_BYTES, _WORKER_BYTES = 128 << 20, 16 << 20
"""Of files that are read ahead at a time: a camera's may have 20 MB each."""


class Piece(NamedTuple):
    """Some samples' vectors. Pieces follow the input; within one, what the GPU's decoder leaves over comes later.

    `vectors` is (n, D) float16 of unit length for `ids`; `failures` are samples of the same stretch without a vector.
    """

    ids: list[str]
    vectors: np.ndarray
    failures: list[Failure]


def embed(
    encoder: Encoder,
    images: Iterable[tuple[str, bytes | None]],
    *,
    workers: int = 2,
) -> Iterator[Piece]:
    """Vectors of `images`, in pieces as they are done.

    Args:
        encoder: Loaded on the device to use.
        images: `(sample_id, image file's bytes)`, None for bytes that are gone; consumed in another thread.
        workers: Decoding threads. They do not change any vector.

    Raises:
        ConfigError: not even one image fits into the device's memory.
    """
    rows, forward = _piece_rows(encoder, workers), _Forward(encoder)
    passing = forward.encoder.forward_rows
    _log.info("embedding: %d images of %d px in a pass on %s", passing, encoder.side_px, encoder.device)
    is_cpu = encoder.device.type == "cpu"
    decoded = _decoded_in_turns(encoder, images, workers, rows) if is_cpu else _decoded(encoder, images, workers)
    return _overlapped(forward, _regrouped(decoded, rows))


def _overlapped(forward: "_Forward", groups: Iterator[Squares]) -> Iterator[Piece]:
    """Pieces in order; on a GPU the next one is on its way before anyone waits for this one."""
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
    """The network with its copy stream; when memory is short it goes on with half the rows, told in the log."""

    def __init__(self, encoder: Encoder) -> None:
        self.key = (encoder.fingerprint, str(encoder.device))
        self.encoder = replace(encoder, forward_rows=_fitting_rows.get(self.key, encoder.forward_rows))
        is_cuda = encoder.device.type == "cuda"
        self.ahead = 1 if is_cuda else 0
        self.copies = torch.cuda.Stream(encoder.device) if is_cuda else None  # type: ignore[no-untyped-call]

    def launch(self, squares: Squares) -> _Running:
        """Start the squares' forward passes and the way back of their vectors."""
        with self._current():
            return self._launched(squares)

    def _current(self) -> AbstractContextManager[object]:
        """Streams and events are the current device's, which in a thread is the first GPU and not the encoder's."""
        return torch.cuda.device(self.encoder.device) if self.copies is not None else nullcontext()

    def _launched(self, squares: Squares) -> _Running:
        features = self._features(squares.pixels)
        norms = torch.linalg.vector_norm(features, dim=1)
        vectors = (features / norms.clamp(min=_MIN_NORM).unsqueeze(1)).to(torch.float16)
        if self.copies is None:
            return _Running(squares, vectors, norms, None)
        # non_blocking into fresh memory is pinned by torch, and the event tells when it may be read
        there = [values.to("cpu", non_blocking=True) for values in (vectors, norms)]
        is_done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        is_done.record()
        return _Running(squares, there[0], there[1], is_done)

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
                _fitting_rows[self.key] = rows
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


def _piece_rows(encoder: Encoder, workers: int) -> int:
    """Two forward passes or more, so that one runs while the other's vectors are fetched; always whole ones.

    On a processor enough for each of many workers to decode several parts of it.
    """
    least = max(_LEAST_PIECE_ROWS, _WORKER_ROWS * workers if encoder.device.type == "cpu" else 0)
    return max(2, -(-least // encoder.forward_rows)) * encoder.forward_rows


def _part_rows(count: int, workers: int, *, is_whole: bool) -> int:
    """Of a chunk, what one thread decodes at a time: four parts a worker, for files that take unequally long.

    Eight files at least of a whole chunk: decoding goes in steps over a part, and a step over one file lets the others
    wait for it. Files so large that a chunk has fewer take long enough by themselves.
    """
    return max(_LEAST_PART_ROWS if is_whole else 1, min(_TURN_ROWS, count // (4 * max(1, workers))))


def _decoded_in_turns(
    encoder: Encoder, images: Iterable[tuple[str, bytes | None]], workers: int, rows: int
) -> Iterator[Squares]:
    """On a processor all cores decode, then all multiply; only reading runs ahead.

    Side by side they would wait for each other: a product ends with its slowest thread, and a decoder on the same core
    makes that one slow (a third of the throughput on 2 cores).
    """
    decode, stop = CpuDecoder(encoder), threading.Event()
    reader = ThreadPoolExecutor(1, "wtl-read")
    pool = ThreadPoolExecutor(max(1, workers), "wtl-decode")
    chunks = _chunks(images, rows, stop, most_bytes=max(_CHUNK_BYTES, _WORKER_BYTES * workers))
    following: Future[list[tuple[str, bytes | None]]] = reader.submit(next, chunks, [])
    try:
        while chunk := following.result():
            following = reader.submit(next, chunks, [])
            yield _side_by_side(decode, chunk, pool, _part_rows(len(chunk), workers, is_whole=len(chunk) == rows))
    finally:
        stop.set()
        reader.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)


def _side_by_side(
    decode: CpuDecoder, chunk: list[tuple[str, bytes | None]], pool: ThreadPoolExecutor, part_rows: int
) -> Squares:
    """The chunk decoded by the pool's threads into one array: copied once more, decoding would take a tenth longer."""
    room = decode.room(len(chunk))

    def decoded(start: int) -> Squares:
        return decode(chunk[start : start + part_rows], room[start : start + part_rows])

    done = list(pool.map(decoded, range(0, len(chunk), part_rows)))
    if any(squares.failures for squares in done):
        return _merge(done)
    return Squares([sample_id for sample_id, _ in chunk], as_planes(room), [])


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
    images: Iterable[tuple[str, bytes | None]], rows: int, stop: threading.Event, *, most_bytes: int = _CHUNK_BYTES
) -> Iterator[list[tuple[str, bytes | None]]]:
    source = iter(images)
    while not stop.is_set() and (chunk := take_some(source, rows, most_bytes)):
        yield chunk


def _regrouped(chunks: Iterator[Squares], rows: int) -> Iterator[Squares]:
    """The same images in groups of `rows`, the last one smaller; failures go with the group that is full next."""
    held: list[Squares] = []
    count = 0
    for squares in chunks:
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
