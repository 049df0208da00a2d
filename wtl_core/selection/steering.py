"""One weight per sample from columns, similarity, balance and near-duplicates, which are multiplied in this order.

A weight says how much it matters that a sample is covered; samples of weight 0 are not picked and come last. So the
objective stays submodular and the greedy bound holds, whatever the weights.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.selection import Balance, WeightBy
from wtl_core.selection.kernels import WEIGHT_ONE

_LEAST = 1e-3  # similarity below which samples all count as equally unlike, so that no weight is 0


def column_weights(weights: Sequence[WeightBy], columns: Mapping[str, np.ndarray], samples: int) -> np.ndarray:
    """The product of (value / largest)^strength over the columns, (N,) float64.

    Raises:
        InputError: a column is missing, not finite, negative, or zero under a negative strength.
    """
    product = np.ones(samples)
    for entry in weights:
        if entry.column not in columns:
            raise InputError(f"weights: expected a column {entry.column}, found {', '.join(columns) or 'none'}")
        values = check_weights(np.asarray(columns[entry.column], np.float64), samples, what=f"column {entry.column}")
        if entry.strength < 0 and (values == 0).any():
            raise InputError(f"column {entry.column}: expected values above 0 under a negative strength, found 0")
        product *= (values / max(values.max(), np.finfo(float).tiny)) ** entry.strength
    return product


def check_weights(weights: np.ndarray, samples: int, *, what: str = "weights") -> np.ndarray:
    """The weights, checked.

    Raises:
        InputError: not one per sample, not finite, negative, or all zero.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != (samples,):
        raise InputError(f"{what}: expected one value per sample ({samples}), found shape {weights.shape}")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError(f"{what}: expected finite values of at least 0, found others; fill or filter those samples")
    if not (weights > 0).any():
        raise InputError(f"{what}: expected some value above 0, found none; all samples would be left out")
    return weights


def similarity_weights(similarities: np.ndarray, strength: float) -> np.ndarray:
    """k^strength for exp(-d / s) to the nearest given image, (1 - k)^-strength below zero; k at least 0.001."""
    closeness = similarities if strength >= 0 else 1.0 - similarities
    return np.asarray(np.maximum(closeness, _LEAST) ** abs(strength))


def balance_weights(balance: Balance, groups: np.ndarray, names: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """A factor per sample that brings the groups' total weights to the target, (N,) float64.

    Raises:
        InputError: no ratio is above 0, or one is below.
        ConfigError: the target names a group that does not exist, or no sample of its groups has a weight above 0.
    """
    totals = np.bincount(groups, weights=weights, minlength=len(names))
    sizes = np.bincount(groups, minlength=len(names))
    return np.asarray(balance_factors(balance, names, totals, sizes)[groups])


def balance_factors(balance: Balance, names: Sequence[str], totals: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """`balance_weights` by group, (G,) float64, from the groups' total weights and numbers of samples."""
    if balance.target == "uniform":
        target = np.where(totals > 0, 1.0, 0.0)
    elif balance.target == "input":
        target = sizes.astype(np.float64)
    else:
        if unknown := sorted(set(balance.target).difference(names)):
            groups_there = ", ".join(names[:20])
            raise ConfigError(f"balance: expected targets for the pool's groups, {groups_there}; found {unknown[0]!r}")
        target = np.array([float(balance.target.get(name, 0.0)) for name in names])
        if not (target > 0).any() or (target < 0).any():
            raise InputError(f"balance: expected ratios above 0 for some of the groups {', '.join(names[:20])}")
    factor = np.zeros(len(names))
    is_held = totals > 0
    factor[is_held] = (target[is_held] / totals[is_held]) ** balance.strength
    if not factor.any():
        wanted = ", ".join(name for name, share in zip(names, target, strict=True) if share > 0)
        raise ConfigError(
            f"balance: expected samples of a weight above 0 in a target group, found none in {wanted}; name another "
            "group, or correct the weights"
        )
    return factor


def whole_weights(weights: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Weights of at most 1 in whole units of 1/65536, shared among `near` near-duplicates, (N,) int32.

    Whatever is above 0 stays at least one unit.
    """
    return np.where(weights > 0, np.maximum(np.floor(weights / near * WEIGHT_ONE + 0.5), 1), 0).astype(np.int32)


def numbered(groups: Iterable[object]) -> tuple[list[str], np.ndarray]:
    """The distinct names, sorted; and the place of each group's name among them, (N,) int32."""
    texts = [str(group) for group in groups]
    names = sorted(set(texts))  # an array of texts would take four bytes for each character of the longest, N times
    place = {name: number for number, name in enumerate(names)}
    return names, np.fromiter((place[text] for text in texts), np.int32, len(texts))
