"""From an objective's name to an order. The rivals of coverage are here for comparison and for those who want them."""

import logging

import numpy as np

from wtl_core.machine import Progress
from wtl_core.selection.certificate import Certificate
from wtl_core.selection.coverage import look_around, pick_all, shared_weights, start_state, survey_pool
from wtl_core.selection.dense import force
from wtl_core.selection.farthest import FAR, farthest_first, nearest_outside
from wtl_core.selection.identity import Purpose, shuffled
from wtl_core.selection.kernels import ONE
from wtl_core.selection.neighbours import prepare
from wtl_core.selection.problem import Cover, Problem, free_limits
from wtl_core.selection.quotas import Kept, check_kept, limits_of
from wtl_core.selection.rivals import TYPICAL_OF, stratified_random, typical_first

TRACED_PAIRS = 10**10
_log = logging.getLogger(__name__)


def order_pool(problem: Problem, samples: int, *, on_progress: Progress | None = None) -> tuple[Cover, Kept]:
    """The order by the objective, and how far it keeps the quotas; budgets are counted in a pool of so many samples.

    Where there are quotas, twins and samples of no weight are not picked: nothing is known of their groups here.
    """
    params, count = problem.params, problem.points.count
    if params.objective not in ("coverage", "probability-coverage"):
        return _trace(problem, _rival(problem)), Kept()
    sizes = np.bincount(problem.groups, minlength=len(problem.group_names))
    labelled = problem.labelled_by_group
    budget = params.budget_of(samples)
    wanted = count if budget is None else budget
    whole = int(labelled.sum())
    budget = params.budget_of(samples + whole)
    before = count + whole if budget is None else budget
    limits = limits_of(
        params.quotas, problem.group_names, sizes, min(wanted, count), labelled, min(before, count + whole)
    )
    last = limits.budget
    survey = survey_pool(problem, on_progress=on_progress)
    cover = pick_all(problem, survey, limits)
    if not params.quotas:
        return cover, Kept()
    free = pick_all(problem, survey, limits_of((), problem.group_names, sizes, last), until=last)
    whole = ONE * int(survey.weights.sum(dtype=np.int64))
    cost = (int(free.state.gains[:last].sum()) - int(cover.state.gains[:last].sum())) / whole
    picked = problem.groups[cover.state.order[:last]]
    kept, due, broken = check_kept(params.quotas, problem.group_names, limits, picked, labelled)
    kept = min(kept, int(cover.state.cursor[1]))
    room = last if last < wanted else None
    return cover, Kept(kept, due, room, cost, _advise(kept, last, broken, frozen=len(problem.frozen)))


def _advise(until: int, last: int, broken: str, *, frozen: int) -> str:
    """A sentence for a person where quotas do not hold: no error, since a refresh on a timetable must go on."""
    if until >= last:
        return ""
    stay = f" {frozen} earlier picks come first and stay: change" if frozen else " Change"
    broken = broken or "then no allowed group had a sample left."
    advice = f"Quotas hold for {until} of {last} picks: {broken}{stay} the quota or raise the budget."
    _log.warning(advice)
    return advice


def _rival(problem: Problem) -> np.ndarray:
    """All rows in a rival objective's order."""
    objective = problem.params.objective
    if objective == "k-center":
        return _farthest(problem)
    if objective == "typicality":
        graph = look_around(problem, 1 + TYPICAL_OF)
        return typical_first(problem, graph.levels)
    if objective == "stratified-random":
        return stratified_random(problem)
    return shuffled(problem.keys, problem.params.seed, Purpose.RANDOM)


def _farthest(problem: Problem) -> np.ndarray:
    """Farthest-first from frozen and labelled images, or from the row nearest to the pool's mean.

    Past some 10^10 pairs the rows that are left follow in the order of their keys.
    """
    points, count = problem.points, problem.points.count
    # From vectors and not from kernel values, which are zero for all that a narrow kernel does not reach.
    nearest = np.full(count, FAR) if problem.labelled is None else nearest_outside(points, problem.labelled)
    mean = np.zeros((1, points.dimensions))
    for start in range(0, count, 65_536):  # by numpy, whose sums do not depend on threads
        part = points.right[start : min(start + 65_536, count), : points.dimensions].float().cpu().numpy()
        mean += part.sum(0, dtype=np.float64) / count
    to_mean = points.product_with(
        prepare(mean.astype(np.float32), str(points.right.device), whole=64).left_slice(0, 64), points.right
    )
    first = int(to_mean[0, :count].argmin())
    wanted = min(count, max(1, TRACED_PAIRS // count))
    order, _ = farthest_first(points, wanted, given=problem.frozen, nearest=nearest, first=first)
    rest = shuffled(problem.keys, problem.params.seed, Purpose.RANDOM)
    is_left = np.ones(count, bool)
    is_left[order] = False
    return np.concatenate([order, rest[is_left[rest]]])


def _trace(problem: Problem, order: np.ndarray) -> Cover:
    """What a given order covers as it goes; beyond some 10^10 pairs its end is left untraced."""
    count = problem.points.count
    order = np.concatenate([problem.frozen, order[~np.isin(order, problem.frozen)]])
    near = look_around(problem, 1).near
    weights = shared_weights(problem, near)
    state = start_state(problem)
    traced = min(count, max(1, TRACED_PAIRS // count))
    force(
        problem.points,
        problem.table,
        weights,
        state,
        free_limits(problem),
        order[:traced],
        problem.groups,
    )
    state.order[traced:] = order[traced:]
    bounds = Certificate.start(problem.counts, int(ONE * weights.sum(dtype=np.int64)))
    exact = traced if problem.params.objective == "k-center" else count  # behind it farthest-first ends in a shuffle
    return Cover(state, weights, bounds.bounds, exact_until=exact, tail_from=count, traced_until=traced)
