"""An upper bound on the coverage of any choice of b samples, from the gains of the greedy run. No picking.

Coverage is submodular: after any t picks, b further samples add at most the b largest gains there. So
C(OPT_b) <= C(S_t) + the b largest gains at S_t, for every t; the smallest of these over the checkpoints holds.
"""

from dataclasses import dataclass

import numpy as np

from wtl_core.selection.kernels import ONE

CHECK_PERCENTS = (1, 2, 5, 10, 20, 35, 50, 70, 85)  # of the picks; each check costs a pass over all gains


@dataclass
class Certificate:
    """The least bound so far for each of `counts`, in the integers of the greedy run. `whole` is full coverage."""

    counts: np.ndarray
    bounds: np.ndarray

    @classmethod
    def start(cls, counts: np.ndarray, whole: int) -> "Certificate":
        """Nothing is known but that coverage ends at 1."""
        return cls(counts, np.full(len(counts), whole, np.int64))

    def add(self, best: np.ndarray, weights: np.ndarray, gains: np.ndarray, slack: int = 0) -> None:
        """Use the gains (or bounds of them) of all rows at one state; `slack` is what they may lack in sum."""
        covered = int((best.astype(np.int64) * weights).sum())
        largest = np.concatenate(([0], np.cumsum(np.sort(gains)[::-1])))
        reached = largest[np.minimum(self.counts, len(gains))]
        np.minimum(self.bounds, covered + slack + reached, out=self.bounds)

    def add_nearest(self, nearest_values: np.ndarray, weights: np.ndarray) -> None:
        """A row that is not picked itself is covered by its nearest other row at best."""
        others = nearest_values.astype(np.int64) * weights
        self_gain = np.sort(ONE * weights.astype(np.int64) - others)[::-1]
        largest = np.concatenate(([0], np.cumsum(self_gain)))
        reached = others.sum() + largest[np.minimum(self.counts, len(weights))]
        np.minimum(self.bounds, reached, out=self.bounds)


def graph_slack(values: np.ndarray, best: np.ndarray, weights: np.ndarray) -> int:
    """What rows could gain in sum from candidates that are not among their neighbours."""
    reach = np.maximum(values[:, -1].astype(np.int64) - best, 0)
    return int((reach * weights).sum())
