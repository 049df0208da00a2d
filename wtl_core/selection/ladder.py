"""What each per cent of a ranking covers, beside random orders, measured on held-out images.

Legend: `N` samples, `H` references, `M` rows that may be picked. One product of references and pool serves all orders:
each pool row lowers, in every order, the nearest distance at the per cent at which that order picks it. Not here: how a
ranking is made, and how it is shown.

A reference is covered neither by itself, so that coverage is about images that are not labelled, nor by its
near-duplicates, since a burst counts as one image. Otherwise the rest of its burst would cover it: on CIFAR-10 with
bursts the first 10 % then measured 0.033 less than random picks, where images that were never in the pool measured
0.012 more. Without near-duplicates it is 0.009 more.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numba
import numpy as np
import torch

from wtl_core.recipe.operating_point import percents_of
from wtl_core.recipe.selection import LadderParams
from wtl_core.selection.advice import NOT_MEASURABLE, advise
from wtl_core.selection.identity import Purpose, content_keys, draw, shuffled
from wtl_core.selection.kernels import ONE, kernel_table
from wtl_core.selection.neighbours import FIRST_BITS, LEVELS, Points, level_distances, level_of, prepare
from wtl_core.selection.result import Ranking
from wtl_core.selection.sorted_rows import Batches, gather, unit_vectors
from wtl_core.selection.steering import numbered
from wtl_core.selection.student import ladder_factor

if TYPE_CHECKING:
    import polars as pl  # a machine that only trains, embeds or ranks may lack it

PERCENTS = np.arange(1, 101)
_REFERENCE_BLOCK = 512  # references that a thread works on
_POOL_BLOCK = 2048  # pool rows in one product
_NOTHING = np.int16(32767)  # bits beyond every distance


@dataclass(frozen=True)
class Ladder:
    """What each per cent of a ranking covers, arrays of (100,); empty if there is no ranking.

    References are not covered by themselves or their near-duplicates. If they are held out they are never picked, here
    or at random; the ranking itself was made with them in the pool. Coverage is 0 if no reference has an image beside
    those.

    Attributes:
        percent: 1 to 100.
        count: As many rows as that share of all. With references held out, a little fewer rows are measured.
        coverage: How well the references are covered by that share of the rows that may be picked, in the ranking's
            order.
        random_coverage_mean: Coverage in random orders, the mean over these.
        random_coverage_low: Lower end of the mean's 95 % interval.
        random_coverage_high: Upper end of this interval.
        radius_p50: Median distance from a reference to the nearest pick.
        radius_p90: 90 % quantile of this distance.
        radius_max: The largest such distance.
        random_radius_p50: `radius_p50` in random orders, the mean over these.
        random_radius_p90: `radius_p90` likewise.
        random_radius_max: `radius_max` likewise.
        equivalent_random_count: Random picks that would cover as well.
        optimum_share: A proven bound: at least this share of the best possible coverage of the pool is reached; NaN
            where none is known, as of a pool that is ranked by regions.
        near_duplicate_rate: Share of the picks that are near-duplicates of an earlier pick or of a labelled image.
        group_balance: The effective number of groups among the picks over the number of groups; 1 if all groups have
            equally many picks, and without groups.
        random_group_balance: The same of the whole pool, which random picks approach.
        references: How many there are.
        is_held_out: Whether they are held out.
        advice: Plain sentences for a person.
    """

    percent: np.ndarray
    count: np.ndarray
    coverage: np.ndarray
    random_coverage_mean: np.ndarray
    random_coverage_low: np.ndarray
    random_coverage_high: np.ndarray
    radius_p50: np.ndarray
    radius_p90: np.ndarray
    radius_max: np.ndarray
    random_radius_p50: np.ndarray
    random_radius_p90: np.ndarray
    random_radius_max: np.ndarray
    equivalent_random_count: np.ndarray
    optimum_share: np.ndarray
    near_duplicate_rate: np.ndarray
    group_balance: np.ndarray
    random_group_balance: float
    references: int
    is_held_out: bool
    advice: str


def empty_ladder(advice: str) -> Ladder:
    """The ladder of a ranking without rows: no per cent, nothing measured."""
    counts, values = np.zeros(0, np.int64), np.zeros(0)
    return Ladder(
        percent=counts,
        count=counts,
        coverage=values,
        random_coverage_mean=values,
        random_coverage_low=values,
        random_coverage_high=values,
        radius_p50=values,
        radius_p90=values,
        radius_max=values,
        random_radius_p50=values,
        random_radius_p90=values,
        random_radius_max=values,
        equivalent_random_count=counts,
        optimum_share=values,
        near_duplicate_rate=values,
        group_balance=values,
        random_group_balance=1.0,
        references=0,
        is_held_out=False,
        advice=advice,
    )


def measure(
    vectors: np.ndarray | Batches,
    ranking: Ranking,
    params: LadderParams,
    *,
    sample_ids: "Sequence[str] | pl.Series",
    scale: float | None = None,
    kernel: str = "gaussian",
    labelled: np.ndarray | None = None,
    groups: Sequence[str] | np.ndarray | None = None,
    device: str = "cpu",
) -> Ladder:
    """Measure a ranking at every per cent.

    Args:
        vectors: (N, D) as the ranking was made from, in the caller's row order; or what gives them a part at a time.
        ranking: of the same rows.
        params: how many random orders and references.
        sample_ids: N ids; references and random orders are drawn by them.
        scale: the kernel's scale, `scale_factor` included; None takes the ranking's, which is without it.
        kernel: what coverage is measured by: `gaussian`, `laplace` or `cosine`.
        labelled: (L, D) vectors that cover from the start, in the ranking and at random alike.
        groups: (N,) each sample's group, for the balance.
        device: `cpu` or a CUDA device.

    Cost: 2 H N (D + 6) FLOP for all orders together.
    """
    keys = content_keys(sample_ids)
    references, ranked = split_references(keys, ranking, params)
    orders = [ranked, *(random_order(keys, ranked, seed) for seed in range(params.random_draws))]
    bins = np.stack([_bins(order, len(keys)) for order in orders], axis=1)
    near = level_of(ranking.near_duplicate_distance)
    if isinstance(vectors, np.ndarray):
        whole = unit_vectors(vectors, list(sample_ids), what="vectors")
        batches: Batches = lambda: iter([(np.arange(len(whole)), whole)])  # noqa: E731
        measured = whole[references]
    else:
        batches, measured = vectors, gather(vectors, references, cast("pl.Series", sample_ids))
    nearest = _nearest_by_percent(batches, measured, bins, labelled, device, near_level=near)
    table = kernel_table(kernel, ranking.scale if scale is None else scale)
    coverage = _coverage(nearest, table, _reference_weights(ranking, references, len(keys)))
    if not (is_measurable := bool((nearest[0, -1] != _NOTHING).any())):
        coverage[:] = 0.0  # a kernel that does not end says a little even of nothing
    return _ladder(ranking, coverage, _radius(nearest), groups, references=len(references), is_measurable=is_measurable)


def _ladder(
    ranking: Ranking,
    coverage: np.ndarray,
    radius: np.ndarray,
    groups: Sequence[str] | np.ndarray | None,
    *,
    references: int,
    is_measurable: bool,
) -> Ladder:
    """The record of measured orders, the ranking first: `coverage` (orders, 100), `radius` (orders, 3, 100)."""
    samples = len(ranking.rows)
    mean, low, high = (np.clip(part, 0.0, 1.0) for part in interval_of_draws(coverage[1:]))  # the t knows no bounds
    count = np.array(percents_of(samples))
    balance, random_balance = _group_balance(ranking, count, groups)
    return Ladder(
        percent=PERCENTS,
        count=count,
        coverage=coverage[0],
        random_coverage_mean=mean,
        random_coverage_low=low,
        random_coverage_high=high,
        radius_p50=radius[0, 0],
        radius_p90=radius[0, 1],
        radius_max=radius[0, 2],
        random_radius_p50=radius[1:, 0].mean(0),
        random_radius_p90=radius[1:, 1].mean(0),
        random_radius_max=radius[1:, 2].mean(0),
        equivalent_random_count=equivalent_labels(coverage[0], mean, count),
        optimum_share=np.minimum(1.0, ranking.coverage[count - 1] / ranking.optimum_bound),
        near_duplicate_rate=_near_duplicate_rate(ranking, count),
        group_balance=balance,
        random_group_balance=random_balance,
        references=references,
        is_held_out=references < samples,
        advice=advise(coverage[0], low, high, count, picks=ranking.picks) if is_measurable else NOT_MEASURABLE,
    )


def split_references(keys: np.ndarray, ranking: Ranking, params: LadderParams) -> tuple[np.ndarray, np.ndarray]:
    """Reference rows, and the rows that may be picked in rank order; a small pool is both.

    At most half of a larger one are references: with all of them held out there would be nothing to pick.
    """
    if len(keys) <= params.all_up_to:
        return np.sort(ranking.rows), ranking.rows
    references = shuffled(keys, 0, Purpose.REFERENCES)[: min(params.references, len(keys) // 2)]
    is_reference = np.zeros(len(keys), bool)
    is_reference[references] = True
    return references, ranking.rows[~is_reference[ranking.rows]]


def random_order(keys: np.ndarray, rows: np.ndarray, seed: int) -> np.ndarray:
    """`rows` in an order that their content `keys` and the seed alone decide."""
    drawn = draw(keys[rows], seed, Purpose.LADDER)
    return rows[np.lexsort((keys[rows], drawn))]


def _bins(order: np.ndarray, count: int) -> np.ndarray:
    """The per cent, from 0, that each row is picked in; 100 for rows that are not, (N,) int16."""
    ends = np.array(percents_of(len(order)))
    bins = np.full(count, len(PERCENTS), np.int16)
    bins[order] = np.searchsorted(ends, np.arange(len(order)), side="right")
    return bins


def _nearest_by_percent(
    batches: Batches,
    references: np.ndarray,
    bins: np.ndarray,
    labelled: np.ndarray | None,
    device: str,
    *,
    near_level: int,
) -> np.ndarray:
    """Bits of the nearest pick by order, per cent and reference, (orders, 100, H) int16, falling along per cents.

    Picks up to `near_level` away are passed over; labelled images are facts, and never are.
    """
    points = prepare(references, device, whole=_REFERENCE_BLOCK)
    orders = bins.shape[1]
    nearest = np.full((orders, len(PERCENTS) + 1, points.right.shape[0]), _NOTHING, np.int16)
    if labelled is not None and len(labelled):
        given = prepare(
            unit_vectors(labelled, None, what="labelled", width=references.shape[1]), device, whole=_POOL_BLOCK
        )
        _lower_all(given, np.zeros((given.count, orders), np.int16), points, nearest, near_level=-1)
    for rows, vectors in batches():
        _lower_all(prepare(vectors, device, whole=_POOL_BLOCK), bins[rows], points, nearest, near_level=near_level)
    running = np.minimum.accumulate(nearest[:, :-1], axis=1)
    return running[:, :, : points.count]


def _lower_all(pool: Points, bins: np.ndarray, points: Points, nearest: np.ndarray, *, near_level: int) -> None:
    """Let every pool row lower the distances in its per cent of each order; the product is made once."""
    columns = points.right.shape[0]
    held_out = np.int16(near_level + FIRST_BITS - 1 if near_level >= 0 else -32768)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, pool.count, _POOL_BLOCK):
            left = pool.left_slice(start, start + _POOL_BLOCK)
            here = bins[start : start + _POOL_BLOCK]
            bits = points.product(left, 0, columns).cpu().numpy()
            jobs = [
                threads.submit(_lower, bits, here, nearest, column, column + _REFERENCE_BLOCK, held_out)
                for column in range(0, columns, _REFERENCE_BLOCK)
            ]
            for job in jobs:
                job.result()


@numba.njit(cache=True, nogil=True)
def _lower(bits: np.ndarray, bins: np.ndarray, nearest: np.ndarray, start: int, stop: int, held_out: np.int16) -> None:
    """Writes over these columns of `bits`."""
    for row in range(bins.shape[0]):
        line = bits[row, start:stop]
        for column in range(line.shape[0]):
            line[column] = line[column] if line[column] > held_out else _NOTHING
        for order in range(bins.shape[1]):
            target = nearest[order, bins[row, order], start:stop]
            for column in range(line.shape[0]):
                target[column] = min(target[column], line[column])


def _levels(bits: np.ndarray) -> np.ndarray:
    return np.clip(bits.astype(np.int32) - FIRST_BITS + 1, 0, LEVELS - 1)


def _reference_weights(ranking: Ranking, references: np.ndarray, count: int) -> np.ndarray:
    """How much it matters that each reference is covered; a row that has copies counts for them."""
    by_row = np.zeros(count)
    by_row[ranking.rows] = ranking.weights
    weights = by_row[references]
    return weights if weights.sum() > 0 else np.ones(len(references))


def _coverage(nearest: np.ndarray, table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean kernel value, (orders, 100) float64; summed in one order everywhere."""
    values = table.astype(np.float64) / ONE
    # Not a dot product: its threads would sum in another order on another machine.
    sums = [[(values[_levels(line)] * weights).sum() for line in order] for order in nearest]
    return np.asarray(sums) / float(weights.sum())


def _radius(nearest: np.ndarray) -> np.ndarray:
    """Median, 90 % quantile and maximum of the distance to the nearest pick, (orders, 3, 100)."""
    distances = level_distances()
    ordered = np.sort(nearest, axis=2)
    last = int(nearest.shape[2]) - 1
    places = [last // 2, int(np.ceil(0.9 * last)), last]
    return np.stack([distances[_levels(ordered[:, :, place])] for place in places], axis=1)


def interval_of_draws(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over draws with its 95 % interval by Student's t; exactly the common value where all draws agree."""
    mean = draws[0] + (draws - draws[0]).mean(0)
    half = ladder_factor(len(draws) - 1) * (draws - mean).std(0, ddof=1) / np.sqrt(len(draws))
    half[(draws == draws[0]).all(0)] = 0.0
    return mean, mean - half, mean + half


def equivalent_labels(coverage: np.ndarray, random: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The least random budget that covers as well, by straight lines between per cents, (100,) int64."""
    rising = np.maximum.accumulate(np.concatenate(([0.0], random)))
    counts = np.concatenate(([0], count)).astype(np.float64)
    is_more = np.diff(rising, prepend=-1.0) > 0  # on a level stretch the lines would give its far end
    return np.asarray(np.ceil(np.interp(coverage, rising[is_more], counts[is_more]) - 1e-9).astype(np.int64))


def _near_duplicate_rate(ranking: Ranking, count: np.ndarray) -> np.ndarray:
    is_near = np.nan_to_num(ranking.radius, nan=np.inf) <= ranking.near_duplicate_distance
    return np.asarray(np.cumsum(is_near)[count - 1] / count)


def _group_balance(
    ranking: Ranking, count: np.ndarray, groups: Sequence[str] | np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Effective number of groups (the exponential of the entropy) over the number of groups, at each count."""
    if groups is None:
        return np.ones(len(count)), 1.0
    names, codes = numbered(groups)
    total = len(names)
    in_order = codes[ranking.rows]
    balance = np.array([_evenness(np.bincount(in_order[:stop], minlength=total)) for stop in count])
    return balance, _evenness(np.bincount(codes, minlength=total))


def _evenness(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()) / len(counts))
