"""What an order is made for, and what it is when made: the records that the objectives share. No work here."""

from dataclasses import dataclass

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.greedy import State
from wtl_core.selection.neighbours import Points
from wtl_core.selection.quotas import Limits, limits_of


@dataclass(frozen=True)
class Problem:
    """Rows that are to be ordered, sorted by `sample_id`; twins and rows of no weight are not among them.

    `keys` (N,) uint64: content keys. `weights` (N,) float64 of at most 1, before near-duplicates share. `best` (N,)
    int16 and `nearest` (N,) int32: how the `labelled` images cover the rows, as in `State`. `frozen`: rows that come
    first, whatever they gain. `groups` (N,) int32 codes into the (G,) `group_names`; `labelled_by_group` (G,) counts.
    `counts` (100,): operating points to certify.
    """

    points: Points
    keys: np.ndarray
    table: np.ndarray
    weights: np.ndarray
    near_level: int
    scale: float
    best: np.ndarray
    nearest: np.ndarray
    labelled: Points | None
    frozen: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    labelled_by_group: np.ndarray
    counts: np.ndarray
    params: SelectionParams


@dataclass(frozen=True)
class Neighbours:
    """The neighbour graph as greedy picking uses it.

    `rows` (N, K) int32 and their kernel `values` (N, K) int16, falling, itself first, -1 where there are fewer;
    `listers`: who lists each row, as `graph.transpose` gives it. `is_exact`: no nearer row was missed.
    """

    rows: np.ndarray
    values: np.ndarray
    listers: tuple[np.ndarray, np.ndarray, np.ndarray]
    is_exact: bool


def free_limits(problem: Problem) -> Limits:
    """Limits that count the problem's groups and hold nothing back."""
    sizes = np.bincount(problem.groups, minlength=len(problem.group_names))
    return limits_of((), problem.group_names, sizes, 0)


@dataclass(frozen=True)
class Cover:
    """A finished order of a problem's rows.

    `weights` (N,) int32: whole units after sharing. `bounds` (100,) int64: the certificate at `counts`.
    `exact_until`: the rank past which a cheaper order holds; `tail_from`: the rank from which on less counts of what
    picks cover of themselves; `traced_until`: past it gains and neighbours are unknown.
    """

    state: State
    weights: np.ndarray
    bounds: np.ndarray
    exact_until: int
    tail_from: int
    traced_until: int
