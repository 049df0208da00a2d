"""Whether one strategy is better than another: paired differences, their intervals and tests, labels saved.

Rows are dicts as `grid_cells.gather` gives them.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wtl_core.selection import student

Rows = Sequence[dict[str, Any]]
BASELINE = "random"
_LEVEL = 0.05
_ROUNDING = 1e-6  # points: less than one image of ten million
_AVERAGED = ("classes", "usable", "selection_seconds", "train_seconds")


@dataclass(frozen=True)
class Mean:
    """Accuracy of one strategy at one budget: mean with its 95 % interval over seeds, and what it cost on average."""

    labels: int
    percent: float
    mean: float
    low: float
    high: float
    seeds: int
    classes: float
    usable: float
    rounds: int
    label_waits: int
    selection_seconds: float
    train_seconds: float


@dataclass(frozen=True)
class Comparison:
    """A strategy minus another at one budget, over pairs with the same seed, in points of accuracy.

    `p_value` is two-sided, by Student's t on the pairs; `p_adjusted` after Holm over the budgets of one curve.
    """

    labels: int
    strategy: str
    against: str
    pairs: int
    difference: float
    low: float
    high: float
    p_value: float
    p_adjusted: float

    @property
    def verdict(self) -> str:
        """Better or worse, if the 95 % interval leaves out zero and Holm's p is under 0.05; else it says so."""
        if math.isnan(self.low):
            return "a single pair" if self.pairs < 2 else "nothing varies"
        if self.low <= 0 <= self.high:
            return "no difference shown"
        direction = "better" if self.low > 0 else "worse"
        return direction if self.p_adjusted < _LEVEL else f"{direction} by the interval alone"


def curve(rows: Rows, *, pool: str, judge: str, strategy: str) -> list[Mean]:
    """A strategy's budgets, rising."""
    found = []
    for labels, group in _by_labels(rows, pool=pool, judge=judge, strategy=strategy).items():
        accuracy = 100 * np.array([row["accuracy"] for row in group])
        mean, low, high = interval(accuracy)
        means = {name: float(np.mean([row[name] for row in group])) for name in _AVERAGED}
        found.append(
            Mean(
                labels=labels,
                percent=100 * labels / group[0]["pool_size"],
                mean=mean,
                low=low,
                high=high,
                seeds=len(group),
                rounds=group[0]["rounds"],
                label_waits=group[0]["label_waits"],
                classes=means["classes"],
                usable=means["usable"],
                selection_seconds=means["selection_seconds"],
                train_seconds=means["train_seconds"],
            )
        )
    return found


def compare(rows: Rows, *, pool: str, judge: str, strategy: str, against: str = BASELINE) -> list[Comparison]:
    """Differences at every budget that both have."""
    ours = _by_labels(rows, pool=pool, judge=judge, strategy=strategy)
    theirs = _by_labels(rows, pool=pool, judge=judge, strategy=against)
    raw = []
    for labels in sorted(set(ours) & set(theirs)):
        by_seed = {row["seed"]: row["accuracy"] for row in theirs[labels]}
        pairs = [row["accuracy"] - by_seed[row["seed"]] for row in ours[labels] if row["seed"] in by_seed]
        if pairs:
            differences = 100 * np.array(pairs)
            raw.append((labels, len(pairs), *interval(differences), p_value(differences)))
    adjusted = holm([entry[-1] for entry in raw])
    return [
        Comparison(labels, strategy, against, pairs, mean, low, high, p, adjusted_p)
        for (labels, pairs, mean, low, high, p), adjusted_p in zip(raw, adjusted, strict=True)
    ]


def random_labels_needed(baseline: Sequence[Mean], accuracy: float) -> float | None:
    """Labels that the baseline needs for this accuracy, by straight lines over the logarithm of the budget.

    None beyond the baseline's largest budget, or under its smallest.
    """
    if not baseline or accuracy < baseline[0].mean or accuracy > max(point.mean for point in baseline):
        return None
    best = np.maximum.accumulate([point.mean for point in baseline])
    place = int(np.searchsorted(best, accuracy))
    if place == 0:
        return float(baseline[0].labels)
    share = (accuracy - best[place - 1]) / (best[place] - best[place - 1])
    first, last = (math.log(baseline[p].labels) for p in (place - 1, place))
    return math.exp(first + float(share) * (last - first))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t; NaN bounds of one value, and where nothing varies."""
    mean = float(np.mean(values))
    if len(values) < 2 or np.ptp(values) < _ROUNDING:
        return mean, math.nan, math.nan
    half = student.quantile(0.975, len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, mean - half, mean + half


def p_value(differences: np.ndarray) -> float:
    """Two-sided, that the mean of the pairs' differences is zero; NaN where nothing varies."""
    if len(differences) < 2 or np.ptp(differences) < _ROUNDING:
        return math.nan
    spread = float(np.std(differences, ddof=1))
    t = abs(float(np.mean(differences))) / (spread / math.sqrt(len(differences)))
    return max(0.0, 2.0 * (1.0 - student.share_below(t, len(differences) - 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for several tests; NaN stays NaN."""
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    worst = 0.0
    for rank, (p, place) in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p))
        adjusted[place] = worst
    return adjusted


def _by_labels(rows: Iterable[dict[str, Any]], **wanted: str) -> dict[int, list[dict[str, Any]]]:
    """Rows that match, by budget, rising."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if all(row[name] == value for name, value in wanted.items()):
            found.setdefault(row["labels"], []).append(row)
    return dict(sorted(found.items()))
