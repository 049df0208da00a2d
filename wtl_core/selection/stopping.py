"""Where the picks end: a budget and stop conditions mark a prefix of a ranking that is always whole. No picking."""

from dataclasses import dataclass, replace

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.accuracy import Goal
from wtl_core.selection.quotas import QuotaOutcome

NOTHING_LEFT = "nothing left to label"
"""The reason of the stop of an empty ranking."""


@dataclass(frozen=True)
class Stop:
    """`picks` rows from the first on are picked; `reason` names the condition that ended them."""

    picks: int
    reason: str


def find_stop(
    params: SelectionParams,
    *,
    kept: int,
    gain: np.ndarray,
    coverage: np.ndarray,
    radius: np.ndarray,
    frozen: int,
    quotas: QuotaOutcome,
    goal: Goal | None = None,
) -> Stop:
    """The first condition that is met; where several are met at one rank, the first in the order of the params.

    Args:
        params: The budget and the stop conditions.
        kept: Rows that are neither copies nor of weight 0; without a budget the picks end there at the latest.
        gain: (N,) in rank order, as `coverage` and `radius`.
        coverage: Of the pool by all picks up to each.
        radius: Distance to the nearest earlier pick or labelled image; NaN, unknown, counts as too small.
        frozen: First ranks that minimum distance and knee pass over, since they judge new picks.
        quotas: A condition that is met before all minima are, ends the picks where they are met.
        goal: The labels that the accuracy goal takes.
    """
    budget = params.budget_of(len(gain))
    stops = [Stop(kept, "all samples") if budget is None else Stop(budget, "budget")]
    if quotas.room is not None:
        stops.append(Stop(quotas.room, "quotas"))
    if params.coverage_goal is not None:
        before = coverage[:1] - gain[:1]  # by labelled images alone, which may be enough
        reached = np.flatnonzero(np.concatenate([before, coverage]) >= params.coverage_goal - 1e-12)
        if len(reached):
            stops.append(Stop(int(reached[0]), "coverage_goal"))
    if params.minimum_distance is not None:
        close = np.flatnonzero(~(radius[frozen:] >= params.minimum_distance))
        if len(close):
            stops.append(Stop(int(close[0]) + frozen, "minimum_distance"))
    if params.gain_knee is not None:
        stops.append(Stop(_knee(gain[frozen:kept], params.gain_knee) + frozen, "gain_knee"))
    if goal is not None and goal.more is not None:
        stops.append(Stop(goal.more, "accuracy_goal"))
    first = min(stops, key=lambda stop: stop.picks)
    return replace(first, picks=max(first.picks, quotas.due))


def _knee(gain: np.ndarray, share: float) -> int:
    """The first rank whose mean gain over one per cent of the rows is below a share of the first per cent's.

    At once where even the first per cent gains nothing, which labelled or frozen images then cover.
    """
    width = max(1, len(gain) // 100)
    if not gain[:width].any():
        return 0
    if len(gain) <= width:
        return len(gain)
    total = np.concatenate(([0.0], np.cumsum(gain)))
    means = (total[width:] - total[:-width]) / width
    low = np.flatnonzero(means < share * means[0])
    return int(low[0]) if len(low) else len(gain)
