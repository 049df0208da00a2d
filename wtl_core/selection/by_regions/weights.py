"""The weights of a large pool's samples: what all regions come to together, and what it makes of each region's."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.by_regions.files import Files, load_region
from wtl_core.selection.by_regions.pool import Drawn, LargePool
from wtl_core.selection.steering import balance_factors, whole_weights


@dataclass(frozen=True)
class Weighing:
    """What turns the raw weights of all regions into whole units.

    Attributes:
        top: The largest raw weight of the pool.
        factors: (G,) the balance's factor of each group; empty without balance.
        top_balanced: The largest weight once these are applied.
    """

    top: float
    factors: np.ndarray
    top_balanced: float

    def weights(self, raw: np.ndarray, near: np.ndarray, codes: np.ndarray, params: SelectionParams) -> np.ndarray:
        """(n,) int32 in units of 1/65536, as `coverage.shared_weights` has them for a whole pool."""
        weights = raw / self.top
        if len(self.factors):
            weights = weights * self.factors[codes] / self.top_balanced
        return whole_weights(weights, near if params.has_duplicate_weights else np.ones_like(near))


@dataclass(frozen=True)
class Weighed:
    """What comparing found of all regions together.

    Attributes:
        count: Samples to order.
        whole: Their weights' sum in units of 1/65536.
        is_even: Whether they all weigh the same before near-duplicates share.
        of_sample: (S,) int32, the weight of each drawn sample, -1 for one that is not ordered.
        members: (G,) samples of each group to order.
        twins: (T, 2) samples whose vectors are copies, and what they repeat.
    """

    count: int
    whole: int
    is_even: bool
    of_sample: np.ndarray
    members: np.ndarray
    twins: np.ndarray


def weigh(files: Files, regions: Sequence[int], pool: LargePool, params: SelectionParams, drawn: Drawn) -> Weighed:
    """What the weights of all regions come to; two passes over what comparing found."""
    groups = len(pool.names)
    largest, least = np.zeros(groups), np.inf
    totals, members, count = np.zeros(groups), np.zeros(groups, np.int64), 0
    for region in regions:
        own, raw, near, codes = _own(files, region)
        shared = near if params.has_duplicate_weights else np.ones_like(near)
        np.maximum.at(largest, codes, raw)
        least = min(least, raw.min(initial=np.inf))
        totals += np.bincount(codes, weights=raw / shared, minlength=groups)
        members += np.bincount(codes, minlength=groups)
        count += len(own)
    top = float(largest.max())
    factors, top_balanced = np.zeros(0), 1.0
    if params.balance is not None:
        factors = balance_factors(params.balance, pool.names, totals / top, members)
        top_balanced = float((largest / top * factors).max())
    weighing = Weighing(top, factors, top_balanced)
    files.write("weighing", top=top, factors=factors, top_balanced=top_balanced)
    whole, of_sample = 0, np.full(len(drawn.rows), -1, np.int32)
    twins = []
    for region in regions:
        own, raw, near, codes = _own(files, region)
        weights = weighing.weights(raw, near, codes, params)
        whole += int(weights.sum(dtype=np.int64))
        place = np.minimum(np.searchsorted(drawn.rows, own), len(drawn.rows) - 1)
        is_drawn = drawn.rows[place] == own
        of_sample[place[is_drawn]] = weights[is_drawn]
        twins.append(files.read(f"compared-{region:06d}", "twins")[0])
    return Weighed(count, whole, least == top, of_sample, members, np.concatenate(twins))


def read_weighing(files: Files) -> Weighing:
    """As `weigh` wrote it."""
    top, factors, top_balanced = files.read("weighing", "top", "factors", "top_balanced")
    return Weighing(float(top), factors, float(top_balanced))


def _own(files: Files, region: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, raw weights, near-duplicates and groups of a region's own samples."""
    rows, is_own, codes = load_region(files, region, "rows", "is_own", "codes")
    inside, raw, near = files.read(f"compared-{region:06d}", "inside", "raw", "near")
    mine = is_own[inside]
    return rows[inside][mine], raw[mine], near[mine], codes[inside][mine]
