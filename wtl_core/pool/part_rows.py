"""Entries of objects to rows of a part: decoded, measured, and written in the order in which they were read."""

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from wtl_core.images.decode import Decoded
from wtl_core.images.examine import Examined, Limits, decode_within, measure_decoded
from wtl_core.images.faults import ImageError, Reason
from wtl_core.pool.part_file import PartWriter
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards.objects import Entry, SourceObject

_WORTH_A_THREAD_BYTES = 16 << 10
"""Smaller images decode in less time than threads need to hand them over."""
_WAITING, _WAITING_BYTES = 8, 64 << 20
"""Images for each thread, and bytes of all, that wait to be written: no thread idles while another one is slow."""
_BATCH, _MOST_HELD_BYTES = 64, 1 << 20
"""Small images that are decoded together, and pixels of one that may wait for the others: 64 MiB at most in all."""

_Outcome = Examined | ImageError | None
"""What became of an entry: an image's figures, why it is refused, or None where it is no image and is ignored."""


class RowMaker:
    """Receives entries in order and writes their rows in the same order, large images decoded by threads meanwhile."""

    def __init__(self, part: PartWriter, params: IngestParams, threads: int) -> None:
        self._part, self._has_bytes = part, params.store == "bytes"
        self._limits = Limits(params.max_pixels, params.min_side_px, params.thumbnail_px, params.thumbnail_bytes)
        self._thumbnails_left = params.thumbnails_per_part
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode") if threads > 1 else None
        self._waiting: deque[tuple[SourceObject, Entry, Future[_Outcome]]] = deque()
        self._waiting_bytes = 0
        self._batch: list[tuple[SourceObject, Entry, bool]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def add(self, obj: SourceObject, entry: Entry) -> None:
        """Add the next entry of an object; its row is written now or later, in the order of the calls."""
        is_image = entry.data is not None and entry.reason is None
        has_thumbnail = is_image and self._thumbnails_left > 0
        self._thumbnails_left -= is_image
        size = len(entry.data or b"")
        if self._pool is not None and (self._waiting or size >= _WORTH_A_THREAD_BYTES):
            self._write_batch()
            # what is no image waits its turn too, so that rows keep the order of reading in every file
            self._waiting.append((obj, entry, self._pool.submit(self._examine, entry, has_thumbnail)))
            self._waiting_bytes += size
            while len(self._waiting) > _WAITING * self._threads or self._waiting_bytes > _WAITING_BYTES:
                self._write_first()
            return
        self._batch.append((obj, entry, has_thumbnail))
        if len(self._batch) >= _BATCH or size >= _WORTH_A_THREAD_BYTES:
            self._write_batch()

    def finish(self) -> None:
        """Write what is still held or being decoded."""
        self._write_batch()
        while self._waiting:
            self._write_first()

    def _write_batch(self) -> None:
        """Decode all that is held, then measure all: a sixth faster than image by image, by warm caches."""
        batch, self._batch = self._batch, []
        decoded = [self._decode(entry, has_thumbnail) for _, entry, has_thumbnail in batch]
        for (obj, entry, has_thumbnail), found in zip(batch, decoded, strict=True):
            outcome = self._measure(entry, found, has_thumbnail) if isinstance(found, Decoded) else found
            self._write(obj, entry, outcome)

    def _examine(self, entry: Entry, has_thumbnail: bool) -> _Outcome:
        found = self._decode(entry, has_thumbnail)
        return self._measure(entry, found, has_thumbnail) if isinstance(found, Decoded) else found

    def _decode(self, entry: Entry, has_thumbnail: bool) -> Decoded | _Outcome:
        """An image's pixels, or the outcome at once.

        At once where there is nothing to decode, where the image is refused, and where it has so many pixels (which a
        small file can hold) that they must not wait in memory for the rest of the batch.
        """
        if entry.reason is not None:
            return ImageError(entry.reason, entry.note)
        if entry.data is None:
            return None
        try:
            decoded = decode_within(entry.data, self._limits)
        except ImageError as error:
            return error
        is_large = decoded.pixels.nbytes > _MOST_HELD_BYTES
        return self._measure(entry, decoded, has_thumbnail) if is_large else decoded

    def _measure(self, entry: Entry, decoded: Decoded, has_thumbnail: bool) -> Examined:
        assert entry.data is not None
        return measure_decoded(entry.data, decoded, self._limits, has_thumbnail=has_thumbnail)

    def _write_first(self) -> None:
        obj, entry, future = self._waiting.popleft()
        self._waiting_bytes -= len(entry.data or b"")
        self._write(obj, entry, future.result())

    def _write(self, obj: SourceObject, entry: Entry, outcome: _Outcome) -> None:
        uri = obj.uri if not entry.key else f"{obj.uri}#{entry.key}"
        location = (uri, obj.source, obj.uri, entry.key, entry.ordinal, self._part.digest)
        if outcome is None:
            self._part.ignored.append((*location, entry.note, entry.size))
        elif isinstance(outcome, ImageError):
            reason = Reason(outcome.reason).value
            self._part.quarantine.append((*location, reason, outcome.message, entry.size))
            self._part.reasons[reason] = self._part.reasons.get(reason, 0) + 1
        else:
            assert entry.data is not None
            self._write_image(location, entry, entry.data, outcome)

    def _write_image(
        self, location: tuple[str, str, str, str, int, str], entry: Entry, data: bytes, examined: Examined
    ) -> None:
        measures, thumbnail = examined.measures, examined.thumbnail
        if examined.is_own_thumbnail and not self._has_bytes:  # else the column `image` holds it already
            thumbnail = data
        pool = self._part.pool
        row = (
            examined.sample_id,
            *location,
            pool.num_rows,
            entry.offset,
            len(data),
            examined.format,
            examined.width,
            examined.height,
            examined.is_first_of_several,
            examined.taken_at,
            examined.pixel_digest,
            measures.phash,
            measures.sharpness,
            measures.brightness,
            measures.contrast,
            measures.entropy,
            entry.metadata,
            thumbnail,
            data if self._has_bytes else None,
        )
        pool.append(row, (len(data) if self._has_bytes else 0) + len(thumbnail or b""))
