"""Votes of labelled images on the classes of others, which fall with distance: the simple model of `label_weights`.

Legend: `N` points that are voted on, `L` labelled images, `K` of them with known classes, `C` classes.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor
from copy import copy
from functools import cached_property

import numba
import numpy as np
import torch

from wtl_core.recipe.selection import EMPTY
from wtl_core.selection.class_sets import ClassSets
from wtl_core.selection.neighbours import bits_to_level, level_distances

OTHER = "(other)"
"""The class of all but the commonest ones, where there are very many."""

_TEMPERATURE = 0.07
"""Of votes exp(-d^2 / 2 T) for a distance d, as the benchmark's nearest neighbours vote (arXiv 1805.01978). Votes as
wide as the coverage kernel see no difference between classes: by them picks were worse than those of one pass."""
_MOST_CLASSES, _MOST_BYTES = 1000, 1 << 30
"""Classes, and memory of votes (4 bytes for each class and candidate): names in free text can be as many as images."""
_PRIOR = 1e-12
"""Votes that a point has beside: what nobody within a distance of 1.9 votes on gets the shares of all labels."""


class Votes:
    """The votes of L labelled images on the classes of N points, given block by block as distances are computed.

    Sums are float32 in an order that nothing but the order of the labelled images decides. Memory: 4 N C bytes.
    """

    def __init__(self, classes: Sequence[Sequence[str] | None], points: int) -> None:
        """`classes` of each labelled image: none for one that holds nothing of interest, None where not known.

        Of very many classes the commonest ones are kept, of equals the first by name; the rest is one class, `OTHER`.
        """
        found = [() if names is None else tuple(dict.fromkeys(names)) or (EMPTY,) for names in classes]
        most = max(2, min(_MOST_CLASSES, _MOST_BYTES // (4 * max(1, points))))
        counts = Counter(name for names in found for name in names)
        if len(counts) > most:
            kept = set(sorted(counts, key=lambda name: (-counts[name], name))[: most - 1])
            found = [tuple(dict.fromkeys(name if name in kept else OTHER for name in names)) for names in found]
        self.names = sorted({name for names in found for name in names})
        code = {name: number for number, name in enumerate(self.names)}
        self.starts = np.cumsum([0, *map(len, found)])
        self.codes = np.array([code[name] for names in found for name in names], np.int64)
        self.own = np.full(len(found), -1)
        self.sums = np.zeros((len(self.names), points), np.float32)
        signed = np.arange(1 << 16, dtype=np.uint16).view(np.int16).tolist()
        levels = np.array([bits_to_level(bits) for bits in signed])
        self._table = np.exp(-(level_distances()[levels] ** 2) / 2.0 / _TEMPERATURE).astype(np.float32)

    @property
    def known(self) -> np.ndarray:
        """Labelled images whose classes are known, ascending."""
        return np.flatnonzero(np.diff(self.starts))

    @cached_property
    def target(self) -> np.ndarray:
        """(K, C) float32, the classes of each known image; one of k classes is of each to 1 / k."""
        counts = np.diff(self.starts)
        target = np.zeros((len(self.known), len(self.names)), np.float32)
        target[np.repeat(np.arange(len(self.known)), counts[self.known]), self.codes] = np.repeat(
            1.0 / counts[self.known], counts[self.known]
        )
        return target

    @cached_property
    def sets(self) -> ClassSets:
        """The sets of classes that the known images have."""
        codes = self.codes.tolist()
        bounds = itertools.pairwise(self.starts.tolist())
        return ClassSets.of((codes[start:end] for start, end in bounds if end > start), len(self.names))

    @cached_property
    def label_shares(self) -> np.ndarray:
        """(C,) float32, shares of the classes among the labels; they sum to 1."""
        return np.asarray(self.target.mean(0))

    def add(self, bits: np.ndarray, row: int, column: int, threads: Executor) -> None:
        """The votes of labelled images from `row` on, on points from `column` on, by the bits of their distances."""
        edges = np.linspace(0, bits.shape[1], torch.get_num_threads() + 1).astype(np.int64)
        jobs = [
            threads.submit(
                _add_votes, bits.view(np.uint16), self._table, self.starts[row:], self.codes,
                self.own[row:] - column, begin, end, self.sums, column,
            )
            for begin, end in itertools.pairwise(edges)
        ]  # fmt: skip
        for job in jobs:
            job.result()

    def of_others(self, points: int, own: np.ndarray) -> "Votes":
        """Votes of the same images on other points, none yet; `own` is the point that each image itself is, or -1."""
        others = copy(self)
        others.own, others.sums = own, np.zeros((len(self.names), points), np.float32)
        return others

    def shares(self, columns: np.ndarray | slice) -> np.ndarray:
        """(columns, C) float32, probabilities of the classes; those of all labels where nobody near votes."""
        votes = self.sums[:, columns].T + _PRIOR * self.label_shares
        return np.asarray(votes / votes.sum(1, keepdims=True))


@numba.njit(cache=True, nogil=True)
def _add_votes(
    bits: np.ndarray, table: np.ndarray, starts: np.ndarray, codes: np.ndarray, own: np.ndarray,
    begin: int, end: int, sums: np.ndarray, offset: int,
) -> None:  # fmt: skip
    """Add the votes of labelled images (rows of `bits`) on points `begin` to `end` (columns) to `sums` (C, points).

    Column c is point `offset` + c. `table` has the vote for all 65,536 bits of a distance.
    """
    for row in range(bits.shape[0]):
        line, parts = bits[row], starts[row + 1] - starts[row]
        for label in range(starts[row], starts[row + 1]):
            target, share = sums[codes[label], offset:], np.float32(1.0) / np.float32(parts)
            skipped = own[row] if begin <= own[row] < end else end
            for column in range(begin, skipped):
                target[column] += share * table[line[column]]
            for column in range(skipped + 1, end):
                target[column] += share * table[line[column]]
