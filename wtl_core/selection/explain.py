"""Why a sample was picked, and how much a refresh moved the picks. Reads a finished ranking; no picking."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wtl_core.selection.result import Ranking


@dataclass(frozen=True)
class Explanation:
    """Of one pick.

    `stands_for` samples are closer to it than to any earlier pick; `nearest_earlier` is that pick's row (-1: none, or
    a labelled image) at `radius`; `replaces` are rows of near-duplicates and twins that rank behind it.
    """

    rank: int
    row: int
    gain: float
    coverage: float
    stands_for: int
    nearest_earlier: int
    radius: float
    replaces: tuple[int, ...]


def explain(ranking: Ranking, rank: int) -> Explanation:
    """What the ranking knows about its pick at `rank`."""
    row = int(ranking.rows[rank])
    return Explanation(
        rank=rank,
        row=row,
        gain=float(ranking.gain[rank]),
        coverage=float(ranking.coverage[rank]),
        stands_for=int(ranking.stands_for[rank]),
        nearest_earlier=int(ranking.nearest_earlier[rank]),
        radius=float(ranking.radius[rank]),
        replaces=tuple(int(other) for other in np.sort(ranking.rows[replaced_by(ranking) == row])),
    )


def replaced_by(ranking: Ranking) -> np.ndarray:
    """By rank, the row of the earlier pick that this sample is a near-duplicate or twin of, -1 for none, (N,) int64."""
    is_near = np.nan_to_num(ranking.radius, nan=np.inf) <= ranking.near_duplicate_distance
    return np.where(is_near, ranking.nearest_earlier, -1)


def kept_share(old: Sequence[str], new: Sequence[str]) -> float:
    """The Jaccard index of two prefixes given by their sample ids: 1 means that the refresh moved nothing."""
    before, after = set(old), set(new)
    return len(before & after) / len(before | after) if before or after else 1.0
