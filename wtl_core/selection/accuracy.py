"""What labels teach: the accuracy of a linear probe on images drawn at random, and what more labels would bring.

Accuracy is that of a linear probe on the encoder's vectors, so it says how much the labels teach, not how good a model
of one's own will be. It is judged on labelled images that are a uniform random draw of the pool (see `control_draw`),
so it is unbiased, and they teach nothing then. Reads nothing; works on arrays.

The forecast is an empirical law: a doubling of L labels takes 0.055 x sqrt(1000 / L) of the error away. It was fitted
to labels of CIFAR-10, digits and photographs of clothes, and was typically wrong by 0.5 to 1 points in 304 replays on
the first two, in one pass and steered by labels, and by 0.6 to 1.5 points in 396 on other features and on sets that had
no part in it (`tests/bench/reports/labels.md`). Curves through the labels at hand would not do: their noise is as large
as what they are to show.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from wtl_core.machine import one_thread
from wtl_core.recipe.selection import EMPTY
from wtl_core.selection.class_sets import ClassSets
from wtl_core.selection.linear_probe import fit_probe

LEAST = 40
"""Labelled images of known classes from which accuracy is told, drawn at random, and as many others: by 40 a share of
0.8 is known to 12 points."""
_LAW, _AT = 0.055, 1000.0
_WRONG_BY, _LEAST_WRONG = 0.85, 0.01
"""Half of the interval: that share of the forecast, and a point. Sets differ: some are at their end, others are not."""
_ROUNDING = 1e-9
"""By which sums of shares may fall short of a goal that they reach."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it in 95 % of cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Accuracy:
    """What the labels teach.

    Attributes:
        share: Of the images drawn at random that a probe names right; None with fewer than `LEAST` of either kind.
        drawn: Labelled images of known classes that are drawn at random.
        taught: The others, which teach the probe.
    """

    share: Estimate | None
    drawn: int
    taught: int


@dataclass(frozen=True)
class Forecast:
    """What more labels bring: `gain` in accuracy by `more` labels, with its interval."""

    more: int
    gain: Estimate


@dataclass(frozen=True)
class Goal:
    """How many more labels reach an accuracy, by what it is now and by `forecast`.

    Attributes:
        goal: The accuracy, above 0 and at most 1.
        now: The accuracy that the labels reach.
        left: Images that can still be labelled.
        more: The least number of labels with which the goal is reached (see `expected`); None where accuracy is not
            known, or all that are left do not reach it.
        low: The same by the upper end of that interval.
        high: The same by the lower end.
    """

    goal: float
    now: Accuracy
    left: int
    more: int | None
    low: int | None
    high: int | None

    def to_json(self) -> dict[str, Any]:
        """For a receipt and `wtl progress --json`."""
        return asdict(self)

    def sentence(self) -> str:
        """All of it for a person."""
        goal = f"The accuracy goal of {_percent(self.goal)}"
        share = self.now.share
        if share is None:
            missing = lacking(self.now.drawn, self.now.taught)
            return f"{goal} ends no picks yet, since accuracy is not known: {missing}."
        now = _with_interval(share)
        if self.more == 0:
            return f"{goal} is reached: accuracy is {now}."
        left = f"{self.left:,} images that are left"
        if self.more is None:
            most = _with_interval(expected(share, self.now.taught, self.left))
            probably = "" if self.low is None else "probably "
            return (
                f"{goal} is {probably}not within reach, judging by other data: accuracy is {now}, and labels of all "
                f"{left} would bring it to about {most}."
            )
        high = f"more than the {left}" if self.high is None else f"{self.high:,}"
        far = "; forecasts this far ahead were not checked" if self.more > self.now.taught else ""
        return (
            f"{goal} takes about {self.more:,} more labels ({self.low:,} to {high}), judging by other data{far}; "
            f"accuracy is {now}."
        )


def lacking(drawn: int, taught: int) -> str:
    """What is missing where accuracy is not known, in words; the figures are those of `Accuracy`."""
    return (
        f"it takes {LEAST} labelled images that were drawn at random, and as many others, of known classes; found "
        f"{drawn:,} and {taught:,}"
    )


def measure(vectors: np.ndarray, classes: Sequence[Sequence[str] | None], is_drawn: np.ndarray) -> Accuracy:
    """The accuracy of a probe on the images drawn at random, taught by all others; the same on any number of threads.

    An image of several classes is named right if all of them are named and no other (see `class_sets`).

    Args:
        vectors: (K, D) of labelled images, of unit length.
        classes: Of each: none for one that holds nothing of interest, None where not known; the latter are left out.
        is_drawn: (K,) bool, whether the image is of the random draw.
    """
    known = np.array([names is not None for names in classes], bool)
    drawn, taught = np.flatnonzero(known & is_drawn), np.flatnonzero(known & ~is_drawn)
    if min(len(drawn), len(taught)) < LEAST:
        return Accuracy(None, len(drawn), len(taught))
    return Accuracy(share_of(judging(vectors, classes)(taught, drawn)), len(drawn), len(taught))


def judging(
    vectors: np.ndarray, classes: Sequence[Sequence[str] | None]
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of the rows that teach a probe and of those that it is judged on: which of these it names right.

    Arguments are as for `measure`; no row may be given whose classes are not known.
    """
    given_names = [() if found is None else tuple(dict.fromkeys(found)) or (EMPTY,) for found in classes]
    names = sorted({name for found in given_names for name in found})
    place = {name: number for number, name in enumerate(names)}
    codes = [[place[name] for name in found] for found in given_names]
    target = np.zeros((len(codes), len(names)), np.float32)
    for row, found in enumerate(codes):
        target[row, found] = 1.0 / max(1, len(found))

    def hits(taught: np.ndarray, judged: np.ndarray) -> np.ndarray:
        given, asked = (torch.from_numpy(vectors[rows].astype(np.float32)) for rows in (taught, judged))
        with one_thread():
            probe = fit_probe(given, torch.from_numpy(target[taught]), classes=len(names))
            shares = probe.logits(asked).softmax(1).numpy()
        sets = ClassSets.of([codes[row] for row in taught], len(names))  # those of the judged would be their answers
        return np.asarray((sets.named(shares) == (target[judged] > 0)).all(1))

    return hits


def forecast(now: Estimate, labels: int, more: int) -> Forecast:
    """What `more` labels add to the accuracy `now` that so many reach, by the law above.

    Its upper end leaves room for an accuracy below the estimate: 60 of 60 controls named right may be 94 %.
    """
    error = 1.0 - now.value
    gain = min(error, _LAW * error * (_AT / labels) ** 0.5 * float(np.log2(1.0 + more / labels)))
    half = _WRONG_BY * gain + _LEAST_WRONG
    return Forecast(more, Estimate(gain, gain - half, min(gain + half, 1.0 - now.low)))


def expected(now: Estimate, labels: int, more: int) -> Estimate:
    """The accuracy with `more` labels, where so many reach `now`: both errors, of `now` and of the forecast, count."""
    gain = forecast(now, labels, more).gain
    value, wrong_by = now.value + gain.value, gain.value - gain.low
    below, above = (math.hypot(end, wrong_by) for end in (now.value - now.low, now.high - now.value))
    return Estimate(value, max(0.0, value - below), min(1.0, value + above))


def labels_for(goal: float, now: Accuracy, *, left: int) -> Goal:
    """How many more labels reach the goal, out of the images that are left. Cost: some 60 forecasts."""
    share, taught = now.share, now.taught
    if share is None:
        return Goal(goal, now, left, None, None, None)

    def least(end: Callable[[Estimate], float]) -> int | None:
        more = bisect_left(range(left + 1), goal - _ROUNDING, key=lambda more: end(expected(share, taught, more)))
        return more if more <= left else None

    return Goal(
        goal,
        now,
        left,
        more=least(lambda then: then.value),
        low=least(lambda then: then.high),
        high=least(lambda then: then.low),
    )


def share_of(hits: np.ndarray) -> Estimate:
    """The share of hits, (K,) bool, with Wilson's interval."""
    count, value, z = len(hits), float(hits.mean()), 1.96
    middle = (value + z * z / 2 / count) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (value * (1 - value) / count + z * z / 4 / count**2) ** 0.5
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


def _with_interval(share: Estimate) -> str:
    return f"{_percent(share.value)} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %".replace(".0 %", " %")
