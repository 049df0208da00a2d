"""What a ranking and its ladder are made by: frozen models, torch-free, nested in the recipe. No maths here."""

import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

COUNT = re.compile(r"[0-9]+")
PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*%")


class _Params(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Quota(_Params):
    """How many picks one group may or must have. Counts hold at the budget, shares at every prefix up to it."""

    group: str
    """The group's value in the column that `group_by` names."""
    minimum: int = Field(0, ge=0)
    """Picks that the group has at least when the budget is reached."""
    maximum: int | None = Field(None, ge=0)
    """Picks that the group has at most within the budget."""
    minimum_share: float = Field(0.0, ge=0.0, le=1.0)
    """Of every prefix of b picks, at least floor(minimum_share b) are from the group."""
    maximum_share: float = Field(1.0, ge=0.0, le=1.0)
    """Of every prefix of b picks, at most ceil(maximum_share b) are from the group."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"quota of {self.group!r}: expected minimum <= maximum")
        if self.maximum_share < self.minimum_share:
            raise ValueError(f"quota of {self.group!r}: expected minimum_share <= maximum_share")
        return self


class Balance(_Params):
    """A soft pull of the picks towards a distribution over groups, by the groups' total weight."""

    target: Literal["uniform", "input"] | dict[str, float] = "uniform"
    """`uniform` over groups, `input` as in the pool, or a ratio by group; a group left out of the ratios gets none."""
    strength: float = Field(1.0, ge=0.0, le=1.0)
    """0 leaves the pool's distribution, 1 gives groups exactly the target's weight, between is geometric."""


class WeightBy(_Params):
    """A numeric column whose value says how much a sample matters."""

    column: str
    """A metadata or quality column of the pool; it must be finite and not negative."""
    strength: float = Field(1.0, ge=-4.0, le=4.0)
    """The exponent of the column's value over its largest; negative prefers small values, then all above 0."""


class SimilarTo(_Params):
    """Given images that samples should be like, or unlike."""

    sample_ids: tuple[str, ...] = Field(min_length=1)
    """The given images; each must have a vector in the workspace."""
    strength: float = Field(1.0, ge=-4.0, le=4.0)
    """The exponent of the kernel to the nearest given image; negative prefers samples that are unlike all of them."""


class SelectionParams(_Params):
    """From vectors to a ranking. Lightly's names are taken where they mean the same (`n_samples`, `strategies`, ...).

    Steering is applied in this order: filters, then twins last, then weights (near-duplicates, columns, similarity,
    balance; they multiply), then quotas inside the greedy step, then the stop conditions, which only mark picks.
    """

    seed: int = Field(0, ge=0)
    """Feeds every random choice of the stage."""
    objective: Literal["coverage", "k-center", "probability-coverage", "typicality", "stratified-random", "random"] = (
        "coverage"
    )
    """What each next pick is best at; all but `coverage` are there for comparison and for those who want them."""
    kernel: Literal["laplace", "gaussian", "cosine"] = "laplace"
    """How standing in falls with distance: exp(-d/s), exp(-(d/s)^2) or 1 - d^2/4. Only for `coverage`."""
    scale_factor: float = Field(1.0, ge=0.1, le=10.0)
    """The kernel's s (and the ball's radius) over the median distance to the 50th neighbour."""
    has_duplicate_weights: bool = True
    """Let near-duplicates share the weight of one image."""
    near_duplicate_distance: float = Field(0.25, ge=0.0, le=2.0)
    """Unit vectors this close are near-duplicates; never more than half the median distance to the 50th neighbour."""
    neighbours: int = Field(128, ge=8, le=1024)
    """Neighbours that a sample can be covered by, behind the head of the ranking in a large pool."""
    head: int = Field(2000, ge=0, le=4000)
    """Picks that are made among nominees with every pair of a large pool, before the neighbours take over."""
    exact_up_to: int = Field(16_000, ge=1, le=30_000)
    """A pool of at most this many samples is ranked with every pair throughout."""
    cells_from: int = Field(250_000, ge=1000)
    """From this many samples on neighbours are sought in the nearest cells, and the head is made on a part."""
    budget: int | str | None = "10%"
    """How many to pick: a count, or `p%` of the pool; None leaves it to the stop conditions."""
    coverage_goal: float | None = Field(None, gt=0.0, le=1.0)
    """Stop once the picks cover the pool this well."""
    minimum_distance: float | None = Field(None, ge=0.0, le=2.0)
    """Stop before a pick that is closer than this to an earlier pick or a labelled image."""
    gain_knee: float | None = Field(None, gt=0.0, lt=1.0)
    """Stop where the mean gain over 1 % of the pool first falls below this share of the first 1 %'s."""
    group_by: str | None = None
    """The column of the pool that quotas and balance speak of."""
    quotas: tuple[Quota, ...] = ()
    """Hard limits by group."""
    balance: Balance | None = None
    """A soft target by group."""
    weights: tuple[WeightBy, ...] = ()
    """Columns that say which samples matter."""
    similar_to: tuple[SimilarTo, ...] = ()
    """Images to be like, or unlike."""
    clusters: int = Field(500, ge=2, le=20_000)
    """Clusters of `typicality` (at most) and `stratified-random`."""

    @model_validator(mode="before")
    @classmethod
    def _accept_aliases(cls, values: Any) -> Any:
        return translate_lightly(values) if isinstance(values, dict) else values

    @field_validator("budget")
    @classmethod
    def _is_budget(cls, value: int | str | None) -> int | str | None:
        if value is None:
            return None
        text = str(value).strip()
        if COUNT.fullmatch(text) and int(text) > 0:
            return int(text)
        percent = PERCENT.fullmatch(text)
        if percent and 0.0 < float(percent[1]) <= 100.0:
            return f"{float(percent[1]):g}%"
        raise ValueError("expected a count above 0 or a percentage above 0 and up to 100, like 500 or 7.5%")

    @model_validator(mode="after")
    def _has_groups(self) -> Self:
        if (self.quotas or self.balance) and self.group_by is None:
            raise ValueError("quotas and balance need group_by, the column that they speak of")
        groups = [quota.group for quota in self.quotas]
        if len(set(groups)) < len(groups):
            raise ValueError("quotas: expected each group once")
        if sum(quota.minimum_share for quota in self.quotas) > 1.0 + 1e-9:
            raise ValueError("quotas: expected minimum shares that sum to at most 1")
        if self.quotas and self.objective not in ("coverage", "probability-coverage"):
            raise ValueError(f"quotas work with the objectives coverage and probability-coverage, not {self.objective}")
        return self


class LadderParams(_Params):
    """How a ranking is measured."""

    random_draws: int = Field(5, ge=5, le=100)
    """Random orders that the ranking is compared with."""
    references: int = Field(10_000, ge=100, le=100_000)
    """Samples, chosen by a hash of their id, that a large pool's ladder is measured on."""
    all_up_to: int = Field(20_000, ge=1, le=100_000)
    """A pool of at most this many samples is measured on all of them."""


def count_of(budget: int | str, samples: int) -> int:
    """The number of rows that an operating point names: a count (bounded by the pool), or `p%` rounded half up."""
    if isinstance(budget, int):
        return min(budget, samples)
    share = float(budget.rstrip("% "))
    return min(samples, max(1, int(share * samples / 100 + 0.5)))


def translate_lightly(values: dict[str, Any]) -> dict[str, Any]:
    """Lightly's selection config in this project's words; a name that means something else there is refused."""
    values = dict(values)
    values.update(values.pop("selection_config", {}))
    for alias in ("n_samples", "n_samples_to_select"):
        if alias in values:
            values["budget"] = values.pop(alias)
    if "proportion_samples" in values:
        values["budget"] = f"{100 * float(values.pop('proportion_samples')):g}%"
    if "stopping_condition_minimum_distance" in values:
        values["minimum_distance"] = values.pop("stopping_condition_minimum_distance")
    for entry in values.pop("strategies", ()):
        _add_strategy(values, dict(entry.get("input", {})), dict(entry.get("strategy", {})))
    return values


def _add_strategy(values: dict[str, Any], source: dict[str, Any], strategy: dict[str, Any]) -> None:
    """One entry of `strategies`: {"input": {"type": ...}, "strategy": {"type": ..., "strength": ...}}."""
    kind = str(strategy.get("type", "")).upper()
    strength = float(strategy.get("strength", 1.0))
    if "stopping_condition_minimum_distance" in strategy:
        values["minimum_distance"] = strategy["stopping_condition_minimum_distance"]
    if str(source.get("type", "")).upper() == "RANDOM":
        values["objective"] = "random"
    elif kind in ("DIVERSITY", "DIVERSIFY"):
        values["objective"] = "k-center"
    elif kind == "TYPICALITY":
        values["objective"] = "typicality" if values.get("objective") != "k-center" else "coverage"
    elif kind == "WEIGHTS" and "key" in source:
        values["weights"] = (*values.get("weights", ()), {"column": source["key"], "strength": strength})
    elif kind == "BALANCE" and "key" in source:
        target = strategy.get("target", strategy.get("distribution", "uniform"))
        values["group_by"] = source["key"]
        values["balance"] = {"target": target.lower() if isinstance(target, str) else target, "strength": strength}
    elif kind == "SIMILARITY" and "sample_ids" in source:
        similar = {"sample_ids": source["sample_ids"], "strength": strength}
        values["similar_to"] = (*values.get("similar_to", ()), similar)
    else:
        raise ValueError(
            f"strategies: expected DIVERSITY, TYPICALITY, WEIGHTS or BALANCE (input with a key), SIMILARITY (input "
            f"with sample_ids) or an input of type RANDOM, found strategy {kind or 'without a type'} on input {source}"
        )
