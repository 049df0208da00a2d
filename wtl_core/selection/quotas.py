"""Hard limits by group, applied at each greedy pick: which groups may give the next one. No gains here.

A group's minimum is a row of deadlines: floor(share * b) of its samples must be among the first b picks, and its count
by the budget. A pick is free as long as every deadline can still be met afterwards; once one is tight, only groups
that it waits for may give the next pick. So a limit costs no more coverage than it must.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numba
import numpy as np

from wtl_core.errors import ConfigError
from wtl_core.recipe.selection import Quota

_WINDOW = 4096
"""Prefixes that are searched for a tight deadline. A search is repeated after half of them at the latest, so that a
deadline farther away is seen in time."""


class Limits(NamedTuple):
    """Limits by group, arrays of (G,), which hold up to `budget` picks.

    `counts` are the picks of each group so far. `clock` is working memory: how many picks need no look at deadlines.
    """

    sizes: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    minimum_share: np.ndarray
    maximum_share: np.ndarray
    counts: np.ndarray
    blocked: np.ndarray
    clock: np.ndarray
    budget: int
    is_limited: bool


@dataclass(frozen=True)
class QuotaOutcome:
    """How far an order keeps its quotas.

    Attributes:
        until: All quotas hold up to this rank.
        due: The rank by which all minima are met, or the budget where they cannot be.
        room: How many picks maxima leave room for, if fewer than the budget.
        cost: The coverage at the budget that the quotas cost.
        advice: What does not hold and what to do about it; empty if all quotas hold.
    """

    until: int = 0
    due: int = 0
    room: int | None = None
    cost: float = 0.0
    advice: str = ""


def no_limits(samples: int) -> Limits:
    """No quotas: all samples in one group."""
    return limits_of((), [""], np.array([samples]), 0)


def limits_of(
    quotas: Sequence[Quota],
    names: Sequence[str],
    sizes: np.ndarray,
    budget: int,
    labelled: np.ndarray | None = None,
    whole_budget: int | None = None,
) -> Limits:
    """Limits from quotas, for groups in the order of `names` with `sizes` (G,) samples that can be picked.

    `labelled` (G,) images count towards minima, and a group whose images are all labelled fulfils its own. Quotas that
    were satisfiable before some images were labelled, at a budget of `whole_budget`, are not an error now: the budget
    shrinks to what the maxima allow, and minima are met as far as possible.

    Raises:
        ConfigError: a quota names no group, or the quotas could never all hold at this budget.
    """
    labelled = np.zeros(len(names), np.int64) if labelled is None else labelled
    asked = np.zeros(len(names), np.int64)
    groups = len(names)
    codes = {name: code for code, name in enumerate(names)}
    limits = Limits(
        sizes=np.asarray(sizes, np.int64),
        minimum=np.zeros(groups, np.int64),
        maximum=np.full(groups, np.iinfo(np.int64).max),
        minimum_share=np.zeros(groups),
        maximum_share=np.ones(groups),
        counts=np.zeros(groups, np.int64),
        blocked=np.zeros(groups, np.int64),
        clock=np.zeros(1, np.int64),
        budget=budget,
        is_limited=bool(quotas),
    )
    for quota in quotas:
        if quota.group not in codes:
            raise ConfigError(f"quota of {quota.group!r}: expected one of the pool's groups, {', '.join(names[:20])}")
        code = codes[quota.group]
        known = int(sizes[code] + labelled[code])
        if quota.minimum > known and (sizes[code] > 0 or labelled[code] == 0):
            raise ConfigError(
                f"quota of {quota.group!r}: expected a minimum that the group can fill, found {quota.minimum} for "
                f"{known} samples; lower it"
            )
        asked[code] = min(quota.minimum, known)
        limits.minimum[code] = min(max(0, quota.minimum - labelled[code]), sizes[code])
        limits.maximum[code] = limits.maximum[code] if quota.maximum is None else quota.maximum
        limits.minimum_share[code] = quota.minimum_share
        limits.maximum_share[code] = quota.maximum_share
    if not quotas:
        return limits
    whole = limits.sizes + labelled
    before = limits._replace(sizes=whole, minimum=asked, budget=budget if whole_budget is None else whole_budget)
    if (fault := _fault(limits, whole)) and _fault(before, whole):
        raise ConfigError(fault)
    while (room := int(_allowed(limits, limits.sizes).sum())) < limits.budget:
        limits = limits._replace(budget=room)
    return limits


def _allowed(limits: Limits, sizes: np.ndarray) -> np.ndarray:
    """The most picks that groups of these sizes may give at the budget, (G,) int64."""
    shares = np.ceil(limits.maximum_share * limits.budget - 1e-9).astype(np.int64)
    return np.asarray(np.minimum(np.minimum(limits.maximum, shares), sizes))


def _fault(limits: Limits, sizes: np.ndarray) -> str:
    """What cannot hold in groups of these sizes; empty if all can. A budget of all rows takes what maxima allow."""
    wanted = np.maximum(limits.minimum, np.floor(limits.minimum_share * limits.budget + 1e-9).astype(np.int64))
    wanted = np.minimum(wanted, limits.sizes)
    allowed = _allowed(limits, sizes)
    if wanted.sum() > limits.budget or (wanted > allowed).any():
        return f"quotas: expected minima that fit a budget of {limits.budget}, found {wanted.sum()} in all"
    is_whole = limits.budget == limits.sizes.sum() and allowed.any()
    if allowed.sum() < limits.budget and not is_whole:
        return (
            f"quotas: expected maxima that leave room for a budget of {limits.budget}, found room for {allowed.sum()}; "
            "raise a maximum or lower the budget"
        )
    return ""


def check_quotas(
    quotas: Sequence[Quota], names: Sequence[str], limits: Limits, codes: np.ndarray, labelled: np.ndarray
) -> tuple[int, int, str]:
    """The rank up to which all quotas hold, the rank by which all minima are met, and a sentence on each broken quota.

    `codes` (budget,) are the picks' groups in rank order. Quotas can be broken by frozen picks, which no later pick
    makes up for, and by a group that is too small for its share. A group with `labelled` images (G,) has to give no
    more picks than it has left.
    """
    prefix = np.arange(1, len(codes) + 1)
    until, due, broken_quotas = len(codes), 0, []
    for quota in quotas:
        code = names.index(quota.group)
        found = np.cumsum(codes == code)
        due = max(due, int((found < limits.minimum[code]).sum()) + 1 if limits.minimum[code] > 0 else 0)
        least = np.floor(limits.minimum_share[code] * prefix + 1e-9).astype(np.int64)
        least[-1:] = np.maximum(least[-1:], limits.minimum[code])
        if labelled[code] > 0:
            least = np.minimum(least, limits.sizes[code])
        most = np.minimum(limits.maximum[code], np.ceil(limits.maximum_share[code] * prefix - 1e-9).astype(np.int64))
        broken = np.flatnonzero((found < least) | (found > most))
        if len(broken):
            until, last = min(until, int(broken[0])), broken[-1]
            wanted = f"at least {least[last]}" if found[last] < least[last] else f"at most {most[last]}"
            broken_quotas.append(
                f"of the first {prefix[last]} expected {wanted} from {quota.group!r}, found {found[last]}."
            )
    return until, min(due, len(codes)), " ".join(broken_quotas)


@numba.njit(cache=True, nogil=True)
def _target(limits: Limits, group: int, prefix: int) -> int:
    """Picks that the group must have among the first `prefix` picks."""
    target = np.int64(np.floor(limits.minimum_share[group] * prefix + 1e-9))
    if prefix >= limits.budget:
        target = max(target, limits.minimum[group])
    return int(min(target, limits.sizes[group]))


@numba.njit(cache=True, nogil=True)
def _tight_prefix(limits: Limits, picked: int) -> int:
    """The first prefix whose deadlines leave no free pick, or -1; `clock` keeps how many picks need no further look."""
    if limits.clock[0] > 0:
        limits.clock[0] -= 1
        return -1
    slack = 1 << 40
    last = min(picked + _WINDOW, limits.budget)
    prefix = picked + 1
    while prefix <= limits.budget:
        waiting = 0
        for group in range(limits.sizes.shape[0]):
            waiting += max(0, _target(limits, group, prefix) - int(limits.counts[group]))
        if waiting >= prefix - picked:
            return prefix
        slack = min(slack, prefix - picked - waiting)
        prefix = limits.budget if prefix == last and last < limits.budget else prefix + 1
    limits.clock[0] = max(0, min(slack, _WINDOW // 2) - 1)
    return -1


@numba.njit(cache=True, nogil=True)
def mark_allowed(limits: Limits, picked: int, allowed: np.ndarray) -> None:
    """Mark the groups that may give pick number `picked` (from 0); after the budget all of them."""
    allowed[:] = True
    if not limits.is_limited or picked >= limits.budget:
        return
    tight = _tight_prefix(limits, picked)
    for group in range(allowed.shape[0]):
        most = min(limits.maximum[group], np.int64(np.ceil(limits.maximum_share[group] * (picked + 1) - 1e-9)))
        if limits.counts[group] + 1 > most or (tight >= 0 and _target(limits, group, tight) <= limits.counts[group]):
            allowed[group] = False


@numba.njit(cache=True, nogil=True)
def order_within(limits: Limits, codes: np.ndarray, picked: int) -> tuple[np.ndarray, int]:
    """Candidates as limits allow them after `picked` picks, each time the first that is allowed.

    `codes` (n,) are the groups of the candidates, best first. Returns their order (n,) int64, and the rank where quotas
    had to be given up, or that of the end.
    """
    groups, count = limits.sizes.shape[0], codes.shape[0]
    front, following = np.full(groups, -1), np.empty(count, np.int64)
    for place in range(count - 1, -1, -1):
        following[place] = front[codes[place]]
        front[codes[place]] = place
    order, is_taken = np.empty(count, np.int64), np.zeros(count, np.bool_)
    allowed = np.ones(groups, np.bool_)
    given_up = picked + count
    done = 0
    while done < count and picked + done < min(limits.budget, given_up):
        mark_allowed(limits, picked + done, allowed)
        best = -1
        for group in range(groups):
            if allowed[group] and front[group] >= 0 and (best < 0 or front[group] < front[best]):
                best = group
        if best < 0:
            given_up = picked + done
            break
        order[done] = front[best]
        is_taken[front[best]] = True
        front[best] = following[front[best]]
        limits.counts[best] += 1
        done += 1
    for place in range(count):
        if not is_taken[place]:
            order[done] = place
            done += 1
    return order, given_up
