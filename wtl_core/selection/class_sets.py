"""Which classes an image has, by the probabilities of classes: one, or several at once.

Legend: `N` images, `C` classes, `M` sets of classes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

_MOST = 1000
"""Sets that are told apart, the commonest ones; each costs C multiplications for an image."""


@dataclass(frozen=True)
class ClassSets:
    """The sets of classes that labelled images have.

    Attributes:
        targets: (M, C) float32, one of the k classes of a set has 1 / k; the commonest sets first.
        counts: (M,) int64, images that have each set.
        commonest: Share of the labelled images that have the first set.
    """

    targets: np.ndarray
    counts: np.ndarray
    commonest: float

    @classmethod
    def of(cls, images: Iterable[Sequence[int]], classes: int) -> "ClassSets":
        """The sets of images whose classes are given by number, below `classes`; each image has one at least."""
        counts = Counter(tuple(sorted(codes)) for codes in images)
        sets = sorted(counts, key=lambda codes: (-counts[codes], codes))[:_MOST]
        targets = np.zeros((len(sets), classes), np.float32)
        for row, codes in enumerate(sets):
            targets[row, list(codes)] = 1.0 / len(codes)
        held = np.array([counts[codes] for codes in sets], np.int64)
        return cls(targets, held, counts[sets[0]] / counts.total())

    @property
    def are_single(self) -> bool:
        """Whether every image has one class."""
        return bool((self.targets.max(1) == 1.0).all())

    def named(self, shares: np.ndarray) -> np.ndarray:
        """(N, C) bool, the classes that (N, C) probabilities name: those of the nearest set, of equals the commonest.

        Where every image has one class, that is the likeliest class, of equals the first.
        """
        if not self.are_single:
            return np.asarray(self.targets[self._nearness(shares).argmax(1)] > 0)
        found = np.zeros(shares.shape, bool)
        found[np.arange(len(shares)), shares.argmax(1)] = True
        return found

    def named_by_others(self, shares: np.ndarray, given: np.ndarray) -> np.ndarray:
        """As `named`, for the labelled images themselves, whose classes are (N, C) bool `given`.

        A set that an image alone has is none that it could be named without its own label.
        """
        if self.are_single:
            return self.named(shares)
        alone = {(self.targets[row] > 0).tobytes(): row for row in np.flatnonzero(self.counts == 1)}
        nearness = self._nearness(shares)
        for row, classes in enumerate(given):
            if (own := alone.get(classes.tobytes())) is not None:
                nearness[row, own] = -np.inf
        return np.asarray(self.targets[nearness.argmax(1)] > 0)

    def _nearness(self, shares: np.ndarray) -> np.ndarray:
        return np.asarray(shares @ self.targets.T - np.square(self.targets).sum(1) / 2.0)
