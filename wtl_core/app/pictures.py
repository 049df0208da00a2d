"""Pictures of the pool for the page: thumbnails as ingest kept them, and images large enough to judge."""

import threading
from collections import OrderedDict

import numpy as np
import polars as pl
import simplejpeg

from wtl_core.images.decode import HIGHEST_MAX_PIXELS, decode
from wtl_core.images.faults import ImageError
from wtl_core.images.measure import resize_within
from wtl_core.pool import live_pool
from wtl_core.report import small_pictures
from wtl_core.workspace.storage import Store

THUMBNAIL_PX, LARGE_PX = 256, 1280
"""Longer sides at most."""
_QUALITY = 85
_CACHE_BYTES = 64 << 20
"""Thumbnails in memory: some 8,000 photographs."""


class Pictures:
    """JPEGs of samples by where they lie in the pool; thumbnails are kept in memory."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def thumbnail(self, part: str, row: int) -> bytes | None:
        """A JPEG of at most `THUMBNAIL_PX`; None if the image can no longer be read."""
        with self._lock:
            if (part, row) in self._cache:
                self._cache.move_to_end((part, row))
                return self._cache[part, row]
        asked = pl.DataFrame({"sample_id": [""], "part": [part], "row": [row]})
        found = small_pictures.read(self._store, asked, side=THUMBNAIL_PX, budget_bytes=_CACHE_BYTES).get("")
        if found is not None:
            self._keep(part, row, found)
        return found

    def large(self, part: str, row: int) -> bytes | None:
        """A JPEG of at most `LARGE_PX`, of the image itself; None if it can no longer be read."""
        data = next((data for _, data in live_pool.read_images(self._store, part, [row])), None)
        if data is None:
            return None
        try:
            pixels = decode(data, max_pixels=HIGHEST_MAX_PIXELS).pixels
        except ImageError:
            return None
        small = np.ascontiguousarray(resize_within(pixels, LARGE_PX))
        encoded: bytes = simplejpeg.encode_jpeg(small, quality=_QUALITY, colorspace="RGB", colorsubsampling="444")
        return encoded

    def _keep(self, part: str, row: int, data: bytes) -> None:
        with self._lock:
            self._bytes += len(data) - len(self._cache.pop((part, row), b""))
            self._cache[part, row] = data
            while self._bytes > _CACHE_BYTES:
                self._bytes -= len(self._cache.popitem(last=False)[1])
