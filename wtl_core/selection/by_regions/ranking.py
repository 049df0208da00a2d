"""The ranking of a pool that is too large for one process's memory: regions are ranked one by one, and merged by gain.

`rank_by_regions` reads downwards: a sample is drawn, and the pool is divided by it; vectors are dealt out to files of
the regions; each region compares its samples; the head is picked on the sample, and covers in all regions; each region
orders its samples as a whole pool is ordered; the orders are merged by what each pick gains; last, each region finds
what came before its picks.

This process holds the ids, a sample, and some numbers of each row, never the vectors. What a worker does is a function
of files in the workspace and goes to a file there, whole or not at all: a ranking that was killed goes on, and neither
the number of workers nor the engine changes it. Not here: how regions are found (`division`), and what a worker does
(`work`).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from wtl_core.engines.engine import Engine, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.engines.places import seen_here
from wtl_core.machine import Progress
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import columns
from wtl_core.selection.by_regions.assembly import assemble
from wtl_core.selection.by_regions.division import divide
from wtl_core.selection.by_regions.files import Files, passing_files
from wtl_core.selection.by_regions.merging import merge, within_quotas, write_ranks
from wtl_core.selection.by_regions.pool import Drawn, LargePool, deal_out, drawn_rows, large_pool, write_outside
from wtl_core.selection.by_regions.weights import Weighed, weigh
from wtl_core.selection.by_regions.work import Comparing, Ordering, Tracing
from wtl_core.selection.coverage import pick_all, tail_of
from wtl_core.selection.identity import Purpose, shuffled
from wtl_core.selection.kernels import SCALE_REFERENCES, kernel_table, median_scale
from wtl_core.selection.label_weights import Lesson, learn
from wtl_core.selection.neighbours import numeric_path_of, prepare
from wtl_core.selection.orders import limits_for
from wtl_core.selection.problem import free_limits
from wtl_core.selection.ranking import Steering, covered_by, near_distance, typical_of, votes_of
from wtl_core.selection.result import Ranking
from wtl_core.selection.sorted_rows import Batches, gather, unit_vectors
from wtl_core.selection.steering import balance_factors

_log = logging.getLogger(__name__)


SAMPLE = 131_072
"""Samples by which the pool is divided and its head is picked."""


_EACH = 64
"""Samples of the sample for each pick of the head, at least: the head of fewer would fit the sample, not the pool."""


_READ = 1 << 16  # rows of an array that are a batch


_HEAD_BYTES, _ROW_BYTES = 1 << 30, 1536
"""Memory of a worker: the kernel values of its region's head, and for each sample and guest beside 6 D bytes."""


def rank_by_regions(
    batches: Batches,
    params: SelectionParams,
    *,
    sample_ids: pl.Series,
    files: Files,
    engine: Engine,
    needs: Needs | None = None,
    steering: Steering | None = None,
    device: str = "cpu",
    scale: float | None = None,
    on_progress: Progress | None = None,
) -> Ranking:
    """Rank all rows, as `ranking.rank` does, with no more than a region and its guests in a process.

    Args:
        batches: The vectors, read twice.
        params: As for `ranking.rank`; `region_size` is how many samples a region has at most, as far as a sample tells.
        sample_ids: N distinct ids in the caller's order.
        files: A folder of this ranking's own: a ranking that was killed is continued from there. The caller deletes it.
        engine: Runs the regions.
        needs: What a worker takes, beside memory; None if it computes on `device`.
        steering: As for `ranking.rank`, in the caller's rows.
        device: `cpu` or a CUDA device of this process.
        scale: The kernel's scale if one is fixed already; None measures it.
        on_progress: Called with how many samples of how many are done, a third by comparing, ordering and tracing each.

    A pick's gain is what it adds in its own region, guests included; `coverage`, their sum, is an estimate of the
    pool's, and no bound on the optimum is given (NaN). `radius` and `nearest_earlier` look within the region and its
    guests, at the head and at labelled images; a nearer pick farther beyond a border is missed.

    Raises:
        InputError: wrong shapes, vectors that are not of unit length, ids that repeat, useless weights.
        ConfigError: see `columns.check_regions`; groups that quotas or the balance name and the pool does not have;
            a worker does not see the files, or compares in another way.

    Memory, by counting arrays: some 300 bytes a sample here; for each worker 1 GiB, the kernel values of its head, and
    1.5 KiB and 6 D bytes for each sample and guest of its region. As many workers run as have room for the largest.
    """
    steering = steering or Steering()
    columns.check_regions(params, max(len(sample_ids), params.regions_from))
    pool = large_pool(sample_ids, steering)
    _check_groups(params, pool)
    sample = np.sort(drawn_rows(pool, Purpose.HEAD, SAMPLE))
    scaled = drawn_rows(pool, Purpose.SCALE, SCALE_REFERENCES)
    wanted = np.unique(np.concatenate([sample, scaled, pool.frozen]))
    gathered = gather(batches, pool.caller_rows[wanted], sample_ids)
    probed = prepare(gathered[np.searchsorted(wanted, scaled)], device)
    if scale is None:
        scale = median_scale(probed, np.arange(len(scaled)))
    drawn = Drawn(sample, pool.keys[sample], gathered[np.searchsorted(wanted, sample)])
    near = near_distance(params.near_duplicate_distance, scale)
    division = divide(
        prepare(drawn.vectors),
        drawn.vectors,
        drawn.keys,
        rows=int(pool.is_dealt_out().sum()),
        size=params.region_size,
        most_reach=scale * params.scale_factor / 2,
    )
    _log.info("ranking %d samples in %d regions, scale %.4f", pool.count, division.count, scale)
    needs = needs or Needs(gpus=1 if device.startswith("cuda") else 0, device=device)
    files.begin(numeric_path_of(needs.device))
    sizes = deal_out(batches, pool, division, files)
    regions = np.flatnonzero(sizes).tolist()
    labelled = write_outside(files, steering, gathered.shape[1])
    lesson = _lesson(steering, params, labelled, drawn, device)
    is_heard = lesson is not None and lesson.is_heard
    needs = replace(needs, memory_bytes=_HEAD_BYTES + int(sizes.max()) * (_ROW_BYTES + 6 * gathered.shape[1]))
    comparing = Comparing(
        files,
        params,
        scale,
        near,
        needs.device,
        numeric_path_of(needs.device),
        seen_here([files.store.root, files.store.path(f"{files.key}/dealt.npz")]),
        lesson if is_heard else None,
    )
    _run(engine, needs, comparing, regions, sizes, on_progress, of=(0, pool.count))
    weighed = weigh(files, regions, pool, params, drawn)
    (vectors,) = files.read("labelled", "vectors")
    outside = prepare(vectors, device) if len(vectors) else None
    typical = typical_of(params, probed, outside, comparing.table, near, is_even=weighed.is_even)
    labelled_share = len(vectors) / weighed.count
    frozen = gathered[np.searchsorted(wanted, pool.frozen)]
    head = _head(files, pool, drawn, weighed, replace(comparing, device=device), frozen, typical)
    fixed = np.concatenate([pool.frozen, head])
    files.write("fixed", rows=fixed, vectors=gathered[np.searchsorted(wanted, fixed)])
    ordering = Ordering(replace(comparing, lesson=None), typical, labelled_share)
    _run(engine, needs, ordering, regions, sizes, on_progress, of=(1, pool.count))
    merged, quotas = within_quotas(files, regions, merge(files, regions), pool, params, weighed)
    write_ranks(files, regions, pool.count, fixed, merged)
    _run(engine, needs, Tracing(ordering.comparing), regions, sizes, on_progress, of=(2, pool.count))
    return assemble(files, regions, pool, comparing, weighed, merged, quotas, steering, lesson)


def rank_array(
    vectors: np.ndarray, params: SelectionParams, *, sample_ids: Sequence[str], steering: Steering, device: str
) -> Ranking:
    """`rank_by_regions` of (N, D) vectors in memory or mapped into it, in this process, by files that are deleted."""
    unit = unit_vectors(vectors, sample_ids, what="vectors")

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(unit), _READ):
            rows = np.arange(start, min(start + _READ, len(unit)))
            yield rows, np.array(unit[start : start + _READ])  # a copy, which torch may write to

    with passing_files() as files:
        return rank_by_regions(
            batches, params, sample_ids=pl.Series(sample_ids), files=files, engine=LocalEngine(1), steering=steering,
            device=device,
        )  # fmt: skip


def _check_groups(params: SelectionParams, pool: LargePool) -> None:
    """Raise what `quotas` and `balance` raise of groups that the pool does not have, before hours of work."""
    if pool.codes is None:
        return
    sizes = np.bincount(pool.codes, minlength=len(pool.names))
    if params.quotas:
        limits_for(params, pool.names, sizes, pool.labelled, pool.count)
    if params.balance is not None:
        totals = np.bincount(pool.codes, weights=pool.base, minlength=len(pool.names))
        balance_factors(params.balance, pool.names, totals, sizes)


def _lesson(
    steering: Steering, params: SelectionParams, labelled: np.ndarray, drawn: Drawn, device: str
) -> Lesson | None:
    """What the labels' classes teach; how large the classes are, they estimate on the sample."""
    votes = votes_of(steering, params, labelled, 2 * params.region_size)
    if votes is None:
        return None
    points, others = prepare(drawn.vectors, device), prepare(labelled, device)
    votes = votes.of_others(points.count, votes.own)
    covered_by(points, others, kernel_table("gaussian", 1.0), votes)
    order = shuffled(drawn.keys, 0, Purpose.LABELS)
    return learn(votes, drawn.vectors, others, labelled, order=order, always=params.labels == "use")


def _run(
    engine: Engine,
    needs: Needs,
    make_worker: Comparing | Ordering | Tracing,
    regions: Sequence[int],
    sizes: np.ndarray,
    on_progress: Progress | None,
    *,
    of: tuple[int, int],
) -> None:
    """Let workers do all regions; `of` is how many of the three times are over, and how many samples there are."""
    weights = [float(sizes[region]) for region in regions]
    done, total, (over, count) = 0, int(sizes.sum()), of
    for number, _ in engine.run(make_worker, regions, needs=needs, weights=weights):
        done += int(sizes[regions[number]])
        if on_progress is not None:
            on_progress(count * (over * total + done) // (3 * total), count)


def _head(
    files: Files,
    pool: LargePool,
    drawn: Drawn,
    weighed: Weighed,
    comparing: Comparing,
    frozen_vectors: np.ndarray,
    typical: int,
) -> np.ndarray:
    """The first picks of the pool after frozen ones, picked on the sample with the weights of the whole pool.

    None where there are quotas, since its picks keep their ranks.
    """
    if files.has("head"):
        return np.asarray(files.read("head", "rows")[0])
    kept = np.flatnonzero((weighed.of_sample >= 0) & ~np.isin(drawn.rows, pool.frozen))
    wanted = 0 if comparing.params.quotas else min(comparing.params.head, len(kept) // _EACH)
    rows = np.zeros(0, np.int64)
    if wanted:
        points = prepare(drawn.vectors[kept], comparing.device)
        given = np.concatenate([files.read("labelled", "vectors")[0], frozen_vectors])
        outside = prepare(given, comparing.device) if len(given) else None
        state = covered_by(points, outside, comparing.table)
        problem = comparing.problem(points, drawn.keys[kept])
        problem = replace(problem, best=state.best, nearest=state.nearest, typical=typical)
        tail = tail_of(problem, len(given))._replace(
            rows=weighed.count - len(pool.frozen)
        )  # of the pool, not the sample
        affinity = comparing.affinity(problem, weighed.of_sample[kept])
        picked = pick_all(problem, affinity, free_limits(problem), until=wanted, tail=tail).state
        rows = drawn.rows[kept[picked.order[:wanted]]]
    files.write("head", rows=rows)
    return rows
