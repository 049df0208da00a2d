"""Which near-duplicates a pick replaces, and how much a refresh moved the picks. Reads rankings; no picking."""

from collections.abc import Sequence

import numpy as np

from wtl_core.selection.result import Ranking


def replaced_by(ranking: Ranking) -> np.ndarray:
    """By rank, the row of the earlier pick that this sample is a near-duplicate or twin of, -1 for none, (N,) int64."""
    is_near = np.nan_to_num(ranking.radius, nan=np.inf) <= ranking.near_duplicate_distance
    return np.where(is_near, ranking.nearest_earlier, -1)


def kept_share(old: Sequence[str], new: Sequence[str]) -> float:
    """The Jaccard index of two prefixes given by their sample ids: 1 means that the refresh moved nothing."""
    before, after = set(old), set(new)
    return len(before & after) / len(before | after) if before or after else 1.0
