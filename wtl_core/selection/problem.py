"""The records that all objectives share: rows to order, the neighbour graph, a finished order. No work here."""

from dataclasses import dataclass

import numpy as np

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.greedy import State
from wtl_core.selection.neighbours import Points
from wtl_core.selection.quotas import Limits, limits_of


@dataclass(frozen=True)
class Problem:
    """N rows to order, sorted by `sample_id`; pixel-identical copies and rows of weight 0 are not among them.

    Attributes:
        points: The rows' vectors, ready for products.
        keys: (N,) uint64 keys by content, which draws depend on.
        table: Kernel values by distance level.
        weights: (N,) float64 of at most 1, before near-duplicates share theirs.
        near_level: The last distance level at which two rows are near-duplicates.
        scale: The kernel's scale, before `scale_factor`.
        typical: A typical neighbour's kernel value, which the tail takes a pick's to itself down to; ONE for no tail.
        best: (N,) int16, the kernel value of the labelled image nearest to each row, as in `State`.
        nearest: (N,) int32, which labelled image that is: -2 - l for image l, -1 for none.
        labelled: The labelled images, None if there are none.
        frozen: Rows that come first, in this order and whatever they gain: picks that were exported.
        groups: (N,) int32, the place of each row's group in `group_names`.
        group_names: G names, sorted.
        labelled_by_group: (G,) labelled images of each group.
        counts: (100,) operating points that the optimum is bounded for.
        params: What the order should be best at.
    """

    points: Points
    keys: np.ndarray
    table: np.ndarray
    weights: np.ndarray
    near_level: int
    scale: float
    typical: int
    best: np.ndarray
    nearest: np.ndarray
    labelled: Points | None
    frozen: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    labelled_by_group: np.ndarray
    counts: np.ndarray
    params: SelectionParams

    @property
    def group_sizes(self) -> np.ndarray:
        """(G,) rows of each group."""
        return np.bincount(self.groups, minlength=len(self.group_names))


@dataclass(frozen=True)
class Neighbours:
    """The neighbour graph as greedy picking uses it, K neighbours a row.

    Attributes:
        rows: (N, K) int32, each row's nearest rows, itself first; -1 where there are fewer.
        values: (N, K) int16, their kernel values, falling.
        listers: The rows that list each row, as `graph.transpose` gives them.
        is_exact: Whether no nearer row was missed.
    """

    rows: np.ndarray
    values: np.ndarray
    listers: tuple[np.ndarray, np.ndarray, np.ndarray]
    is_exact: bool


@dataclass(frozen=True)
class PickOrder:
    """A finished order of a problem's rows.

    Attributes:
        state: Rows and gains in the order of picking.
        weights: (N,) int32 in units of 1/65536, after near-duplicates share theirs.
        bounds: (100,) int64, the most that any choice of `Problem.counts` rows could cover.
        exact_until: The rank after which a cheaper way of ordering is used.
        traced_until: The rank after which gains and neighbours are unknown.
    """

    state: State
    weights: np.ndarray
    bounds: np.ndarray
    exact_until: int
    traced_until: int


def free_limits(problem: Problem) -> Limits:
    """Limits that count the problem's groups and restrict nothing."""
    return limits_of((), problem.group_names, problem.group_sizes, 0)
