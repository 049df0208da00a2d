"""Greedy coverage of a whole pool, as exactly as its size allows. Inputs are checked by the callers.

Up to `exact_up_to` samples the kernel matrix of all pairs is held, and every pick is exact. In a larger pool one pass
over all pairs gives every row's neighbours and counts its near-duplicates. The first picks (the head) are then exact
among some thousand candidates, and the rest follows on the neighbour graph, where gains are exact among neighbours.

The tail: a pick covers itself wholly, which is of no use to an image that is not in the pool. That part of a gain
grows as picks lie closer together, until outliers gain most: on CIFAR-10, images held out are covered less well than
by random picks from a third of the pool on. Outliers do teach a network, so they are not all left for the end: from
`tail_from` of the pool on half of what a pick covers of itself counts, from `outliers_from` on nothing. Picks come
close sooner where many images are near-copies, so for `tail_from` near-copies count as one image.
"""

from dataclasses import dataclass

import numpy as np

from wtl_core.machine import Progress
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import certificate
from wtl_core.selection.certificate import Certificate
from wtl_core.selection.dense import all_gains, apply_fixed_picks, kernel_matrix, nearest_values
from wtl_core.selection.graph import graph_gains, pick_on_graph, transpose
from wtl_core.selection.greedy import State, new_heaps, new_state, pick_dense
from wtl_core.selection.head import pick_head
from wtl_core.selection.kernels import ONE, WEIGHT_ONE
from wtl_core.selection.kmeans_cells import cell_graph
from wtl_core.selection.neighbours import Graph, exact_graph
from wtl_core.selection.neighbours_cuda import exact_graph_on_cuda
from wtl_core.selection.problem import Neighbours, PickOrder, Problem
from wtl_core.selection.quotas import Limits
from wtl_core.selection.steering import balance_weights, whole_weights

_PROBES = 16  # nearest cells in which a row's neighbours are searched
_CELL_NEIGHBOURS = 64  # a million rows take 6 GB; picks of so many lie so close that farther rows are not covered


@dataclass(frozen=True)
class Affinity:
    """What comparing pairs gives: how much rows cover of each other, and weights after near-duplicates share theirs.

    `weights` (N,) int32 in units of 1/65536. Either `matrix` (N, N) int16, the kernel values of all pairs, or
    `neighbours`.
    """

    weights: np.ndarray
    matrix: np.ndarray | None
    neighbours: Neighbours | None


def measure_affinity(problem: Problem, *, on_progress: Progress | None = None) -> Affinity:
    """Compare all pairs: into a kernel matrix where the pool is small, else into a neighbour graph."""
    if problem.points.count <= problem.params.exact_up_to:
        near = np.zeros(problem.points.count, np.int64)
        matrix = kernel_matrix(problem.points, problem.table, near_level=problem.near_level, near=near)
        return Affinity(shared_weights(problem, near), matrix, None)
    graph = pool_graph(problem, on_progress=on_progress)
    values = problem.table[graph.levels]
    neighbours = Neighbours(graph.rows, values, transpose(graph.rows, values), not _is_by_cells(problem))
    return Affinity(shared_weights(problem, graph.near), None, neighbours)


def pool_graph(problem: Problem, *, on_progress: Progress | None = None) -> Graph:
    """The graph that a pool is ordered by: as many neighbours as the params say, by cells not more than 64."""
    width = problem.params.neighbours
    width = min(width, _CELL_NEIGHBOURS) if _is_by_cells(problem) else width
    return neighbour_graph(problem, width, on_progress=on_progress)


def _is_by_cells(problem: Problem) -> bool:
    return problem.points.count >= problem.params.cells_from and not problem.points.right.is_cuda


def neighbour_graph(problem: Problem, width: int, *, on_progress: Progress | None = None) -> Graph:
    """Every row's nearest rows: among all, or in a very large pool among the nearest cells."""
    points, level = problem.points, problem.near_level
    if points.right.is_cuda:
        return exact_graph_on_cuda(points, width, near_level=level, on_progress=on_progress)
    if not _is_by_cells(problem):
        return exact_graph(points, width, near_level=level, on_progress=on_progress)
    cells = max(1, int(points.count**0.5))
    return cell_graph(
        points, problem.keys, width, near_level=level, cells=cells, probes=_PROBES, on_progress=on_progress
    )  # fmt: skip


def pick_all(
    problem: Problem,
    affinity: Affinity,
    limits: Limits,
    *,
    until: int | None = None,
    tail: tuple[int, int] | None = None,
    head: np.ndarray | None = None,
) -> PickOrder:
    """Order the rows by greedy coverage.

    With `until` only that many first ones, with `tail` by these ranks of it, with `head` by a head that an earlier
    order of the same rows had; a tail ends it.
    """
    count, weights = problem.points.count, affinity.weights
    state = start_state(problem)
    bounds = Certificate.start(problem.counts, int(ONE * weights.sum(dtype=np.int64)))
    apply_fixed_picks(problem, weights, state, limits, problem.frozen)
    last, tail = count if until is None else until, tail_ranks(problem, weights) if tail is None else tail
    if affinity.matrix is not None:
        keys = _pick_on_matrix(problem, affinity.matrix, weights, state, limits, bounds, last, tail)
        return PickOrder(
            state, weights, bounds.bounds, exact_until=count, tail_from=tail[0], traced_until=count, keys=keys
        )
    assert affinity.neighbours is not None
    _certify(bounds, affinity.neighbours, state, weights)
    end = min(last, tail[0], state.picked + problem.params.head)
    if head is None:
        pick_head(problem, affinity.neighbours, weights, state, limits, end)
    else:
        apply_fixed_picks(problem, weights, state, limits, head[: max(0, end - state.picked)])
    exact = state.picked
    keys = _pick_on_neighbours(problem, affinity.neighbours, weights, state, limits, bounds, last, tail)
    return PickOrder(state, weights, bounds.bounds, exact_until=exact, tail_from=tail[0], traced_until=count, keys=keys)


def start_state(problem: Problem) -> State:
    """Nothing picked yet, and covered as labelled images cover."""
    state = new_state(problem.points.count)
    state.best[:] = problem.best
    state.nearest[:] = problem.nearest
    return state


def shared_weights(problem: Problem, near: np.ndarray) -> np.ndarray:
    """Weights in whole units after near-duplicates share and groups are balanced, (N,) int32."""
    shared = near if problem.params.has_duplicate_weights else np.ones_like(near)
    weights = problem.weights
    if problem.params.balance is not None:
        factor = balance_weights(problem.params.balance, problem.groups, problem.group_names, weights / shared)
        weights = weights * factor
        weights = weights / weights.max()
    return whole_weights(weights, shared)


def tail_ranks(problem: Problem, weights: np.ndarray) -> tuple[int, int]:
    """The ranks from which half, and from which nothing, of what a pick covers of itself counts.

    Labelled images count as picked. Where some samples weigh more than others there is no tail, since these are to be
    picked for their own sake.
    """
    labelled = 0 if problem.labelled is None else problem.labelled.count
    distinct = float(weights.sum(dtype=np.int64) / WEIGHT_ONE)
    is_even = bool(np.ptp(problem.weights) == 0.0)
    return tail_ranks_of(problem.params, problem.points.count, labelled, distinct, is_even=is_even)


def tail_ranks_of(
    params: SelectionParams, count: int, labelled: int, distinct: float, *, is_even: bool
) -> tuple[int, int]:
    """`tail_ranks` of `count` samples and `labelled` images, where near-duplicates counted as one are `distinct`."""
    is_even = is_even and params.balance is None
    if params.objective != "coverage" or params.tail_from == 1.0 or not is_even:
        return count, count
    half = max(0, int(params.tail_from * (distinct + labelled)) - labelled)
    return half, max(half, int(params.outliers_from * (count + labelled)) - labelled)


def _own_part(nearest: np.ndarray, best: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """What picking a row adds for itself beyond what its nearest other row or a labelled image would, (N,) int64.

    One unit less than that, so that rows which add nothing for others still differ: rows of a burst come after the
    others, and copies of labelled images last.
    """
    own = ONE - 1 - np.maximum(nearest, best).astype(np.int64)
    return np.asarray(np.maximum(own, 0) * weights)


def _uncounted(own: np.ndarray, picked: int, tail: tuple[int, int]) -> np.ndarray | None:
    """The part of each row's gain that does not count after so many picks; None if all of it counts."""
    half, nothing = tail
    if picked < half:
        return None
    return own if picked >= nothing else own // 2


def _checkpoints(last: int, tail: tuple[int, int]) -> list[int]:
    marks = {max(1, last * percent // 100) for percent in certificate.CHECK_PERCENTS}
    return sorted(mark for mark in {*marks, *tail, last} if 0 < mark <= last)


def _pick_on_matrix(
    problem: Problem,
    matrix: np.ndarray,
    weights: np.ndarray,
    state: State,
    limits: Limits,
    bounds: Certificate,
    last: int,
    tail: tuple[int, int],
) -> np.ndarray:
    """Exact greedy; the gains at each checkpoint serve the bound on the optimum and the next picks.

    Returns what counted of each gain, by rank, (N,) int64.
    """
    own, keys = None, state.gains.copy()
    for until in _checkpoints(last, tail):
        if own is None and state.picked >= tail[0]:
            own = _own_part(nearest_values(matrix), state.best, weights)
        gains = all_gains(matrix, state.best, weights)
        bounds.add(state.best, weights, gains)
        alone = None if own is None else _uncounted(own, state.picked, tail)
        heaps = new_heaps(gains, problem.groups, len(problem.group_names), state.is_taken, alone)
        before = state.picked
        pick_dense(state, heaps, limits, weights, matrix, until)
        _note_keys(keys, state, before, alone)
    return keys


def _note_keys(keys: np.ndarray, state: State, before: int, alone: np.ndarray | None) -> None:
    """What counted of the gains of the picks since `before`."""
    ranks = slice(before, state.picked)
    keys[ranks] = state.gains[ranks] if alone is None else state.gains[ranks] - alone[state.order[ranks]]


def _pick_on_neighbours(
    problem: Problem,
    neighbours: Neighbours,
    weights: np.ndarray,
    state: State,
    limits: Limits,
    bounds: Certificate,
    last: int,
    tail: tuple[int, int],
) -> np.ndarray:
    """All picks after the head, with bounds on the optimum on the way; what counted of each gain, as on the matrix."""
    rows, values = neighbours.rows, neighbours.values
    if neighbours.is_exact:
        bounds.add_nearest(np.maximum(values[:, 1], problem.best), weights)
    gains = graph_gains(rows, values, state.best, weights)
    own, keys = _own_part(values[:, 1], state.best, weights), state.gains.copy()
    for until in [mark for mark in _checkpoints(last, tail) if mark > state.picked]:
        _certify(bounds, neighbours, state, weights, gains)
        alone = _uncounted(own, state.picked, tail)
        heaps = new_heaps(gains, problem.groups, len(problem.group_names), state.is_taken, alone)
        before = state.picked
        pick_on_graph(state, heaps, limits, weights, gains, rows, values, *neighbours.listers, until)
        _note_keys(keys, state, before, alone)
    return keys


def _certify(
    bounds: Certificate, neighbours: Neighbours, state: State, weights: np.ndarray, gains: np.ndarray | None = None
) -> None:
    """Tighten the bound by the gains that the graph knows; not where nearer neighbours may have been missed."""
    if not neighbours.is_exact:
        return
    if gains is None:
        gains = graph_gains(neighbours.rows, neighbours.values, state.best, weights)
    bounds.add(state.best, weights, gains, certificate.graph_slack(neighbours.values, state.best, weights))
