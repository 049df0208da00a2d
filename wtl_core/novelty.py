"""How much of what has arrived is unlike everything labelled so far: a sample of it is embedded and compared.

An arrival is *far* if it lies farther from its nearest labelled sample than 90 % of the pool does. So where nothing has
changed in kind, a tenth of the arrivals is far; a new camera or a new class shows as a much larger share.
"""

import tempfile

import numpy as np
import polars as pl

from wtl_core import commits, embedding, ingest, ledger, pool, refresh, vectors
from wtl_core.commits import Commit
from wtl_core.encoders import names, resolve
from wtl_core.shards.plan import plan_parts
from wtl_core.storage import Store

IMAGES = 1024
"""Arrivals looked at, at most: the share is then known to 3 points."""
_FAR_QUANTILE = 0.9
_ROUNDING = 1e-3
"""Vectors are kept as float16: two of the same image may differ by that much."""
_BLOCK_ROWS = 8192


def share(store: Store, arrived: pl.DataFrame, *, device: str, workers: int, endpoint_url: str | None = None) -> float:
    """The share of the arrivals that is far from the labelled set, 0 to 1.

    Args:
        store: The workspace.
        arrived: New and changed objects, a listing's rows.
        device: Where to embed.
        workers: Threads that decode.
        endpoint_url: Address of an S3-compatible server.

    Returns:
        1.0 where nothing is labelled or no refresh was made yet; 0.0 where no arrival can be read.
    """
    last = commits.latest(store)
    labelled = ledger.sample_ids(ledger.read(store), "labelled") if last else []
    if last is None or not labelled:
        return 1.0
    live = pool.load(store, refresh.read_snapshot(store, last.listing)).samples["sample_id"]
    known = sorted(set(live.to_list()) & vectors.existing_ids(store, last.encoder))
    marked = sorted(set(labelled) & set(known))
    if not marked:
        return 1.0
    matrix = vectors.load(store, last.encoder, known).astype(np.float32)
    anchors = matrix[np.searchsorted(np.array(known), np.array(marked))]
    fresh = _embedded(store, arrived, last, device=device, workers=workers, endpoint_url=endpoint_url)
    return far_share(fresh, anchors, matrix)


def far_share(fresh: np.ndarray, anchors: np.ndarray, matrix: np.ndarray) -> float:
    """Share of `fresh` (F, D) less similar to its nearest of `anchors` (L, D) than 90 % of `matrix` (N, D) is."""
    if not len(fresh):
        return 0.0
    limit = float(np.quantile(_nearest(matrix, anchors), 1 - _FAR_QUANTILE))
    return float((_nearest(fresh, anchors) < limit - _ROUNDING).mean())


def _nearest(rows: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Each row's similarity to its nearest anchor, block by block."""
    blocks = [(rows[i : i + _BLOCK_ROWS] @ anchors.T).max(axis=1) for i in range(0, len(rows), _BLOCK_ROWS)]
    return np.concatenate(blocks)


def _embedded(
    store: Store, arrived: pl.DataFrame, last: Commit, *, device: str, workers: int, endpoint_url: str | None
) -> np.ndarray:
    """Vectors of the first arrivals by the workspace's encoder; what is read stays in a temporary folder."""
    pieces = [np.empty((0, 0), np.float32)]
    with tempfile.TemporaryDirectory(prefix="wtl-novelty-") as folder:
        aside, left = Store(folder), IMAGES
        is_ours = names.is_trained_here(last.encoder_name)
        encoder = resolve.resolve(last.encoder if is_ours else last.encoder_name, store, device=device)
        for plan in plan_parts(arrived, last.recipe.ingest):
            counts = ingest.run(plan, aside, last.recipe.ingest, endpoint_url=endpoint_url)
            rows = range(min(counts.images, left))
            found = pool.read_images(aside, plan.digest, rows, endpoint_url=endpoint_url)
            images = ((str(row), data) for row, data in found)
            embedded = embedding.embed(encoder, images, device=device, workers=workers)
            pieces.extend(piece.vectors.astype(np.float32) for piece in embedded)
            left -= len(rows)
            if left <= 0:
                break
    filled = [piece for piece in pieces if len(piece)]
    return np.concatenate(filled) if filled else pieces[0]
