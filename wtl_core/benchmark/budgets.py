"""Operating points of a benchmark as counts of a pool's images: for all strategies, and up to where loops stop."""

import logging

from wtl_core.benchmark.params import BenchmarkParams
from wtl_core.errors import ConfigError
from wtl_core.recipe.operating_point import OperatingPoint

_log = logging.getLogger(__name__)


def share_count(size: int, share: float) -> int:
    """Images in a seed's pool out of `size`: two at least, where there are two."""
    return min(size, max(2, round(share * size)))


def budgets_of(params: BenchmarkParams, size: int) -> list[int]:
    """The budgets as counts, rising, none beyond a seed's share of the pool."""
    held = share_count(size, params.pool_share)
    return sorted({OperatingPoint.parse(budget).of(held) for budget in params.budgets})


def loop_budgets(params: BenchmarkParams, size: int) -> list[int]:
    """Those up to where loops stop."""
    last = OperatingPoint.parse(params.loop_budget).of(share_count(size, params.pool_share))
    return [count for count in budgets_of(params, size) if count <= last]


def check(params: BenchmarkParams, kind: str, size: int) -> None:
    """Refuse what no loop can report, and say which budgets the pool is too small for.

    Raises:
        ConfigError: loops are asked for that stop before the smallest budget.
    """
    held = share_count(size, params.pool_share)
    if cut := [budget for budget in params.budgets if isinstance(budget, int) and budget > held]:
        asked = ", ".join(f"{budget:,}" for budget in cut)
        _log.warning("pool %s: %d images, so the larger budgets %s mean all of them", kind, held, asked)
    if params.loops and not loop_budgets(params, size):
        raise ConfigError(
            f"loop_budget: expected {budgets_of(params, size)[0]:,} labels or more, the smallest of budgets, found "
            f"{params.loop_budget} in pool {kind} of {size:,}; raise loop_budget in the file of parameters, or take "
            f"{', '.join(params.loops)} out of strategies"
        )
