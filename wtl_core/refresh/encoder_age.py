"""How much a pool has changed since its encoder was trained on it: in size, and in what its images show.

`training.succession` decides what follows from it. A change in kind is measured by nearest neighbours, not by distance
as in `novelty`. With an encoder trained on five of CIFAR-10's classes, 9 % of the images of the other five classes lay
beyond a distance that 8 % of new images of the same five lay beyond: distance cannot tell them apart. Of the five
nearest neighbours of an image of the other classes, 62 % were of these too; the same was 50 % for images of the same
classes, 94 % for blurred and 75 % for noisy ones (2,500 images each). Neither measure notices when half of the arrivals
are of new classes.
"""

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.encoders import cards
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.pool import live_pool
from wtl_core.recipe.encoder_names import is_made_here
from wtl_core.training import pool_images
from wtl_core.workspace.commits import Age
from wtl_core.workspace.storage import Store

LEAST_IMAGES = 500
"""With fewer arrivals, or fewer images left of the former pool, no share is measured: 500 give it to 2 points."""
_MOST_IMAGES = 2500
"""More images of each side would hardly make the share more exact, and the product of all pairs slower."""
_NEIGHBOURS = 5


def measure(store: Store, samples: pl.DataFrame, encoder: EncoderRef) -> Age | None:
    """How much the samples differ from those that the encoder was trained on; None if it was not trained here.

    One image of each near-duplicate group counts: the nearest neighbours of a burst are the burst itself, whatever it
    shows.

    Args:
        store: The workspace.
        samples: `Pool.samples` without those that the encoder refused.
        encoder: The encoder of the refresh.
    """
    origin = cards.load_origin(store, encoder.resolvable) if is_made_here(encoder.name) else None
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
    return age.model_copy(update={"own_share": round(new_neighbour_share(matrix[:count], matrix[count:]), 4)})


def new_neighbour_share(fresh: np.ndarray, pool: np.ndarray) -> float:
    """Share of the five nearest neighbours of `fresh` rows, among `fresh` and `pool`, that are `fresh` too.

    (n, D) float32 unit vectors each, of equal n. 0.5 is expected if both look alike, 1 if they have nothing in common.
    """
    count = len(fresh)
    similarity = fresh @ np.concatenate([fresh, pool]).T
    np.fill_diagonal(similarity[:, :count], -np.inf)
    nearest = np.argpartition(-similarity, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
    return float((nearest < count).mean())
