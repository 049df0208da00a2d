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
        commonest: Share of the labelled images that have the first set.
    """

    targets: np.ndarray
    commonest: float

    @classmethod
    def of(cls, images: Iterable[Sequence[int]], classes: int) -> "ClassSets":
        """The sets of images whose classes are given by number, below `classes`; each image has one at least."""
        counts = Counter(tuple(sorted(codes)) for codes in images)
        sets = sorted(counts, key=lambda codes: (-counts[codes], codes))[:_MOST]
        targets = np.zeros((len(sets), classes), np.float32)
        for row, codes in enumerate(sets):
            targets[row, list(codes)] = 1.0 / len(codes)
        return cls(targets, counts[sets[0]] / counts.total())

    @property
    def are_single(self) -> bool:
        """Whether every image has one class."""
        return bool((self.targets.max(1) == 1.0).all())

    def named(self, shares: np.ndarray) -> np.ndarray:
        """(N, C) bool, the classes that (N, C) probabilities name: those of the nearest set, of equals the commonest.

        Where every image has one class, that is the likeliest class, of equals the first.
        """
        if not self.are_single:
            nearest = (shares @ self.targets.T - np.square(self.targets).sum(1) / 2.0).argmax(1)
            return np.asarray(self.targets[nearest] > 0)
        found = np.zeros(shares.shape, bool)
        found[np.arange(len(shares)), shares.argmax(1)] = True
        return found
