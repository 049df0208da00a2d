"""The ranking of a pool that is too large for one process's memory: regions are ranked one by one, and merged by gain.

`rank_by_regions` reads downwards: a sample is drawn, and the pool is divided by it; vectors are dealt out to files of
the regions; each region compares its samples; the head is picked on the sample, and covers in all regions; each region
orders its samples as a whole pool is ordered; the orders are merged by what each pick gains.

This process holds the ids, a sample, and some numbers of each row, never the vectors. What a worker does is a function
of files in the workspace and goes to a file there, whole or not at all: a ranking that was killed goes on, and neither
the number of workers nor the engine changes it. Not here: how regions are found (`regions`), and what a worker does
(`region_work`).
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

from wtl_core.engines.engine import Engine, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.errors import InputError
from wtl_core.machine import Progress
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import columns
from wtl_core.selection.accuracy import Accuracy, Goal, labels_for
from wtl_core.selection.coverage import pick_all
from wtl_core.selection.greedy import NO_TAIL, new_state
from wtl_core.selection.identity import Purpose, content_keys, draw, shuffled
from wtl_core.selection.kernels import ONE, WEIGHT_ONE, kernel_table, median_scale
from wtl_core.selection.label_weights import LabelSay, Lesson, learn
from wtl_core.selection.neighbours import exact_distances, numeric_path_of, prepare
from wtl_core.selection.orders import limits_for, outcome_of
from wtl_core.selection.problem import PickOrder, free_limits
from wtl_core.selection.quotas import QuotaOutcome, order_within
from wtl_core.selection.ranking import Steering, covered_by, group_codes, near_distance, typical_of, votes_of
from wtl_core.selection.region_work import (
    Comparing,
    Files,
    Ordering,
    Weighing,
    load_region,
)
from wtl_core.selection.regions import Division, divide
from wtl_core.selection.result import NOTHING_NEAR, Ranking, with_the_far
from wtl_core.selection.sorted_rows import Batches, gather, given_copies, unit_vectors
from wtl_core.selection.steering import balance_factors, check_weights
from wtl_core.selection.stopping import find_stop
from wtl_core.workspace.storage import open_store

_log = logging.getLogger(__name__)
SAMPLE = 131_072
"""Samples by which the pool is divided and its head is picked."""
_SCALED = 50_000  # samples that the kernel's scale is measured on, as in a pool that is ranked at once
_EACH = 64
"""Samples of the sample for each pick of the head, at least: the head of fewer would fit the sample, not the pool."""
_READ = 1 << 16  # rows of an array that are a batch
_KEYED = 1 << 20  # ids that are texts of this process at once
_HELD = 1 << 28
"""Bytes of vectors that are held before they go to the regions' files."""


@dataclass(frozen=True)
class _Pool:
    """What is known of N samples beside their vectors, sorted by id.

    Attributes:
        caller_rows: (N,) int64, each sample's row in the caller's arrays.
        place: (N,) int64, the sorted row of each of the caller's rows.
        keys: (N,) uint64, by content.
        copies: (N,) int64, the sample that each is given as a pixel-identical copy of, or -1.
        base: (N,) float64 weights of at most 1; None where all are 1.
        codes: (N,) int32, the place of each sample's group in `names`; None without groups.
        names: Groups, sorted.
        labelled: (G,) labelled images of each group.
        frozen: (F,) int64 samples that come first, in this order.
    """

    caller_rows: np.ndarray
    place: np.ndarray
    keys: np.ndarray
    copies: np.ndarray
    base: np.ndarray | None
    codes: np.ndarray | None
    names: list[str]
    labelled: np.ndarray
    frozen: np.ndarray

    @property
    def count(self) -> int:
        return len(self.keys)

    def is_dealt_out(self) -> np.ndarray:
        """(N,) samples that a region needs the vector of: all but copies, which rank behind what they repeat."""
        is_dealt = self.copies < 0
        is_dealt[self.frozen] = True
        return is_dealt


@dataclass(frozen=True)
class _Sample:
    """Samples drawn by content: `rows` (S,) ascending, `keys` (S,), `vectors` (S, D)."""

    rows: np.ndarray
    keys: np.ndarray
    vectors: np.ndarray


@dataclass(frozen=True)
class _Weighed:
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


@dataclass(frozen=True)
class _Merged:
    """The regions' own samples in the order of the pool, arrays by rank after fixed picks.

    `order` says where each stands in the regions' arrays, one after the other.
    """

    order: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class _Fixed:
    """Frozen picks, then the head, by rank: `nearest` holds marks, -2 - l for labelled image or, behind these, pick l.

    `labelled` images cover `start` of the whole pool.
    """

    rows: np.ndarray
    gain: np.ndarray
    stands_for: np.ndarray
    weight: np.ndarray
    nearest: np.ndarray
    radius: np.ndarray
    labelled: int
    start: int


def rank_by_regions(
    batches: Batches,
    params: SelectionParams,
    *,
    sample_ids: pl.Series,
    files: Files,
    engine: Engine,
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
        steering: As for `ranking.rank`, in the caller's rows.
        device: `cpu` or a CUDA device of the workers.
        scale: The kernel's scale if one is fixed already; None measures it.
        on_progress: Called with how many samples of how many are compared.

    A pick's gain is what it adds in its own region, guests included; `coverage`, their sum, is an estimate of the
    pool's, and no bound on the optimum is given. `radius` and `nearest_earlier` look within the region and its guests,
    at the head and at labelled images; a nearer pick farther beyond a border is missed.

    Raises:
        InputError: wrong shapes, vectors that are not of unit length, ids that repeat, useless weights.
        ConfigError: see `columns.check_regions`.

    Memory, by counting arrays: some 300 bytes a sample here; for each worker 1 GB, the kernel values of its head, and
    1.5 KB and 6 D bytes for each sample and guest of its region.
    """
    steering = steering or Steering()
    columns.check_regions(params, max(len(sample_ids), params.regions_from))
    pool = _pool(sample_ids, steering)
    sample = np.sort(_drawn(pool, Purpose.HEAD, SAMPLE))
    scaled = _drawn(pool, Purpose.SCALE, _SCALED)
    wanted = np.unique(np.concatenate([sample, scaled, pool.frozen]))
    gathered = gather(batches, pool.caller_rows[wanted], pool.count)
    probed = prepare(gathered[np.searchsorted(wanted, scaled)], device)
    if scale is None:
        scale = median_scale(probed, np.arange(len(scaled)))
    drawn = _Sample(sample, pool.keys[sample], gathered[np.searchsorted(wanted, sample)])
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
    sizes = _deal_out(batches, pool, division, files)
    regions = np.flatnonzero(sizes).tolist()
    labelled = _write_outside(files, steering, gathered.shape[1])
    lesson = _lesson(steering, params, labelled, drawn, device)
    is_heard = lesson is not None and lesson.is_heard
    comparing = Comparing(files, params, scale, near, device, lesson if is_heard else None)
    _run(engine, comparing, regions, sizes, on_progress)
    weighed = _weigh(files, regions, pool, params, drawn)
    (vectors,) = files.read("labelled", "vectors")
    outside = prepare(vectors, device) if len(vectors) else None
    typical = typical_of(params, probed, outside, comparing.table, near, is_even=weighed.is_even)
    labelled_share = len(vectors) / weighed.count
    head = _head(files, pool, drawn, weighed, comparing, gathered[np.searchsorted(wanted, pool.frozen)])
    fixed = np.concatenate([pool.frozen, head])
    files.write("fixed", rows=fixed, vectors=gathered[np.searchsorted(wanted, fixed)])
    _run(engine, Ordering(comparing, typical, labelled_share), regions, sizes)
    return _assemble(files, regions, pool, comparing, weighed, steering, lesson)


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


@contextmanager
def passing_files() -> Iterator[Files]:
    """A folder of this machine for a ranking's files, which is deleted afterwards."""
    with TemporaryDirectory(prefix="wtl-regions-") as folder:
        yield Files(open_store(folder), "regions")


def _pool(sample_ids: pl.Series, steering: Steering) -> _Pool:
    count = len(sample_ids)
    if count == 0:
        raise InputError("vectors: expected at least one row, found none; add images")
    caller_rows = sample_ids.arg_sort().to_numpy().astype(np.int64)
    ordered = sample_ids.gather(caller_rows)
    repeated = np.flatnonzero((ordered.slice(1) == ordered.slice(0, count - 1)).to_numpy())
    if len(repeated):
        raise InputError(
            f"sample {ordered[int(repeated[0])]}: expected each sample_id once, found it twice; keep one of its rows"
        )
    place = np.empty(count, np.int64)
    place[caller_rows] = np.arange(count)
    parents = given_copies(caller_rows, steering.duplicate_of)
    while not np.array_equal(parents, above := parents[parents]):
        parents = above
    copies = np.where(parents == np.arange(count), -1, parents)
    base = None
    if steering.weights is not None:
        base = check_weights(steering.weights, count)[caller_rows]
        is_copy = copies >= 0
        np.maximum.at(base, copies[is_copy], base[is_copy])
        base /= base.max()
    names, codes, labelled = group_codes(steering, count)
    frozen = np.zeros(0, np.int64) if steering.frozen is None else np.asarray(steering.frozen, np.int64)
    if len(frozen) and (frozen.min() < 0 or frozen.max() >= count or len(np.unique(frozen)) < len(frozen)):
        raise InputError(f"frozen: expected distinct rows from 0 to {count - 1}; leave out what is not in the pool")
    keys = np.concatenate([content_keys(ordered.slice(start, _KEYED).to_list()) for start in range(0, count, _KEYED)])
    return _Pool(
        caller_rows=caller_rows,
        place=place,
        keys=keys,
        copies=copies,
        base=base,
        codes=None if codes is None else codes[caller_rows],
        names=names,
        labelled=labelled,
        frozen=place[frozen],
    )


def _drawn(pool: _Pool, purpose: Purpose, count: int) -> np.ndarray:
    """The first samples in a random order that depends on content alone; none that rank behind the others."""
    is_drawn = pool.is_dealt_out()
    if pool.base is not None:
        is_drawn &= pool.base > 0
        is_drawn[pool.frozen] = True
    rows = np.flatnonzero(is_drawn)
    numbers = draw(pool.keys[rows], 0, purpose)  # distinct, as keys are
    part = np.argpartition(numbers, count)[:count] if count < len(rows) else np.arange(len(rows))
    return rows[part[np.argsort(numbers[part])]]


def _deal_out(batches: Batches, pool: _Pool, division: Division, files: Files) -> np.ndarray:
    """Write each region's samples and guests into files; how many each has, (regions,) int64.

    `region-<region>-<piece>` has `rows` int32, `is_own`, `vectors`, `keys`, `base` float64, `codes` int32 and
    `is_frozen`; `dealt` has `sizes` (pieces, regions), and is written last.
    """
    if files.has("dealt"):
        return np.asarray(files.read("dealt", "sizes")[0].sum(0))
    is_dealt, is_frozen = pool.is_dealt_out(), np.zeros(pool.count, bool)
    is_frozen[pool.frozen] = True
    held: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
    sizes: list[np.ndarray] = []

    def flush() -> None:
        region, rows, is_own, vectors = (np.concatenate(parts) for parts in zip(*held, strict=True))
        held.clear()
        order = np.argsort(region, kind="stable")
        edges = np.searchsorted(region[order], np.arange(division.count + 1))
        for number in np.flatnonzero(np.diff(edges)):
            part = order[edges[number] : edges[number + 1]]
            here = rows[part]
            files.write(
                f"region-{number:06d}-{len(sizes):05d}",
                rows=here.astype(np.int32),
                is_own=is_own[part],
                vectors=vectors[part],
                keys=pool.keys[here],
                base=np.ones(len(here)) if pool.base is None else pool.base[here],
                codes=np.zeros(len(here), np.int32) if pool.codes is None else pool.codes[here],
                is_frozen=is_frozen[here],
            )
        sizes.append(np.diff(edges))

    for given, found in batches():
        kept = is_dealt[pool.place[given]]
        rows, vectors = pool.place[given[kept]], found[kept]
        own, guests = division.places(vectors)
        at, which = np.nonzero(guests >= 0)
        held.append((own, rows, np.ones(len(rows), bool), vectors))
        held.append((guests[at, which], rows[at], np.zeros(len(at), bool), vectors[at]))
        if sum(part[3].nbytes for part in held) > _HELD:
            flush()
    flush()
    files.write("dealt", sizes=np.stack(sizes))
    return np.asarray(np.stack(sizes).sum(0))


def _write_outside(files: Files, steering: Steering, width: int) -> np.ndarray:
    """`labelled` and `similar`: vectors of images outside the ranking; the labelled ones, (L, D)."""
    given = np.zeros((0, width), np.float16) if steering.labelled is None else steering.labelled
    labelled = unit_vectors(given, None, what="labelled", width=width)
    files.write("labelled", vectors=labelled)
    similar = {
        f"like{place}": unit_vectors(some, None, what="similar", width=width)
        for place, (some, _) in enumerate(steering.similar)
    }
    files.write("similar", powers=np.array([power for _, power in steering.similar]), **similar)
    return labelled


def _lesson(
    steering: Steering, params: SelectionParams, labelled: np.ndarray, drawn: _Sample, device: str
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


def _say(files: Files, regions: Sequence[int], lesson: Lesson | None) -> tuple[LabelSay | None, np.ndarray]:
    """What the labels say of all samples that are ordered, and the pool's row of each; of none if it is not heard."""
    if lesson is None:
        return None, np.zeros(0, np.int64)
    rows, parts = [np.zeros(0, np.int64)], [(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32))]
    for region in regions if lesson.is_heard else ():
        inside, likeliest, second, disagreement = files.read(
            f"compared-{region:06d}", "inside", "likeliest", "second", "disagreement"
        )
        own, is_own = load_region(files, region, "rows", "is_own")
        mine = is_own[inside]
        rows.append(own[inside][mine].astype(np.int64))
        parts.append((likeliest[mine], second[mine], disagreement[mine]))
    likeliest, second, disagreement = (np.concatenate(part) for part in zip(*parts, strict=True))
    say = LabelSay(
        factors=np.zeros(0),
        names=lesson.votes.names,
        likeliest=likeliest,
        second=second,
        disagreement=disagreement,
        labelled=len(lesson.votes.known),
        agreement=lesson.agreement,
        commonest=lesson.commonest,
        is_heard=lesson.is_heard,
    )
    return say, np.concatenate(rows)


def _run(
    engine: Engine,
    make_worker: Comparing | Ordering,
    regions: Sequence[int],
    sizes: np.ndarray,
    on_progress: Progress | None = None,
) -> None:
    """Let workers do all regions."""
    comparing = make_worker if isinstance(make_worker, Comparing) else make_worker.comparing
    needs = Needs(gpus=1 if comparing.device.startswith("cuda") else 0)
    weights = [float(sizes[region]) for region in regions]
    done, total = 0, int(sizes.sum())
    for number, _ in engine.run(make_worker, regions, needs=needs, weights=weights):
        done += int(sizes[regions[number]])
        if on_progress is not None:
            on_progress(done, total)


def _weigh(files: Files, regions: Sequence[int], pool: _Pool, params: SelectionParams, drawn: _Sample) -> _Weighed:
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
    return _Weighed(count, whole, least == top, of_sample, members, np.concatenate(twins))


def _own(files: Files, region: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows, raw weights, near-duplicates and groups of a region's own samples."""
    rows, is_own, codes = load_region(files, region, "rows", "is_own", "codes")
    inside, raw, near = files.read(f"compared-{region:06d}", "inside", "raw", "near")
    mine = is_own[inside]
    return rows[inside][mine], raw[mine], near[mine], codes[inside][mine]


def _head(
    files: Files, pool: _Pool, drawn: _Sample, weighed: _Weighed, comparing: Comparing, frozen_vectors: np.ndarray
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
        problem = replace(comparing.problem(points, drawn.keys[kept]), best=state.best, nearest=state.nearest)
        affinity = comparing.affinity(problem, weighed.of_sample[kept])
        picked = pick_all(problem, affinity, free_limits(problem), until=wanted, tail=NO_TAIL).state
        rows = drawn.rows[kept[picked.order[:wanted]]]
    files.write("head", rows=rows)
    return rows


def _merge(files: Files, regions: Sequence[int]) -> _Merged:
    """The regions' orders as one: by falling key and rising tie, and then by region."""
    parts = [files.read(f"ordered-{region:06d}", "rows", "key", "tie") for region in regions]
    rows, key, tie = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.lexsort((tie, -key))
    return _Merged(order, rows[order])


def _within_quotas(
    files: Files,
    regions: Sequence[int],
    merged: _Merged,
    pool: _Pool,
    params: SelectionParams,
    weighed: _Weighed,
) -> tuple[_Merged, QuotaOutcome]:
    """The merged order as quotas allow it: a sample whose group has to wait is passed over until its turn comes."""
    if not params.quotas or pool.codes is None:
        return merged, QuotaOutcome()
    limits = limits_for(params, pool.names, weighed.members, pool.labelled, pool.count)
    limits.counts[:] += np.bincount(pool.codes[pool.frozen], minlength=len(pool.names))
    order, given_up = order_within(limits, pool.codes[merged.rows], len(pool.frozen))
    within = _Merged(*(getattr(merged, name)[order] for name in ("order", "rows")))
    gains = np.concatenate([files.read(f"ordered-{region:06d}", "gain")[0] for region in regions])
    last = max(0, limits.budget - len(pool.frozen))
    cost = int(gains[merged.order[:last]].sum()) - int(gains[within.order[:last]].sum())
    outcome = outcome_of(
        params, pool.names, limits, pool.codes[np.concatenate([pool.frozen, within.rows])], pool.labelled,
        given_up=given_up, samples=pool.count, frozen=len(pool.frozen),
    )  # fmt: skip
    return within, replace(outcome, cost=cost / max(1, ONE * weighed.whole))


def _assemble(
    files: Files,
    regions: Sequence[int],
    pool: _Pool,
    comparing: Comparing,
    weighed: _Weighed,
    steering: Steering,
    lesson: Lesson | None,
) -> Ranking:
    """The ranking: fixed picks, the merged orders, and what ranks behind."""
    params = comparing.params
    merged = _merge(files, regions)
    merged, quotas = _within_quotas(files, regions, merged, pool, params, weighed)

    def by_rank(*names: str) -> Iterator[np.ndarray]:
        for name in names:
            parts = [files.read(f"ordered-{region:06d}", name)[0] for region in regions]
            yield np.concatenate(parts)[merged.order]

    fixed = _read_fixed(files, regions)
    rows = np.concatenate([fixed.rows, merged.rows.astype(np.int64)])
    assert len(rows) == weighed.count
    gain, stands_for, weight, nearest, radius, else_nearest, else_radius = (
        np.concatenate([mine, others])
        for mine, others in zip(
            (fixed.gain, fixed.stands_for, fixed.weight, fixed.nearest, fixed.radius, fixed.nearest, fixed.radius),
            by_rank("gain", "stands_for", "weight", "earlier", "radius", "else_earlier", "else_radius"),
            strict=True,
        )
    )
    nearest, else_nearest = (_pool_rows(found, fixed) for found in (nearest, else_nearest))
    rank = np.full(pool.count, pool.count)
    rank[rows] = np.arange(len(rows))
    # What a region took for a guest's place need not be the place that the guest's own region gave it.
    is_later = (nearest >= 0) & (rank[nearest] >= np.arange(len(rows)))
    nearest, radius = np.where(is_later, else_nearest, nearest), np.where(is_later, else_radius, radius)
    twin_of = _twins(pool, weighed.twins)
    is_behind = rank == pool.count
    behind = np.flatnonzero(is_behind)
    behind = behind[np.argsort(twin_of[behind] >= 0, kind="stable")]
    twins = twin_of[behind]
    whole = max(1, ONE * weighed.whole)
    gain = np.concatenate([gain / whole, np.zeros(len(behind))])
    coverage = np.minimum(1.0, fixed.start / whole + np.cumsum(gain))
    radius = np.concatenate([radius, np.where(twins >= 0, 0.0, np.nan)])
    goal = _goal(params, steering, left=len(rows))
    stop = find_stop(
        params, kept=len(rows), gain=gain, coverage=coverage, radius=radius, frozen=len(pool.frozen),
        quotas=quotas, goal=goal,
    )  # fmt: skip
    say, said_of = _say(files, regions, lesson)
    said = np.full(pool.count, -1)
    said[said_of] = np.arange(len(said_of))
    twin_rows = np.where(twins >= 0, pool.caller_rows[twins], -1)
    return Ranking(
        rows=pool.caller_rows[np.concatenate([rows, behind])],
        gain=gain,
        coverage=coverage,
        radius=radius,
        duplicate_of=np.concatenate([np.full(len(rows), -1), twin_rows]),
        stands_for=np.concatenate([stands_for, np.zeros(len(behind))]).astype(np.int64),
        nearest_earlier=np.concatenate([np.where(nearest >= 0, pool.caller_rows[nearest], -1), twin_rows]),
        weights=np.concatenate([weight / WEIGHT_ONE, np.zeros(len(behind))]),
        exact_until=len(fixed.rows),
        traced_until=len(rows),
        frozen=len(pool.frozen),
        scale=comparing.scale,
        near_duplicate_distance=comparing.near,
        numeric_path=numeric_path_of(comparing.device),
        stop=stop,
        quotas_until=quotas.until,
        quota_cost=quotas.cost,
        quota_advice=quotas.advice,
        optimum_bound=np.ones(100),
        goal=goal,
        labels=say,
        label_rows=np.concatenate([said[rows], np.full(len(behind), -1)]),
    )


def _read_fixed(files: Files, regions: Sequence[int]) -> _Fixed:
    """What fixed picks cover, summed over the regions; the integers are those of a pool that is ranked at once."""
    labelled, vectors = files.read("labelled", "vectors")[0], files.read("fixed", "vectors")[0]
    rows = files.read("fixed", "rows")[0]
    gain, stands_for = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    earlier, weight = np.full(len(rows), -1, np.int64), np.zeros(len(rows), np.int64)
    start = 0
    for region in regions:
        more, counted, before, own, covered = files.read(
            f"covered-{region:06d}", "gain", "stands_for", "earlier", "weight", "start"
        )
        gain, stands_for, start = gain + more, stands_for + counted, start + int(covered)
        is_here = own >= 0
        earlier[is_here], weight[is_here] = before[is_here], own[is_here]
    state = new_state(len(rows))
    state.order[:] = np.arange(len(rows))
    is_pick = earlier <= -2 - len(labelled)
    state.earlier[:] = np.where(is_pick, -2 - len(labelled) - earlier, earlier)
    order = PickOrder(state, weight, np.zeros(0), exact_until=0, traced_until=len(rows))
    found = with_the_far(order, vectors, np.arange(len(rows)), labelled)
    radius = np.full(len(rows), NOTHING_NEAR)
    picked, given = np.flatnonzero(found >= 0), np.flatnonzero(found <= -2)
    radius[picked] = exact_distances(vectors, picked, found[picked], vectors)
    radius[given] = exact_distances(vectors, given, -2 - found[given], labelled)
    nearest = np.where(found >= 0, -2 - len(labelled) - found, found)
    return _Fixed(rows, gain, stands_for, weight, nearest, radius, len(labelled), start)


def _pool_rows(found: np.ndarray, fixed: _Fixed) -> np.ndarray:
    """Rows of the pool, with those of fixed picks in place of marks; -1 for none, and for labelled images."""
    pick = -2 - fixed.labelled - found
    is_pick = pick >= 0
    return np.where(is_pick, fixed.rows[np.where(is_pick, pick, 0)] if len(fixed.rows) else -1, np.maximum(found, -1))


def _twins(pool: _Pool, found: np.ndarray) -> np.ndarray:
    """The row that each row is a copy of, by its pixels or its vector, -1 for none; chains end at the first row."""
    twin_of = pool.copies.copy()
    twin_of[found[:, 0]] = found[:, 1]
    is_copy = np.flatnonzero(twin_of >= 0)
    above = twin_of[twin_of[is_copy]]
    twin_of[is_copy[above >= 0]] = above[above >= 0]
    return twin_of


def _goal(params: SelectionParams, steering: Steering, *, left: int) -> Goal | None:
    if params.accuracy_goal is None:
        return None
    return labels_for(params.accuracy_goal, steering.accuracy or Accuracy(None, 0, 0), left=left)
