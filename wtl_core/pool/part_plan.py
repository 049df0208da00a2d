"""Which objects go into which part: small ones packed to some thousands of images, in the order of their URIs."""

from dataclasses import dataclass, replace

import polars as pl

from wtl_core.recipe.base import digest_of
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards.discover import LISTING_SCHEMA, as_frame
from wtl_core.shards.objects import REFUSED_ETAG, RETRY_MARK, SPECIAL_ETAG, SourceObject

VERSION = 4  # 4: BLAKE3 of pixels, progressive JPEGs verified to their end
"""Raised when the same objects and params would give another part."""
_BYTES_PER_IMAGE = {"tar": 3072, "parquet": 512, "zip": 512, "loose": 1 << 62}
"""Fewest bytes of a shard that hold one image (a tar pads members to blocks of 512 bytes). Only sizes parts."""


@dataclass(frozen=True)
class PartPlan:
    """One part to make.

    Attributes:
        digest: SHA-256 hex over stage version, ingest params and object identities: the part's name.
        objects: What goes into it, sorted by uri.
    """

    digest: str
    objects: tuple[SourceObject, ...]

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(max(obj.size, 0) for obj in self.objects)

    def again(self, params: IngestParams) -> "PartPlan":
        """A part of the same objects, to be read once more although they are unchanged.

        Objects that the store refused to describe, and special files, keep their mark.
        """
        mark = RETRY_MARK + self.digest[:16]
        objects = [
            obj if obj.etag in (SPECIAL_ETAG, REFUSED_ETAG) else replace(obj, etag=obj.plain_etag + mark)
            for obj in self.objects
        ]
        return _plan(objects, params)

    @property
    def num_images_estimate(self) -> int:
        """Images that it may hold at most, by the kinds and sizes of its objects."""
        return sum(_estimate(obj.kind, obj.size) for obj in self.objects)


def plan_parts(objects: pl.DataFrame, params: IngestParams) -> list[PartPlan]:
    """Pack objects (a frame with the listing's columns) into parts. Depends on the objects and params alone."""
    plans: list[PartPlan] = []
    pack: list[SourceObject] = []
    images = size = 0
    for row in objects.select(list(LISTING_SCHEMA)).sort("source", "uri").iter_rows():
        obj = SourceObject(*row)
        estimate, weight = _estimate(obj.kind, obj.size), max(obj.size, 0)
        if pack and (images + estimate > params.part_images or size + weight > params.part_bytes):
            plans.append(_plan(pack, params))
            pack, images, size = [], 0, 0
        pack.append(obj)
        images, size = images + estimate, size + weight
    if pack:
        plans.append(_plan(pack, params))
    return plans


def snapshot_rows(plans: list[PartPlan]) -> pl.DataFrame:
    """The objects of plans with the part each goes into: what a snapshot holds of them."""
    objects = as_frame(obj for plan in plans for obj in plan.objects)
    parts = [plan.digest for plan in plans for _ in plan.objects]
    return objects.with_columns(pl.Series("part", parts, pl.String))


def _plan(objects: list[SourceObject], params: IngestParams) -> PartPlan:
    identities = [[obj.source, obj.uri, obj.kind, obj.identity] for obj in objects]
    digest = digest_of(["ingest", VERSION, params.part_digest(), identities])
    return PartPlan(digest, tuple(objects))


def _estimate(kind: str, size: int) -> int:
    return max(size, 0) // _BYTES_PER_IMAGE[kind] + 1
