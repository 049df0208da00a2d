"""What a worker does with one region of a large pool: compare its samples, and order them.

Each is a function of files, and its result is a file, whole or not at all; what is there already is not made again. Not
here: what is decided for all regions together (`ranking`).

In a region's arrays its samples and its guests stand sorted by id, as `rows` of the whole pool. A file may hold more
arrays than a reader needs, and only those that are asked for are read.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from wtl_core.engines.places import check_seen
from wtl_core.errors import ConfigError
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.by_regions.files import Files, load_region
from wtl_core.selection.by_regions.weights import read_weighing
from wtl_core.selection.coverage import Affinity, pick_all, pool_graph, tail_of
from wtl_core.selection.dense import kernel_matrix, kernel_rows
from wtl_core.selection.graph import transpose
from wtl_core.selection.greedy import State, cover, gain_of, new_state
from wtl_core.selection.kernels import ONE, kernel_table
from wtl_core.selection.kmeans_cells import cell_graph
from wtl_core.selection.label_weights import LabelSay, Lesson
from wtl_core.selection.neighbours import Graph, Points, exact_distances, level_of, numeric_path_of, prepare
from wtl_core.selection.problem import Neighbours, PickOrder, Problem, free_limits
from wtl_core.selection.ranking import covered_by, kernel_of, similar_weights
from wtl_core.selection.result import NOTHING_NEAR, with_the_far
from wtl_core.selection.sorted_rows import join_equal

_FIXED_ROWS = 256
"""Fixed picks whose kernel values are in memory at once."""
_TRACED_ROWS = 1024
"""Rows whose neighbours' ranks are in memory at once."""


_CELLS_FROM = 30_000
"""Samples of a region from which on neighbours are searched in the nearest cells."""


_CELL = 480  # samples of a cell: own samples, and those of sixteen cells, fill products of 256 x 4096 nearly


_NEIGHBOURS, _PROBES = 64, 16  # as in a whole pool that is ordered by cells


_RUN = np.int64(1) << 40


@dataclass(frozen=True)
class Comparing:
    """A worker that compares the samples of a region, into `compared-<region>`: neighbours, near-duplicates, weights.

    Attributes:
        files: The ranking's.
        params: The recipe's.
        scale: The kernel's.
        near: The distance of near-duplicates.
        device: `cpu` or a CUDA device.
        numeric_path: How products must be computed; another processor's would mix two rankings.
        places: Local paths that the worker must see.
        lesson: What the labels teach, if it is heard.
    """

    files: Files
    params: SelectionParams
    scale: float
    near: float
    device: str
    numeric_path: str
    places: tuple[str, ...]
    lesson: Lesson | None = None

    def __call__(self) -> Callable[[int], None]:
        """Compares a region."""
        self.check()
        return self.compare

    def check(self) -> None:
        """Raise ConfigError where files are not seen, or products computed in another way."""
        check_seen(self.places)
        if (found := numeric_path_of(self.device)) != self.numeric_path:
            raise ConfigError(
                f"node {socket.gethostname()}: expected a processor that compares vectors by {self.numeric_path} as "
                f"the machine that runs the refresh does, found one that does by {found}; use nodes of one kind"
            )

    @property
    def table(self) -> np.ndarray:
        """Kernel values by distance level."""
        return kernel_table(kernel_of(self.params), self.scale * self.params.scale_factor)

    def compare(self, region: int) -> None:
        """Write `compared-<region>`, with arrays of the n samples and guests that can be picked and are no copies.

        `inside` (n,) is their place in the region, `raw` (n,) float64 their weight, `near` (n,) int64 how many
        near-duplicates each has, `best` and `nearest` (n,) how labelled images cover them, and in a region of more than
        `exact_up_to` there are `rows` and `levels` of the graph. `twins` (t, 2) are pool rows of copies and of what
        they repeat. With a lesson there are `likeliest`, `second` and `disagreement` (n,), what the labels say.
        """
        name = f"compared-{region:06d}"
        if self.files.has(name):
            return
        rows, is_own, vectors, keys, base, is_frozen = load_region(
            self.files, region, "rows", "is_own", "vectors", "keys", "base", "is_frozen"
        )
        twin_of = join_equal(vectors, np.arange(len(rows)))
        twins = np.flatnonzero(twin_of >= 0)
        np.maximum.at(base, twin_of[twins], base[twins])
        inside = np.flatnonzero(((twin_of < 0) & (base > 0)) | is_frozen)
        points = prepare(vectors[inside], self.device)
        raw = self._similar(base[inside], points)
        state, say = self._labelled(points, vectors[inside])
        mine = twins[is_own[twins]]
        arrays = {"twins": np.stack([rows[mine], rows[twin_of[mine]]], axis=1)}
        arrays |= {"best": state.best, "nearest": state.nearest}
        if say is not None:
            raw = raw * say.factors
            arrays |= {"likeliest": say.likeliest, "second": say.second, "disagreement": say.disagreement}
        if len(inside) <= self.params.exact_up_to:
            near = np.zeros(len(inside), np.int64)
            kernel_matrix(points, self.table, near_level=level_of(self.near), near=near)
        else:
            graph = self._graph(self.problem(points, keys[inside]))
            near = graph.near
            arrays |= {"rows": graph.rows, "levels": graph.levels}
        self.files.write(name, inside=inside, raw=raw, near=near, **arrays)

    def problem(self, points: Points, keys: np.ndarray) -> Problem:
        """Points as a problem of one group, where all weigh the same and nothing is labelled or frozen."""
        count = points.count
        return Problem(
            points=points,
            keys=keys,
            table=self.table,
            weights=np.ones(count),
            near_level=level_of(self.near),
            scale=self.scale,
            typical=ONE,
            best=np.zeros(count, np.int16),
            nearest=np.full(count, -1, np.int32),
            labelled=None,
            frozen=np.zeros(0, np.int64),
            groups=np.zeros(count, np.int32),
            group_names=[""],
            labelled_by_group=np.zeros(1, np.int64),
            counts=np.ones(100, np.int64),
            params=self.params,
        )

    def _graph(self, problem: Problem) -> Graph:
        """Of a large region by cells of such a size that products, whose shape is fixed, compare what is there.

        Of 80,000 samples nearly twice as many meet in the same time as by cells such as a whole pool has.
        """
        count = problem.points.count
        if count < _CELLS_FROM or problem.points.right.is_cuda:
            return pool_graph(problem)
        width, cells = min(self.params.neighbours, _NEIGHBOURS), count // _CELL
        level = problem.near_level
        return cell_graph(problem.points, problem.keys, width, near_level=level, cells=cells, probes=_PROBES)

    def affinity(self, problem: Problem, weights: np.ndarray) -> Affinity:
        """What rows of given weights cover of each other, by comparing them."""
        if problem.points.count <= self.params.exact_up_to:
            return Affinity(weights, kernel_matrix(problem.points, problem.table), None)
        graph = self._graph(problem)
        return graph_affinity(weights, graph.rows, problem.table[graph.levels])

    def affinity_of(self, region: int, problem: Problem, weights: np.ndarray) -> Affinity:
        """What a region's samples cover of each other, as `compare` found it."""
        rows, values = self.pairs_of(region, problem)
        if rows is None:
            return Affinity(weights, values, None)
        return graph_affinity(weights, rows, values)

    def pairs_of(self, region: int, problem: Problem) -> tuple[np.ndarray | None, np.ndarray]:
        """The rows that each row was compared with, None for all of them, and its kernel values with these."""
        if problem.points.count <= self.params.exact_up_to:
            return None, kernel_matrix(problem.points, problem.table)
        rows, levels = self.files.read(f"compared-{region:06d}", "rows", "levels")
        return rows, problem.table[levels]

    def _labelled(self, points: Points, vectors: np.ndarray) -> tuple[State, LabelSay | None]:
        """How labelled images cover the points, and what their classes say of them."""
        (labelled,) = self.files.read("labelled", "vectors")
        others = prepare(labelled, self.device) if len(labelled) else None
        if self.lesson is None:
            return covered_by(points, others, self.table), None
        votes = self.lesson.votes.of_others(points.count, self.lesson.votes.own)
        return covered_by(points, others, self.table, votes), self.lesson.say(votes, vectors)

    def _similar(self, base: np.ndarray, points: Points) -> np.ndarray:
        """Weights after similarity to given images."""
        (powers,) = self.files.read("similar", "powers")
        given = self.files.read("similar", *(f"like{place}" for place in range(len(powers))))
        similar = [(prepare(some, self.device), float(power)) for some, power in zip(given, powers, strict=True)]
        return similar_weights(base, similar, points, self.scale * self.params.scale_factor)


@dataclass(frozen=True)
class Ordering:
    """A worker that orders the samples of a region, into `ordered-<region>`.

    Attributes:
        comparing: What the region was compared by.
        typical: As in `Problem`, of the whole pool.
        labelled_share: Labelled images for each sample of the pool.
    """

    comparing: Comparing
    typical: int
    labelled_share: float

    def __call__(self) -> Callable[[int], None]:
        """Orders a region."""
        self.comparing.check()
        return self.order

    def order(self, region: int) -> None:
        """Write `ordered-<region>`.

        By rank within the region, (m,), its own samples alone, without those that are fixed: `rows` int32 of the pool;
        `key` and `tie` int64, by which regions are merged; `gain` int64; `stands_for` int32; `weight` int32.
        """
        files, params = self.comparing.files, self.comparing.params
        name = f"ordered-{region:06d}"
        if files.has(name):
            return
        rows, is_own, vectors, keys, codes = load_region(files, region, "rows", "is_own", "vectors", "keys", "codes")
        inside, raw, near = files.read(f"compared-{region:06d}", "inside", "raw", "near")
        own_rows, is_mine = rows[inside], is_own[inside]
        weights = read_weighing(files).weights(raw, near, codes[inside], params)
        (labelled,) = files.read("labelled", "vectors")
        fixed, fixed_vectors = files.read("fixed", "rows", "vectors")
        points = prepare(vectors[inside], self.comparing.device)
        best, nearest = self._covered(region, points, weights * is_mine, fixed_vectors, own_rows, fixed, len(labelled))
        problem = self.comparing.problem(points, keys[inside])
        problem = replace(problem, best=best, nearest=nearest, typical=self.typical)
        before = int(np.isin(own_rows, fixed).sum())  # picked already, as the frozen ones of a pool ranked at once
        tail = tail_of(problem, round(self.labelled_share * len(inside)) + before)._replace(rows=len(inside) - before)
        affinity = self.comparing.affinity_of(region, problem, weights)
        ordered = pick_all(problem, affinity, free_limits(problem), tail=tail)
        order = ordered.state.order.astype(np.int64)
        key, tie = merge_keys(ordered.state.keys, own_rows[order])
        is_kept = is_mine[order] & ~np.isin(own_rows[order], fixed)
        by_rank = {
            "rows": own_rows[order].astype(np.int32),
            "key": key,
            "tie": tie,
            "gain": ordered.state.gains,
            "stands_for": ordered.state.stands_for,
            "weight": weights[order],
        }
        kept = {what: values[is_kept] for what, values in by_rank.items()}
        files.write(name, **kept)

    def _covered(
        self,
        region: int,
        points: Points,
        shares: np.ndarray,
        fixed_vectors: np.ndarray,
        rows: np.ndarray,
        fixed: np.ndarray,
        labelled: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """`best` and `nearest` of the region's rows, covered by labelled images and fixed picks.

        Into `covered-<region>`, with `start` int64, what labelled images cover of the region's own samples by their
        `shares`, and by fixed pick `gain` int64 and `stands_for` int64 among these, `weight`, which is -1 where it is
        not of this region, and `earlier` int32, its `nearest` before it was picked.
        """
        files, name = self.comparing.files, f"covered-{region:06d}"
        if not files.has(name):
            state, table = new_state(points.count), self.comparing.table
            state.best[:], state.nearest[:] = files.read(f"compared-{region:06d}", "best", "nearest")
            start = int((state.best.astype(np.int64) * shares).sum())
            found = _cover_by_fixed(
                points,
                fixed_vectors,
                table,
                state,
                shares,
                rows,
                fixed,
                first=labelled,
                device=self.comparing.device,
            )
            files.write(name, best=state.best, nearest=state.nearest, start=start, **found)
        best, nearest = files.read(name, "best", "nearest")
        return best, nearest


@dataclass(frozen=True)
class Tracing:
    """A worker that finds what came before each pick of a region, into `traced-<region>`, once all are merged.

    Attributes:
        comparing: What the region was compared by.
    """

    comparing: Comparing

    def __call__(self) -> Callable[[int], None]:
        """Traces a region."""
        self.comparing.check()
        return self.trace

    def trace(self, region: int) -> None:
        """Write `traced-<region>`, by the ranks in the pool that `ranks-<region>` has of its samples and guests.

        Of its own samples that are not fixed, (m,): `rows` int32 of the pool; `earlier` int64, the nearest one of lower
        rank in the region and among its guests, as a row of the pool, or -2 - l for outside image l, or -1; `radius`.
        """
        files, name = self.comparing.files, f"traced-{region:06d}"
        if files.has(name):
            return
        rows, is_own, vectors, keys = load_region(files, region, "rows", "is_own", "vectors", "keys")
        (inside,), (ranks,) = files.read(f"compared-{region:06d}", "inside"), files.read(f"ranks-{region:06d}", "ranks")
        best, nearest = files.read(f"covered-{region:06d}", "best", "nearest")
        (labelled,), (fixed, fixed_vectors) = files.read("labelled", "vectors"), files.read("fixed", "rows", "vectors")
        rows, outside, count = rows[inside], np.concatenate([labelled, fixed_vectors]), len(inside)
        problem = self.comparing.problem(prepare(vectors[inside], self.comparing.device), keys[inside])
        before, value = _nearest_before(ranks, *self.comparing.pairs_of(region, problem))
        order = np.argsort(ranks, kind="stable")
        state = new_state(count)
        state.order[:], state.earlier[:] = order, np.where(best >= value, nearest, before)[order]
        ordered = PickOrder(state, np.zeros(count, np.int32), np.zeros(0), exact_until=0, traced_until=count)
        own = inside[order]
        found = with_the_far(ordered, vectors, own, outside)
        radius = np.full(count, NOTHING_NEAR)
        picked, given = np.flatnonzero(found >= 0), np.flatnonzero(found <= -2)
        radius[picked] = exact_distances(vectors, own[picked], own[found[picked]], vectors)
        radius[given] = exact_distances(vectors, own[given], -2 - found[given], outside)
        earlier = np.where(found >= 0, rows[order[np.maximum(found, 0)]], found)
        is_kept = is_own[own] & ~np.isin(rows[order], fixed)
        files.write(name, rows=rows[order][is_kept], earlier=earlier[is_kept], radius=radius[is_kept])


def graph_affinity(weights: np.ndarray, rows: np.ndarray, values: np.ndarray) -> Affinity:
    """What rows cover of each other by a graph, of which no bound on the optimum is asked for."""
    return Affinity(weights, None, Neighbours(rows, values, transpose(rows, values), is_exact=False))


def merge_keys(keys: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By what regions are merged: falling keys, and at equal ones rising ties; both (n,) int64.

    A pick's key is what counted of its gain, and no more than that of any pick before it, so that merging keeps a
    region's order; the tie is its row, and no less than that of the picks before it with an equal key.
    """
    merged = np.minimum.accumulate(keys)
    is_new = np.ones(len(keys), bool)
    is_new[1:] = np.diff(merged) != 0
    run = np.cumsum(is_new) * _RUN
    return merged, np.maximum.accumulate(rows + run) - run


def _cover_by_fixed(
    points: Points, fixed_vectors: np.ndarray, table: np.ndarray, state: State, shares: np.ndarray, rows: np.ndarray,
    fixed: np.ndarray, *, first: int, device: str,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Let fixed picks cover one after the other; the arrays of `covered-<region>` by pick. Pick l has mark -2 - l."""
    gain, stands_for = np.zeros(len(fixed), np.int64), np.zeros(len(fixed), np.int64)
    earlier = np.full(len(fixed), -1, np.int32)
    place = np.searchsorted(rows, fixed)
    is_here = rows[np.minimum(place, len(rows) - 1)] == fixed
    out = np.empty((_FIXED_ROWS, points.count), np.int16)
    counted = (shares > 0).astype(np.int64)
    others = prepare(fixed_vectors, device) if len(fixed) else points
    for start in range(0, len(fixed), _FIXED_ROWS):
        stop = min(start + _FIXED_ROWS, len(fixed))
        kernel_rows(points, others.left_slice(start, stop), table, out[: stop - start])
        for pick in range(start, stop):
            column = out[pick - start]
            if is_here[pick]:
                earlier[pick] = state.nearest[place[pick]]
            gain[pick] = gain_of(column, state.best, shares)
            stands_for[pick] = int(counted[column > state.best].sum())
            cover(state, column, -2 - first - pick, 0)
    weight = np.where(is_here & (shares[place % len(rows)] > 0), shares[place % len(rows)], -1)
    return {"gain": gain, "stands_for": stands_for, "earlier": earlier, "weight": weight}


def _nearest_before(
    ranks: np.ndarray, compared: np.ndarray | None, kernel: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest row of lower rank that each row is compared with, -1 for none, and its kernel value; both (n,).

    `compared` and `kernel` are as `Comparing.pairs_of` gives them. Of equally near ones the one of the lowest rank.
    """
    count = len(ranks)
    before, value = np.full(count, -1, np.int64), np.zeros(count, np.int64)
    for start in range(0, count, _TRACED_ROWS):
        part = slice(start, min(start + _TRACED_ROWS, count))
        values, everyone = kernel[part], np.broadcast_to(np.arange(count), (part.stop - start, count))
        others = everyone if compared is None else compared[part]
        is_before = (others >= 0) & (ranks[others] < ranks[part, None]) & (values > 0)
        key = np.where(is_before, values.astype(np.int64) << 32, 0) - ranks[others]
        at, place = np.arange(len(key)), key.argmax(1)
        is_there = is_before[at, place]
        before[part] = np.where(is_there, others[at, place], -1)
        value[part] = np.where(is_there, values[at, place], 0)
    return before, value
