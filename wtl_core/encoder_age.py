"""How far a pool has moved from the one that its encoder was trained on: in size, and in kind by its vectors.

What is made of it is `encoders.succession`'s.
"""

import numpy as np
import polars as pl

from wtl_core import novelty, training_images, vectors
from wtl_core.encoders import cards
from wtl_core.encoders.succession import Age
from wtl_core.storage import Store

LEAST_IMAGES = 100
"""Fewer arrivals, or fewer images left of the pool as it was, say nothing of a share: 100 give it to 3 points."""
_MOST_ARRIVALS = 5000


def measure(store: Store, samples: pl.DataFrame, fingerprint: str) -> Age | None:
    """The age of an encoder against the samples that have a vector of it; None if it was not trained here.

    Of the pool as it was some thousand images are known. Every second one is what arrivals are compared with, the
    others say how far from these an image of that pool lies.
    """
    origin = cards.load_origin(store, fingerprint)
    if origin is None:
        return None
    ids = training_images.distinct(samples)["sample_id"].to_list()
    covered = {sample_id for sample_id in ids if origin.covers(sample_id)}
    known = sorted(covered.intersection(origin.sample_ids))
    arrived = sorted(covered.difference(origin.sample_ids))[:_MOST_ARRIVALS]
    age = Age(images_then=origin.images, images_now=len(ids), arrivals=len(arrived))
    if min(len(arrived), len(known)) < LEAST_IMAGES:
        return age
    matrix = vectors.load(store, fingerprint, [*arrived, *known]).astype(np.float32)
    fresh, pool = matrix[: len(arrived)], matrix[len(arrived) :]
    return age.model_copy(update={"far_share": round(novelty.far_share(fresh, pool[::2], pool[1::2]), 4)})
