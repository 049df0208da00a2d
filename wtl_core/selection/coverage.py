"""Greedy coverage of a whole pool, as exactly as its size allows. Inputs are checked by the callers.

Up to `exact_up_to` samples the kernel matrix of all pairs is held, and every pick is exact. In a larger pool one pass
over all pairs gives every row's neighbours and counts its near-duplicates. The first picks (the head) are then exact
among some thousand candidates, and the rest follows on the neighbour graph, where gains are exact among neighbours.

The tail: a pick covers itself wholly, which is of no use to an image that is not in the pool. That part of a gain
grows as picks lie closer together, until outliers gain most: on CIFAR-10, images held out are covered less well than
by random picks from a third of the pool on. Outliers do teach a network, and on a long tail they are the rare classes,
so they are not all left for the end. Instead a pick's kernel value to itself, as far as it counts, falls as picks are
made: from 1, in proportion to the picks for each image that is left, to what an image has to its second neighbour in
the median, near-copies left out, once a third of the pool is picked. From there on a pick covers of itself what it
covers of a typical neighbour. Reached at half of the pool, held-out images of CIFAR-10 are covered less well than by
random picks at 35 and 40 %; from the first pick on, long tails lose accuracy at 20 %.
"""

from dataclasses import dataclass

import numpy as np

from wtl_core.machine import Progress
from wtl_core.selection import certificate
from wtl_core.selection.certificate import Certificate
from wtl_core.selection.dense import all_gains, apply_fixed_picks, kernel_matrix
from wtl_core.selection.graph import graph_gains, pick_on_graph, transpose
from wtl_core.selection.greedy import NO_TAIL, State, Tail, counted, new_heaps, new_state, pick_dense
from wtl_core.selection.head import pick_head
from wtl_core.selection.kernels import ONE
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
    tail: Tail | None = None,
) -> PickOrder:
    """Order the rows by greedy coverage; with `until` only that many first ones, with `tail` by another tail."""
    count, weights = problem.points.count, affinity.weights
    state = start_state(problem)
    bounds = Certificate.start(problem.counts, int(ONE * weights.sum(dtype=np.int64)))
    apply_fixed_picks(problem, weights, state, limits, problem.frozen)
    last = count if until is None else until
    if tail is None:
        tail = tail_of(problem, 0 if problem.labelled is None else problem.labelled.count)
    if affinity.matrix is not None:
        _pick_on_matrix(problem, affinity.matrix, weights, state, limits, bounds, last, tail)
        return PickOrder(state, weights, bounds.bounds, exact_until=count, traced_until=count)
    assert affinity.neighbours is not None
    _certify(bounds, affinity.neighbours, state, weights)
    end = min(last, state.picked + problem.params.head)
    pick_head(problem, affinity.neighbours, weights, state, limits, tail, end)
    exact = state.picked
    _pick_on_neighbours(problem, affinity.neighbours, weights, state, limits, bounds, last, tail)
    return PickOrder(state, weights, bounds.bounds, exact_until=exact, traced_until=count)


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


def tail_of(problem: Problem, labelled: int) -> Tail:
    """The tail of a problem's rows; `labelled` images count as picked."""
    if problem.typical == ONE:
        return NO_TAIL
    return Tail(ONE - problem.typical, labelled, problem.points.count, ONE - int(problem.table[problem.near_level]))


def _checkpoints(last: int) -> list[int]:
    marks = {max(1, last * percent // 100) for percent in certificate.CHECK_PERCENTS}
    return sorted(mark for mark in {*marks, last} if 0 < mark <= last)


def _pick_on_matrix(
    problem: Problem,
    matrix: np.ndarray,
    weights: np.ndarray,
    state: State,
    limits: Limits,
    bounds: Certificate,
    last: int,
    tail: Tail,
) -> None:
    """Exact greedy; the gains at each checkpoint serve the bound on the optimum and the next picks."""
    own = np.arange(len(matrix))
    for until in _checkpoints(last):
        gains = all_gains(matrix, state.best, weights)
        bounds.add(state.best, weights, gains)
        keys = counted(tail, state, weights, own, gains)
        heaps = new_heaps(keys, problem.groups, len(problem.group_names), state.is_taken)
        pick_dense(state, heaps, limits, weights, matrix, own, tail, until)


def _pick_on_neighbours(
    problem: Problem,
    neighbours: Neighbours,
    weights: np.ndarray,
    state: State,
    limits: Limits,
    bounds: Certificate,
    last: int,
    tail: Tail,
) -> None:
    """All picks after the head, with bounds on the optimum on the way."""
    rows, values = neighbours.rows, neighbours.values
    if neighbours.is_exact:
        bounds.add_nearest(np.maximum(values[:, 1], problem.best), weights)
    gains = graph_gains(rows, values, state.best, weights)
    own = np.arange(len(rows))
    for until in [mark for mark in _checkpoints(last) if mark > state.picked]:
        _certify(bounds, neighbours, state, weights, gains)
        keys = counted(tail, state, weights, own, gains)
        heaps = new_heaps(keys, problem.groups, len(problem.group_names), state.is_taken)
        pick_on_graph(state, heaps, limits, weights, gains, rows, values, *neighbours.listers, tail, until)


def _certify(
    bounds: Certificate, neighbours: Neighbours, state: State, weights: np.ndarray, gains: np.ndarray | None = None
) -> None:
    """Tighten the bound by the gains that the graph knows; not where nearer neighbours may have been missed."""
    if not neighbours.is_exact:
        return
    if gains is None:
        gains = graph_gains(neighbours.rows, neighbours.values, state.best, weights)
    bounds.add(state.best, weights, gains, certificate.graph_slack(neighbours.values, state.best, weights))
