"""A pool in clusters and its ranking, for tests of what steers a selection."""

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import ranking
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking

LARGE = {"exact_up_to": 20, "neighbours": 16}


def clustered(rows: int, *, clusters: int = 6, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    drawn = draw.normal(size=(clusters, 12))[draw.integers(0, clusters, rows)] + spread * draw.normal(size=(rows, 12))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def rank(vectors: np.ndarray, params: dict[str, object] | None = None, **arrays: object) -> Ranking:
    model = SelectionParams.model_validate(params or {})
    scale = arrays.pop("scale", None)
    given = Steering(**arrays)  # type: ignore[arg-type]
    ids = [f"{row:05d}" for row in range(len(vectors))]
    return ranking.rank(vectors, model, sample_ids=ids, steering=given, scale=scale)  # type: ignore[arg-type]


def cameras(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice(["north", "south", "west"], rows, p=[0.7, 0.2, 0.1])


def frozen_of(name: str, count: int) -> np.ndarray:
    return np.flatnonzero(cameras(150) == name)[:count]
