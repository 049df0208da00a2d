"""Runs the ranking method that the recipe names. All objectives but coverage are there to be compared with."""

import logging
from dataclasses import replace

import numpy as np

from wtl_core.machine import Progress
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.certificate import Certificate
from wtl_core.selection.coverage import measure_affinity, neighbour_graph, pick_all, shared_weights, start_state
from wtl_core.selection.dense import apply_fixed_picks
from wtl_core.selection.farthest import FAR, farthest_first, nearest_outside
from wtl_core.selection.identity import Purpose, shuffled
from wtl_core.selection.kernels import ONE
from wtl_core.selection.neighbours import prepare
from wtl_core.selection.problem import PickOrder, Problem, free_limits
from wtl_core.selection.quotas import Limits, QuotaOutcome, check_quotas, limits_of
from wtl_core.selection.rivals import TYPICAL_OF, stratified_random, typical_first

TRACED_PAIRS = 10**10
"""Pairs that an order other than coverage may compare; in a pool of a million that is 10,000 picks."""
_log = logging.getLogger(__name__)


def order_rows(
    problem: Problem, samples: int, *, on_progress: Progress | None = None
) -> tuple[PickOrder, QuotaOutcome]:
    """The order by the params' objective, and how far it keeps the quotas.

    Budgets are counted in a pool of `samples`. Where there are quotas, copies and samples of weight 0 are not picked,
    since their groups are not known here.
    """
    params = problem.params
    if params.objective not in ("coverage", "probability-coverage"):
        return _trace(problem, _rival(problem)), QuotaOutcome()
    limits = limits_for(problem.params, problem.group_names, problem.group_sizes, problem.labelled_by_group, samples)
    last = limits.budget
    affinity = measure_affinity(problem, on_progress=on_progress)
    ordered = pick_all(problem, affinity, limits)
    if not params.quotas:
        return ordered, QuotaOutcome()
    without = limits_of((), problem.group_names, problem.group_sizes, last)
    free = pick_all(problem, affinity, without, until=last)
    whole = ONE * int(affinity.weights.sum(dtype=np.int64))
    cost = (int(free.state.gains[:last].sum()) - int(ordered.state.gains[:last].sum())) / whole
    outcome = outcome_of(
        params, problem.group_names, limits, problem.groups[ordered.state.order], problem.labelled_by_group,
        given_up=int(ordered.state.cursor[1]), samples=samples, frozen=len(problem.frozen),
    )  # fmt: skip
    return ordered, replace(outcome, cost=cost)


def limits_for(
    params: SelectionParams, names: list[str], sizes: np.ndarray, labelled: np.ndarray, samples: int
) -> Limits:
    """The limits of a pool of `samples`, of which `sizes` (G,) can be picked, beside `labelled` (G,) images."""
    count, held = int(sizes.sum()), int(labelled.sum())
    wanted, wanted_of_all = params.budget_of(samples), params.budget_of(samples + held)
    return limits_of(
        params.quotas,
        names,
        sizes,
        count if wanted is None else min(wanted, count),
        labelled,
        count + held if wanted_of_all is None else min(wanted_of_all, count + held),
    )


def outcome_of(
    params: SelectionParams,
    names: list[str],
    limits: Limits,
    codes: np.ndarray,
    labelled: np.ndarray,
    *,
    given_up: int,
    samples: int,
    frozen: int,
) -> QuotaOutcome:
    """How far an order keeps its quotas, but for their cost; `codes` are its picks' groups, by rank."""
    last, wanted = limits.budget, params.budget_of(samples)
    until, due, broken = check_quotas(params.quotas, names, limits, codes[:last], labelled)
    until = min(until, given_up)
    room = last if last < (int(limits.sizes.sum()) if wanted is None else wanted) else None
    return QuotaOutcome(until, due, room, 0.0, _advise(until, last, broken, frozen=frozen))


def _advise(until: int, last: int, broken: str, *, frozen: int) -> str:
    """A sentence for a person where quotas do not hold. Not an error, since scheduled refreshes must go on."""
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
        graph = neighbour_graph(problem, 1 + TYPICAL_OF)
        return typical_first(problem, graph.levels)
    if objective == "stratified-random":
        return stratified_random(problem)
    return shuffled(problem.keys, problem.params.seed, Purpose.RANDOM)


def _farthest(problem: Problem) -> np.ndarray:
    """Farthest-first from frozen and labelled images, or from the row nearest to the pool's mean.

    After `TRACED_PAIRS` comparisons the rows that are left follow in random order.
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


def _trace(problem: Problem, order: np.ndarray) -> PickOrder:
    """What each prefix of a given order covers; after `TRACED_PAIRS` comparisons the rest is left untraced."""
    count = problem.points.count
    order = np.concatenate([problem.frozen, order[~np.isin(order, problem.frozen)]])
    near = neighbour_graph(problem, 1).near
    weights = shared_weights(problem, near)
    state = start_state(problem)
    traced = min(count, max(1, TRACED_PAIRS // count))
    apply_fixed_picks(problem, weights, state, free_limits(problem), order[:traced])
    state.order[traced:] = order[traced:]
    bounds = Certificate.start(problem.counts, int(ONE * weights.sum(dtype=np.int64)))
    exact = traced if problem.params.objective == "k-center" else count  # then farthest-first ends in a random order
    return PickOrder(state, weights, bounds.bounds, exact_until=exact, traced_until=traced)
