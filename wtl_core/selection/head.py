"""The first picks of a large pool: exact greedy among candidates, with every sample as a reference. No graph here.

Early picks stand for more samples than a neighbour list holds, so the graph alone picks them a little too locally. It
finds good candidates, though: they are what greedy picking finds on the graph, and on a small part of the pool with
every pair. Their kernel columns are computed by one product, and the head is picked among them by exact gains.
"""

import numpy as np

from wtl_core.selection.dense import all_gains, apply_fixed_picks, kernel_matrix, kernel_rows
from wtl_core.selection.graph import graph_gains, pick_on_graph
from wtl_core.selection.greedy import NO_TAIL, State, Tail, copy_state, counted, new_heaps, new_state, pick_dense
from wtl_core.selection.identity import Purpose, shuffled
from wtl_core.selection.problem import Neighbours, Problem, free_limits
from wtl_core.selection.quotas import Limits, no_limits

NOMINEES = 4096
"""Candidates, twice as many as a head has picks: their kernel columns for `REFERENCES` rows take 1 GB."""
REFERENCES = 131_072
"""Rows that gains are summed over; in a larger pool a part that is drawn by content."""
_PART = 8192  # rows of the part that is picked from with every pair, for candidates that the graph would miss
FROM_PART = 1024  # candidates from there
STEP = 100  # picks between two comparisons with what the graph would pick


def pick_head(
    problem: Problem,
    neighbours: Neighbours,
    weights: np.ndarray,
    state: State,
    limits: Limits,
    tail: Tail,
    until: int,
) -> None:
    """Pick until there are `until` picks, or until a row that is no candidate may gain more than the candidates.

    Cost: 2 (NOMINEES + picks) R (D + 6) FLOP and 2 NOMINEES R bytes for R = min(N, REFERENCES) references.
    """
    if until <= state.picked:
        return
    nominees = nominate(problem, neighbours, weights, state)
    references = np.sort(shuffled(problem.keys, 0, Purpose.HEAD)[:REFERENCES])
    points = problem.points if len(references) == problem.points.count else problem.points.subset(references)
    columns = np.empty((len(nominees), len(references)), np.int16)
    kernel_rows(points, problem.points.left_of(nominees), problem.table, columns)
    # Rows are references here and candidates there, and ranks go on from the frozen ones: room for all of these.
    inner = new_state(max(len(nominees) + state.picked, len(references)))._replace(best=state.best[references])
    inner.cursor[:] = [state.picked, state.cursor[1]]
    shares = weights[references]
    own = np.searchsorted(references, nominees)
    own[references[np.minimum(own, len(references) - 1)] != nominees] = -1
    keys = counted(tail, inner, shares, own, all_gains(columns, inner.best, shares))
    heaps = new_heaps(keys, problem.groups[nominees], len(problem.group_names), np.zeros(len(nominees), np.bool_))
    is_whole = len(references) == problem.points.count
    accepted = state.picked
    for stop in range(state.picked + STEP, until + STEP, STEP):
        pick_dense(inner, heaps, limits, shares, columns, own, tail, min(stop, until))
        # Quotas given up among nominees may well hold among all samples, which the graph offers.
        is_stuck = inner.picked == accepted or inner.cursor[1] != state.cursor[1]
        if is_stuck or (is_whole and _is_outbid(neighbours, weights, inner, limits, tail)):
            break
        accepted = inner.picked
    picked = inner.order[state.picked : inner.picked]
    for row in picked[accepted - state.picked :]:
        limits.counts[problem.groups[nominees[row]]] -= 1
    limits.clock[0] = 0
    given = nominees[picked[: accepted - state.picked]]
    apply_fixed_picks(problem, weights, state, free_limits(problem), given, tail)


def _is_outbid(neighbours: Neighbours, weights: np.ndarray, inner: State, limits: Limits, tail: Tail) -> bool:
    """Whether a row that is no candidate is known to gain more than the last pick did; the head ends before that."""
    if limits.is_limited:
        return False
    gains = graph_gains(neighbours.rows, neighbours.values, inner.best, weights)
    keys = counted(tail, inner, weights, np.arange(len(gains)), gains)
    return bool(keys.max() > inner.keys[inner.picked - 1])


def nominate(problem: Problem, neighbours: Neighbours, weights: np.ndarray, state: State) -> np.ndarray:
    """Candidates for the first picks, ascending rows, at most NOMINEES."""
    from_part = _nominate_from_part(problem, weights, state)
    trial = copy_state(state)
    gains = graph_gains(neighbours.rows, neighbours.values, trial.best, weights)
    heaps = new_heaps(gains, np.zeros_like(problem.groups), 1, trial.is_taken)
    free = no_limits(problem.points.count)
    until = min(problem.points.count, trial.picked + NOMINEES - len(from_part))
    pick_on_graph(
        trial, heaps, free, weights, gains, neighbours.rows, neighbours.values, *neighbours.listers, NO_TAIL, until
    )
    return np.unique(np.concatenate([trial.order[state.picked : trial.picked].astype(np.int64), from_part]))


def _nominate_from_part(problem: Problem, weights: np.ndarray, state: State) -> np.ndarray:
    """The first picks of exact greedy among a part of the pool that is drawn by content."""
    rows = np.sort(shuffled(problem.keys, 0, Purpose.HEAD)[:_PART])
    matrix = kernel_matrix(problem.points.subset(rows), problem.table)
    inner = new_state(len(rows))
    inner.best[:] = state.best[rows]
    inner.is_taken[:] = state.is_taken[rows]
    gains = all_gains(matrix, inner.best, weights[rows])
    heaps = new_heaps(gains, np.zeros(len(rows), np.int32), 1, inner.is_taken)
    own, until = np.full(len(rows), -1), min(FROM_PART, len(rows))
    pick_dense(inner, heaps, no_limits(len(rows)), weights[rows], matrix, own, NO_TAIL, until)
    return np.asarray(rows[inner.order[: inner.picked]])
