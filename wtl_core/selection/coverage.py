"""Greedy coverage of a whole pool, by whichever exact or near-exact way its size affords. No input checks here.

Up to `exact_up_to` samples: the whole kernel matrix, exact greedy to the end. Beyond: one pass over all pairs gives
every row's neighbours, near-duplicates and first gain; the head is exact greedy with every pair, and the rest follows
on the neighbour graph, where gains are exact among the neighbours.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from wtl_core.neighbours import Graph, Progress, exact_graph
from wtl_core.selection import certificate
from wtl_core.selection.certificate import Certificate
from wtl_core.selection.dense import ColumnCache, all_gains, force, kernel_matrix, pick_with_cache
from wtl_core.selection.graph import graph_gains, pick_on_graph, transpose
from wtl_core.selection.greedy import State, new_heaps, new_state, pick_dense
from wtl_core.selection.kernels import ONE, add_gains
from wtl_core.selection.problem import Cover, Problem
from wtl_core.selection.quotas import Limits, limits_of
from wtl_core.selection.steering import balance_weights, whole_weights


@dataclass(frozen=True)
class Survey:
    """What one look at all pairs gives: `weights` (N,) int32, and either the kernel `matrix` or neighbours.

    `first_gains` (N,) int64: gains when labelled and frozen rows stand. `neighbours` (N, K) int32 with kernel `values`
    (N, K) int16, falling; `listers` is their transpose.
    """

    weights: np.ndarray
    first_gains: np.ndarray | None = None
    matrix: np.ndarray | None = None
    neighbours: np.ndarray | None = None
    values: np.ndarray | None = None
    listers: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


def survey_pool(problem: Problem, *, on_progress: Progress | None = None) -> Survey:
    """Look at all pairs once (twice if groups are balanced: a first gain needs all weights)."""
    if problem.points.count <= problem.params.exact_up_to:
        near = exact_graph(problem.points, 1, near_level=problem.near_level).near
        return Survey(shared_weights(problem, near), matrix=kernel_matrix(problem.points, problem.table))
    graph, weights, gains = _survey_large(problem, on_progress)
    values = problem.table[graph.levels]
    return Survey(weights, gains, None, graph.rows, values, transpose(graph.rows, values))


def pick_all(problem: Problem, survey: Survey, limits: Limits, *, until: int | None = None) -> Cover:
    """Order the rows by greedy coverage; with `until` only the first so many."""
    count, weights = problem.points.count, survey.weights
    state = start_state(problem)
    bounds = Certificate.start(problem.counts, int(ONE * weights.sum(dtype=np.int64)))
    force(problem.points, problem.table, weights, state, limits, problem.frozen, problem.groups)
    last = count if until is None else until
    if survey.matrix is not None:
        _pick_on_matrix(problem, survey, state, limits, bounds, last)
        return Cover(state, weights, bounds.bounds, count, count)
    assert survey.first_gains is not None
    head = min(last, state.picked + problem.params.head)
    heaps = new_heaps(survey.first_gains, problem.groups, len(problem.group_names), state.is_taken)
    pick_with_cache(ColumnCache(problem.points, problem.table), state, heaps, limits, weights, head)
    _pick_on_neighbours(problem, survey, state, limits, bounds, last)
    return Cover(state, weights, bounds.bounds, head, count)


def start_state(problem: Problem) -> State:
    """The state as labelled images leave it."""
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


def _checkpoints(count: int) -> list[int]:
    marks = {max(1, count * percent // 100) for percent in certificate.CHECK_PERCENTS}
    return [*sorted(marks - {count}), count]


def _pick_on_matrix(
    problem: Problem, survey: Survey, state: State, limits: Limits, bounds: Certificate, last: int
) -> None:
    """Exact greedy; each checkpoint's fresh gains serve the certificate and the next picks."""
    assert survey.matrix is not None
    slots = np.arange(problem.points.count, dtype=np.int32)
    for until in _checkpoints(last):
        gains = all_gains(survey.matrix, state.best, survey.weights)
        bounds.add(state.best, survey.weights, gains)
        heaps = new_heaps(gains, problem.groups, len(problem.group_names), state.is_taken)
        pick_dense(state, heaps, limits, survey.weights, survey.matrix, slots, until)


def _pick_on_neighbours(
    problem: Problem, survey: Survey, state: State, limits: Limits, bounds: Certificate, last: int
) -> None:
    """All that is left after the head, with certificates on the way."""
    rows, values, weights = survey.neighbours, survey.values, survey.weights
    assert rows is not None
    assert values is not None
    assert survey.first_gains is not None
    assert survey.listers is not None
    bounds.add(problem.best, weights, survey.first_gains)
    bounds.add_nearest(np.maximum(values[:, 1], problem.best), weights)
    gains = graph_gains(rows, values, state.best, weights)
    heaps = new_heaps(gains, problem.groups, len(problem.group_names), state.is_taken)
    for until in [mark for mark in _checkpoints(last) if mark > state.picked]:
        bounds.add(state.best, weights, gains, certificate.graph_slack(values, state.best, weights))
        pick_on_graph(state, heaps, limits, weights, gains, rows, values, *survey.listers, until)


def _survey_large(problem: Problem, on_progress: Progress | None) -> tuple[Graph, np.ndarray, np.ndarray]:
    """Neighbours, weights and first gains (N,) int64 in one pass over all pairs."""
    points, near_level = problem.points, problem.near_level
    is_balanced = problem.params.balance is not None
    weights = np.zeros(points.count, np.int32)
    if is_balanced:
        weights = shared_weights(problem, exact_graph(points, 1, near_level=near_level).near)
    best = _best_of_given(problem)
    gains = np.zeros(points.count, np.int64)

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:

        def add_rows(bits: np.ndarray, start: int, near: np.ndarray) -> None:
            rows = slice(start, start + len(near))
            if not is_balanced:
                shared = near if problem.params.has_duplicate_weights else None
                weights[rows] = whole_weights(problem.weights[rows], shared)
            jobs = [
                threads.submit(
                    add_gains, block, problem.table, weights[rows], best[rows], place * block.shape[1], gains
                )
                for place, block in enumerate(bits)
            ]
            for job in jobs:
                job.result()

        width = problem.params.neighbours
        graph = exact_graph(points, width, near_level=near_level, on_rows=add_rows, on_progress=on_progress)
    return graph, weights, gains


def _best_of_given(problem: Problem) -> np.ndarray:
    """Kernel values to the nearest labelled or frozen image: what is still to gain counts from there."""
    if len(problem.frozen) == 0:
        return problem.best
    state = start_state(problem)
    nothing = np.zeros(problem.points.count, np.int32)
    sizes = np.bincount(problem.groups, minlength=len(problem.group_names))
    limits = limits_of((), problem.group_names, sizes, 0)
    force(problem.points, problem.table, nothing, state, limits, problem.frozen, problem.groups)
    return state.best
