"""The regions' orders merged into one, by falling gain, within quotas."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.by_regions.files import Files, load_region
from wtl_core.selection.by_regions.pool import LargePool
from wtl_core.selection.by_regions.weights import Weighed
from wtl_core.selection.kernels import ONE
from wtl_core.selection.orders import limits_for, outcome_of
from wtl_core.selection.quotas import QuotaOutcome, order_within


@dataclass(frozen=True)
class Merged:
    """The regions' own samples in the order of the pool, arrays by rank after fixed picks.

    `order` says where each stands in the regions' arrays, one after the other.
    """

    order: np.ndarray
    rows: np.ndarray


def merge(files: Files, regions: Sequence[int]) -> Merged:
    """The regions' orders as one: by falling key and rising tie, and then by region."""
    parts = [files.read(f"ordered-{region:06d}", "rows", "key", "tie") for region in regions]
    rows, key, tie = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((tie, -key))
    return Merged(order, rows[order])


def within_quotas(
    files: Files,
    regions: Sequence[int],
    merged: Merged,
    pool: LargePool,
    params: SelectionParams,
    weighed: Weighed,
) -> tuple[Merged, QuotaOutcome]:
    """The merged order as quotas allow it: a sample whose group has to wait is passed over until its turn comes."""
    if not params.quotas or pool.codes is None:
        return merged, QuotaOutcome()
    limits = limits_for(params, pool.names, weighed.members, pool.labelled, pool.count)
    limits.counts[:] += np.bincount(pool.codes[pool.frozen], minlength=len(pool.names))
    order, given_up = order_within(limits, pool.codes[merged.rows], len(pool.frozen))
    within = Merged(*(getattr(merged, name)[order] for name in ("order", "rows")))
    gains = np.concatenate([files.read(f"ordered-{region:06d}", "gain")[0] for region in regions])
    last = max(0, limits.budget - len(pool.frozen))
    cost = int(gains[merged.order[:last]].sum()) - int(gains[within.order[:last]].sum())
    outcome = outcome_of(
        params, pool.names, limits, pool.codes[np.concatenate([pool.frozen, within.rows])], pool.labelled,
        given_up=given_up, samples=pool.count, frozen=len(pool.frozen),
    )  # fmt: skip
    return within, replace(outcome, cost=cost / max(1, ONE * weighed.whole))


def write_ranks(files: Files, regions: Sequence[int], count: int, fixed: np.ndarray, merged: Merged) -> None:
    """`ranks-<region>`: `ranks` (n,) int32 in the pool of what a region compared, `count` for what is no pick."""
    ranks = np.full(count, count, np.int32)
    picked = np.concatenate([fixed, merged.rows])
    ranks[picked] = np.arange(len(picked))
    for region in regions:
        (rows,), (inside,) = load_region(files, region, "rows"), files.read(f"compared-{region:06d}", "inside")
        files.write(f"ranks-{region:06d}", ranks=ranks[rows[inside]])
