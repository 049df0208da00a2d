"""From an objective's name to an order. The rivals of coverage are here for comparison and for those who want them."""

import numpy as np

from wtl_core.neighbours import Progress, exact_graph
from wtl_core.selection.certificate import Certificate
from wtl_core.selection.coverage import pick_all, shared_weights, start_state, survey_pool
from wtl_core.selection.dense import force
from wtl_core.selection.identity import shuffled
from wtl_core.selection.kernels import ONE
from wtl_core.selection.problem import Cover, Problem
from wtl_core.selection.quotas import limits_of

SCALE, RANDOM, STRATA, LADDER = 1, 2, 3, 4  # purposes of draws: each its own stream
_TRACED_PAIRS = 10**10


def order_pool(
    problem: Problem, budget: int | None, *, on_progress: Progress | None = None
) -> tuple[Cover, int, float]:
    """The order by the objective, the rank up to which quotas hold, and the coverage at the budget that they cost."""
    params, count = problem.params, problem.points.count
    if params.objective not in ("coverage", "probability-coverage"):
        return _trace(problem, _rival(problem)), 0, 0.0
    sizes = np.bincount(problem.groups, minlength=len(problem.group_names))
    last = min(budget or count, count)
    limits = limits_of(params.quotas, problem.group_names, sizes, last)
    survey = survey_pool(problem, on_progress=on_progress)
    cover = pick_all(problem, survey, limits)
    if not params.quotas:
        return cover, 0, 0.0
    free = pick_all(problem, survey, limits_of((), problem.group_names, sizes, last), until=last)
    whole = ONE * int(survey.weights.sum(dtype=np.int64))
    cost = (int(free.state.gains[:last].sum()) - int(cover.state.gains[:last].sum())) / whole
    return cover, min(int(cover.state.cursor[1]), last), cost


def _rival(problem: Problem) -> np.ndarray:
    """The rows in a rival objective's order, frozen ones left where they fall."""
    return shuffled(problem.keys, problem.params.seed, RANDOM)


def _trace(problem: Problem, order: np.ndarray) -> Cover:
    """What a given order covers as it goes; beyond some 10^10 pairs its end is left untraced."""
    count = problem.points.count
    order = np.concatenate([problem.frozen, order[~np.isin(order, problem.frozen)]])
    near = exact_graph(problem.points, 1, near_level=problem.near_level).near
    weights = shared_weights(problem, near)
    state = start_state(problem)
    sizes = np.bincount(problem.groups, minlength=len(problem.group_names))
    traced = min(count, max(1, _TRACED_PAIRS // count))
    force(
        problem.points,
        problem.table,
        weights,
        state,
        limits_of((), problem.group_names, sizes, 0),
        order[:traced],
        problem.groups,
    )
    state.order[traced:] = order[traced:]
    bounds = Certificate.start(problem.counts, int(ONE * weights.sum(dtype=np.int64)))
    return Cover(state, weights, bounds.bounds, count, traced)
