"""Student's t, for intervals and tests of a few draws. Own code, since SciPy would come in for these lines alone."""

import math

import numpy as np


def share_below(t: float, freedom: int) -> float:
    """P(T <= t) for t >= 0, by Simpson's rule on the angle, where the density is smooth and its range finite."""
    angles = np.linspace(0.0, math.atan(t / math.sqrt(freedom)), 2001)
    values = np.cos(angles) ** (freedom - 1)
    weights = np.ones(2001)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    area = float((weights * values).sum() * (angles[1] - angles[0]) / 3.0)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return 0.5 + scale * area


def quantile(share: float, freedom: int) -> float:
    """The t with P(T <= t) = share, for a share above a half, by bisection."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if share_below(middle, freedom) < share else (low, middle)
    return high


def ladder_factor(freedom: int) -> float:
    """Half of a ladder's 95 % interval in standard errors.

    Rounded to three decimals, and above nine degrees of freedom by a formula that is at most 0.8 % too small: ladders
    were always made so, and more digits would change each one that is made again.
    """
    return round(quantile(0.975, freedom), 3) if freedom <= 9 else 1.96 + 2.5 / freedom
