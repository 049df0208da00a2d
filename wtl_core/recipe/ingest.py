"""Parameters of ingest: what is read, refused and kept. Imports no torch."""

from typing import Literal

from pydantic import Field, field_validator

from wtl_core.recipe.base import Params, digest_of
from wtl_core.recipe.filters import parse_filter


class IngestParams(Params):
    """From shards to parts of the pool."""

    store: Literal["bytes", "reference"] = "bytes"
    """`bytes` keeps the images in the pool, which then outlives its source; `reference` reads them from the source."""
    part_images: int = Field(5000, ge=1, le=100_000)
    """Images in a part of the pool, roughly: small shards and files are packed together, a larger shard is one part."""
    part_bytes: int = Field(256 << 20, ge=1 << 20, le=8 << 30)
    """Bytes of shards and files that are packed into one part; a larger shard is one part."""
    max_pixels: int = Field(100_000_000, ge=1, le=1_000_000_000)
    """Images with more pixels are refused, by their header and so before they are decoded."""
    max_file_bytes: int = Field(256 << 20, ge=1, le=2_000_000_000)
    """Image files with more bytes are refused."""
    min_side_px: int = Field(8, ge=1, le=4096)
    """Images with a shorter side are refused."""
    thumbnail_px: int = Field(128, ge=16, le=512)
    """Longer side of the thumbnails in the pool."""
    thumbnail_bytes: int = Field(16 << 10, ge=0, le=1 << 20)
    """Maximum bytes of one thumbnail; an image that needs more has no thumbnail."""
    thumbnails_per_part: int = Field(5000, ge=0, le=1_000_000)
    """Maximum number of thumbnails in one part; its first images get them."""
    quarantine_budget: float = Field(1.0, ge=0, le=1)
    """Share of the images that may be quarantined; a run with more is refused. Changing it reads no image again."""
    filters: tuple[str, ...] = ()
    """Conditions that all must hold, such as `sharpness > 10` or `metadata.camera-id in ('a', 'b')`; other images stay
    in the pool and are not ranked. Changing it reads no image again."""

    @field_validator("filters")
    @classmethod
    def _check_filters(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        for text in filters:
            parse_filter(text)
        return filters

    def part_digest(self) -> str:
        """SHA-256 hex of the fields that shape a part."""
        return digest_of(self.model_dump(mode="json", exclude={"quarantine_budget", "filters"}))
