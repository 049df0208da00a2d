"""How far a pool has moved from the one that its encoder was trained on: in size, and in kind by its vectors.

What is made of it is `encoders.succession`'s. Kind is told by neighbours and not by distance as in `novelty`: of an
encoder trained on five of CIFAR-10's classes, 9 % of the other five lay beyond a distance that 8 % of the same five lay
beyond, while of the five nearest neighbours of the other five 62 % were of these (of the same 50 %, of blurred images
94 %, of noisy ones 75 %; 2,500 images each). Where half of the arrivals are of new classes neither sees it.
"""

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.encoders import cards
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.pool import live_pool
from wtl_core.recipe.encoder_names import is_trained_here
from wtl_core.training import pool_images
from wtl_core.workspace.commits import Age
from wtl_core.workspace.storage import Store

LEAST_IMAGES = 500
"""Fewer arrivals, or fewer images left of the pool as it was, say nothing: 500 give the share to 2 points."""
_MOST_IMAGES, _NEIGHBOURS = 2500, 5


def measure(store: Store, samples: pl.DataFrame, encoder: EncoderRef) -> Age | None:
    """The age of an encoder against the samples that have a vector of it; None if it was not trained here.

    Of a group of near-duplicates one image counts: a burst is its own nearest neighbours, whatever it shows.
    """
    origin = cards.load_origin(store, encoder.fingerprint) if is_trained_here(encoder.name) else None
    if origin is None:
        return None
    distinct = pool_images.distinct(samples).join(live_pool.near_groups(samples), on="sample_id", how="left")
    apart = distinct.sort("sample_id").unique(pl.coalesce("near_group", "sample_id"), keep="first")
    covered = {sample_id for sample_id in apart["sample_id"] if origin.covers(sample_id)}
    known = sorted(covered.intersection(origin.sample_ids))
    arrived = sorted(covered.difference(origin.sample_ids))
    count = min(len(known), len(arrived), _MOST_IMAGES)
    age = Age(images_then=origin.images, images_now=distinct.height)
    if count < LEAST_IMAGES:
        return age
    matrix = vectors.load(store, encoder.fingerprint, [*arrived[:count], *known[:count]]).astype(np.float32)
    return age.model_copy(update={"own_share": round(own_share(matrix[:count], matrix[count:]), 4)})


def own_share(fresh: np.ndarray, pool: np.ndarray) -> float:
    """Share of the nearest neighbours of `fresh` rows that are `fresh` too, among both. (n, D) unit vectors each."""
    count = len(fresh)
    similarity = fresh @ np.concatenate([fresh, pool]).T
    np.fill_diagonal(similarity[:, :count], -np.inf)
    nearest = np.argpartition(-similarity, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    return float((nearest < count).mean())
