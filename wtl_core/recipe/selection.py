"""What a ranking and its ladder are made by: frozen models, torch-free, nested in the recipe. No maths here."""

from decimal import Decimal
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from wtl_core.recipe.base import Params
from wtl_core.recipe.operating_point import OperatingPoint

_STOPS = ("coverage_goal", "minimum_distance", "gain_knee")
_ALIASES = {
    "budget": ("n_samples", "n_samples_to_select", "proportion_samples"),
    "minimum_distance": ("stopping_condition_minimum_distance",),
}
_OBJECTIVES = {"DIVERSITY": "k-center", "DIVERSIFY": "k-center", "TYPICALITY": "typicality", "RANDOM": "random"}
# By a strategy's type: the type of its input, and what else its input must and its strategy may name.
_LIGHTLY: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "DIVERSITY": ("EMBEDDINGS", (), ("stopping_condition_minimum_distance",)),
    "DIVERSIFY": ("EMBEDDINGS", (), ("stopping_condition_minimum_distance",)),
    "TYPICALITY": ("EMBEDDINGS", (), ()),
    "RANDOM": ("RANDOM", (), ()),
    "WEIGHTS": ("METADATA", ("key",), ("strength",)),
    "BALANCE": ("METADATA", ("key",), ("strength", "target", "distribution")),
    "SIMILARITY": ("EMBEDDINGS", ("sample_ids",), ("strength",)),
}


class Quota(Params):
    """How many picks one group may or must have. Counts hold at the budget, shares at every prefix up to it.

    Labelled images of the group count towards `minimum`, and a group that has no others is satisfied; they count
    neither against `maximum`, which speaks of picks, nor in shares. Picks that stay from earlier refreshes do count.
    """

    group: str
    """The group's value in the column that `group_by` names."""
    minimum: int = Field(0, ge=0)
    """Picks that the group has at least when the budget is reached; before that no stop condition ends them."""
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


class Balance(Params):
    """A soft pull of the picks towards a distribution over groups, by the groups' total weight."""

    target: Literal["uniform", "input"] | dict[str, float] = "uniform"
    """`uniform` over groups, `input` as in the pool, or a ratio by group; one left out need not be covered, but its
    samples may still be picked for what they cover of others."""
    strength: float = Field(1.0, ge=0.0, le=1.0)
    """0 leaves the pool's distribution, 1 gives groups exactly the target's weight, between is geometric."""


class WeightBy(Params):
    """A numeric column whose value says how much a sample matters."""

    column: str
    """A metadata or quality column of the pool; it must be finite and not negative."""
    strength: float = Field(1.0, ge=-4.0, le=4.0)
    """The exponent of the column's value over its largest; negative prefers small values, then all above 0."""


class SimilarTo(Params):
    """Given images that samples should be like, or unlike."""

    sample_ids: tuple[str, ...] = Field(min_length=1)
    """The given images; each must have a vector in the workspace."""
    strength: float = Field(1.0, ge=-4.0, le=4.0)
    """The exponent of exp(-d / s) to the nearest given image; negative prefers what is unlike all of them."""


class SelectionParams(Params):
    """From vectors to a ranking. Lightly's names are taken where they mean the same (`n_samples`, `strategies`, ...).

    Steering is applied in this order: filters, then twins last, then weights (near-duplicates, columns, similarity,
    balance; they multiply), then quotas inside the greedy step, then the stop conditions, which only mark picks. Quotas
    win: a stop condition ends the picks where all minima are met, the budget at the latest; so give one that is near.
    """

    seed: int = Field(0, ge=0)
    """Feeds the draws of `random` and `stratified-random`, and what `k-center` leaves over; all others go by ids."""
    objective: Literal["coverage", "k-center", "probability-coverage", "typicality", "stratified-random", "random"] = (
        "coverage"
    )
    """What each next pick is best at; all but `coverage` are there for comparison and for those who want them."""
    kernel: Literal["gaussian", "laplace", "cosine"] = "gaussian"
    """How standing in falls with distance: exp(-(d/s)^2), exp(-d/s) or 1 - d^2/4. Only for `coverage`."""
    scale_factor: float = Field(1.0, ge=0.1, le=10.0)
    """The kernel's s (and the ball's radius) over the median distance to the 50th neighbour."""
    has_duplicate_weights: bool = True
    """Let near-duplicates share the weight of one image."""
    near_duplicate_distance: float | None = Field(None, ge=0.0, le=2.0)
    """Unit vectors this close are near-duplicates, at most s / 2; none: as the encoder's near-copies lie, or 0.25."""
    neighbours: int = Field(128, ge=8, le=1024)
    """Neighbours that a sample can be covered by, behind the head in a large pool; 64 at most from `cells_from` on."""
    head: int = Field(2000, ge=0, le=4000)
    """Picks that are made among nominees with every pair of a large pool, before the neighbours take over."""
    tail_from: float = Field(0.25, ge=0.0, le=1.0)
    """Share of the pool, near-duplicates as one, from which on half a pick's cover of itself counts; 1: never."""
    outliers_from: float = Field(0.45, ge=0.0, le=1.0)
    """Share of the pool, behind that, from which on only what a pick covers of others counts: outliers go last."""
    exact_up_to: int = Field(16_000, ge=1, le=30_000)
    """A pool of at most this many samples is ranked with every pair throughout."""
    cells_from: int = Field(250_000, ge=1000)
    """From this many samples on neighbours are sought in the nearest cells, and the head is made on a part."""
    budget: int | str | None = "10%"
    """How many to pick: a count, or `p%` of the pool; `100%`, all of it, where only a stop condition is given."""
    coverage_goal: float | None = Field(None, gt=0.0, le=1.0)
    """Stop once the picks cover the pool this well."""
    minimum_distance: float | None = Field(None, ge=0.0, le=2.0)
    """Stop before a pick closer than this to an earlier one or a labelled image; by k-center as late as can be."""
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
        if not isinstance(values, dict):
            return values
        values = translate_lightly(values)
        if "budget" not in values and any(values.get(name) is not None for name in _STOPS):
            values["budget"] = "100%"  # the default would end the picks before what was asked for does
        return values

    @field_validator("budget", mode="before")
    @classmethod
    def _is_budget(cls, value: Any) -> int | str | None:
        return None if value is None else OperatingPoint.parse(value).written

    def budget_of(self, samples: int) -> int | None:
        """The budget as a number of picks out of a pool of so many samples; None without a budget."""
        return None if self.budget is None else OperatingPoint.parse(self.budget).of(samples)

    @model_validator(mode="after")
    def _has_groups(self) -> Self:
        if (self.quotas or self.balance) and self.group_by is None:
            raise ValueError("quotas and balance need group_by, the column that they speak of")
        groups = [quota.group for quota in self.quotas]
        if len(set(groups)) < len(groups):
            raise ValueError("quotas: expected each group once")
        if sum(quota.minimum_share for quota in self.quotas) > 1.0 + 1e-9:
            raise ValueError("quotas: expected minimum shares that sum to at most 1")
        steering = ("quotas", "balance", "weights", "similar_to")
        if self.objective not in ("coverage", "probability-coverage") and any(getattr(self, name) for name in steering):
            named = ", ".join(name for name in steering if getattr(self, name))
            raise ValueError(f"{named}: expected objective coverage or probability-coverage, found {self.objective}")
        return self


class LadderParams(Params):
    """How a ranking is measured."""

    random_draws: int = Field(5, ge=5, le=100)
    """Random orders that the ranking is compared with."""
    references: int = Field(10_000, ge=100, le=100_000)
    """Samples, chosen by a hash of their id, that a large pool's ladder is measured on; at most half of the pool."""
    all_up_to: int = Field(20_000, ge=1, le=100_000)
    """A pool of at most this many samples is measured on all of them."""


def translate_lightly(values: dict[str, Any]) -> dict[str, Any]:
    """Lightly's selection config in this project's words; a name that means something else there is refused.

    Raises:
        ValueError: a strategy without a counterpart, strategies that exclude each other, a key that means nothing
            here, one thing named twice, or a value of a wrong shape.
    """
    values = dict(values)
    config = _table(values.pop("selection_config", {}), "selection_config")
    for name in config:
        _refuse_both(values, name, f"selection_config.{name}")
    values.update(config)
    for name, aliases in _ALIASES.items():
        given = [alias for alias in (name, *aliases) if alias in values]
        if len(given) > 1:
            raise ValueError(f"{name}: expected it to be named once, found {' and '.join(given)}; keep one of them")
    for alias in ("n_samples", "n_samples_to_select"):
        if alias in values:
            values["budget"] = values.pop(alias)
    if "proportion_samples" in values:
        share = Decimal(str(_number(values.pop("proportion_samples"), "proportion_samples")))
        values["budget"] = f"{(100 * share).normalize():f}%"
    if "stopping_condition_minimum_distance" in values:
        values["minimum_distance"] = values.pop("stopping_condition_minimum_distance")
    if "strategies" in values:
        _refuse_both(values, "objective", "strategies")
        _add_strategies(values, values.pop("strategies"))
    return values


def _add_strategies(values: dict[str, Any], strategies: Any) -> None:
    """A list of {"input": {"type": ...}, "strategy": {"type": ..., "strength": ...}}, in any order."""
    if not isinstance(strategies, list | tuple):
        raise ValueError(f"strategies: expected a list of tables, found {strategies!r}")
    objectives: set[str] = set()
    distances: list[float] = []
    # Sorted, since products of weights would otherwise depend on the order in their last bits.
    for entry in sorted((_table(entry, "strategies") for entry in strategies), key=repr):
        source, strategy = _table(entry.get("input", {}), "input"), _table(entry.get("strategy", {}), "strategy")
        kind = _kind(entry, source, strategy)
        if "stopping_condition_minimum_distance" in strategy:
            distances.append(_number(strategy["stopping_condition_minimum_distance"], "minimum distance"))
        if kind in _OBJECTIVES:
            objectives.add(_OBJECTIVES[kind])
        else:
            _add_steering(values, kind, source, strategy)
    if distances:
        _refuse_both(values, "minimum_distance", "stopping_condition_minimum_distance in strategies")
        values["minimum_distance"] = max(distances)
    # Lightly multiplies its objectives; here it is coverage whose picks weights, balance and similarity can move.
    is_steered = any(values.get(name) for name in ("weights", "balance", "similar_to", "quotas"))
    if objectives == {"k-center", "typicality"} or (len(objectives) == 1 and is_steered and objectives != {"random"}):
        values["objective"] = "coverage"
    elif len(objectives) > 1:
        raise ValueError(f"strategies: expected objectives that go together, found {' and '.join(sorted(objectives))}")
    elif objectives:
        [values["objective"]] = objectives


def _kind(entry: dict[str, Any], source: dict[str, Any], strategy: dict[str, Any]) -> str:
    """The type of a strategy, all of whose keys mean something here: one that is dropped would not be missed."""
    named, given = str(strategy.get("type", "")).upper(), str(source.get("type", "")).upper()
    kind = "RANDOM" if given == "RANDOM" and named in ("", "WEIGHTS") else named  # Lightly draws by WEIGHTS of RANDOM
    wanted, needed, allowed = _LIGHTLY.get(kind, ("", (), ()))
    if not wanted or any(key not in source for key in needed):
        raise ValueError(
            f"strategies: expected DIVERSITY, TYPICALITY, WEIGHTS or BALANCE (input with a key), SIMILARITY (input "
            f"with sample_ids) or an input of type RANDOM, found strategy {named or 'without a type'} on input {source}"
        )
    if given not in ("", wanted):
        raise ValueError(f"strategies: expected input of type {wanted} for {kind}, found {given}; leave it out")
    parts = (
        ("an entry", entry, ("input", "strategy")),
        (f"the input of {kind}", source, ("type", *needed)),
        (f"the strategy {kind}", strategy, ("type", *allowed)),
    )
    for where, table, known in parts:
        for key in table:
            if key not in known:
                raise ValueError(
                    f"strategies: expected {', '.join(known)} in {where}, found {key!r}; correct or drop it"
                )
    return kind


def _add_steering(values: dict[str, Any], kind: str, source: dict[str, Any], strategy: dict[str, Any]) -> None:
    """WEIGHTS and BALANCE by a column, SIMILARITY to given images."""
    strength = _number(strategy.get("strength", 1.0), "strength")
    if kind == "WEIGHTS":
        _append(values, "weights", {"column": source["key"], "strength": strength})
    elif kind == "BALANCE":
        if "balance" in values:
            raise ValueError("strategies: expected one balance, found another beside it; name one column")
        if values.get("group_by") not in (None, source["key"]):
            _refuse_both(values, "group_by", f"BALANCE by {source['key']!r}")
        if "target" in strategy and str(strategy.get("distribution", "TARGET")).upper() != "TARGET":
            _refuse_both(strategy, "target", "distribution")
        target = strategy.get("target", strategy.get("distribution", "uniform"))
        values["group_by"] = source["key"]
        values["balance"] = {"target": target.lower() if isinstance(target, str) else target, "strength": strength}
    else:
        _append(values, "similar_to", {"sample_ids": source["sample_ids"], "strength": strength})


def _refuse_both(values: dict[str, Any], name: str, other: str) -> None:
    if name in values:
        raise ValueError(f"{name}: expected it or {other}, found both; keep one of them")


def _append(values: dict[str, Any], name: str, entry: dict[str, Any]) -> None:
    earlier = values.get(name, ())
    if not isinstance(earlier, list | tuple):
        raise ValueError(f"{name}: expected a list of tables, found {earlier!r}")
    values[name] = (*earlier, entry)


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{name}: expected a table of names and values, found {value!r}")
    return value


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected a number, found {value!r}") from error
