"""Parameters of the ranking and of its ladder: frozen models, nested in the recipe. No maths here, and no torch."""

from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from wtl_core.recipe.base import EXPERT, Params
from wtl_core.recipe.lightly import from_lightly
from wtl_core.recipe.operating_point import OperatingPoint

EMPTY = "empty"
"""The class of labelled images that hold nothing of interest, in files of labels and wherever classes are told."""
REMOVED = {"tail_from": 0.25, "outliers_from": 0.45}
"""Keys that earlier versions had, with their defaults, which they wrote into every recipe that they kept."""
_STOPS = ("coverage_goal", "minimum_distance", "gain_knee", "accuracy_goal")


class Quota(Params):
    """How many picks one group may or must have.

    `minimum` and `maximum` count the picks up to the budget; shares hold for every prefix of the ranking up to it.
    Labelled images of the group count towards `minimum`, and a group whose images are all labelled fulfils it; they
    count neither against `maximum`, which limits picks, nor in shares. Picks exported by earlier refreshes count.
    """

    group: str
    """The group's value in the column that `group_by` names."""
    minimum: int = Field(0, ge=0)
    """The group has at least this many picks when the budget is reached; no stop condition ends the picks before."""
    maximum: int | None = Field(None, ge=0)
    """The group has at most this many picks within the budget."""
    minimum_share: float = Field(0.0, ge=0.0, le=1.0)
    """Of the first b picks at least floor(minimum_share b) are from the group, for every b up to the budget."""
    maximum_share: float = Field(1.0, ge=0.0, le=1.0)
    """Of the first b picks at most ceil(maximum_share b) are from the group, for every b up to the budget."""

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"quota of {self.group!r}: expected minimum <= maximum")
        if self.maximum_share < self.minimum_share:
            raise ValueError(f"quota of {self.group!r}: expected minimum_share <= maximum_share")
        return self


class Balance(Params):
    """A soft target: groups are weighted so that the picks move towards a distribution over groups."""

    target: Literal["uniform", "input"] | dict[str, float] = "uniform"
    """`uniform` over all groups, `input` as in the pool, or a ratio for each group. A group that is left out need not
    be covered; its samples are still picked where they cover samples of other groups."""
    strength: float = Field(1.0, ge=0.0, le=1.0)
    """0 keeps the pool's distribution, 1 gives the groups the target's weights, and between the two it is geometric."""


class WeightBy(Params):
    """A numeric column whose value says how much it matters that a sample is covered."""

    column: str
    """A column of the pool or a key of the metadata. Each sample needs a value; it is finite and not negative."""
    strength: float = Field(1.0, ge=-4.0, le=4.0)
    """The weight is (value / largest value) to this power. Negative prefers small values, which must be above 0."""


class SimilarTo(Params):
    """Given images that picks should be like, or unlike."""

    sample_ids: tuple[str, ...] = Field(min_length=1)
    """Ids of the given images; each must have a vector in the workspace."""
    strength: float = Field(1.0, ge=-4.0, le=4.0)
    """The weight is exp(-d/s) to this power, d the distance to the nearest given image. Negative prefers samples that
    are unlike all of them."""


class SelectionParams(Params):
    """From vectors to a ranking.

    Steering is applied in this order: filters; pixel-identical copies go to the end; weights by near-duplicates,
    columns, similarity, labels and balance, which are multiplied; quotas, at each pick; last the stop conditions, which
    only mark how many of the ranking are picked. Quotas win over stop conditions: picks go on until all minima are met,
    or to the budget. Lightly's configuration is read too, see `recipe.lightly`.
    """

    seed: int = Field(0, ge=0)
    """Seed of `random`, `stratified-random` and the end of `k-center`; the other objectives draw nothing."""
    objective: Literal["coverage", "k-center", "probability-coverage", "typicality", "stratified-random", "random"] = (
        "coverage"
    )
    """The method of ranking. `coverage` is the one to use; the others are there for comparison."""
    kernel: Literal["gaussian", "laplace", "cosine"] = Field("gaussian", json_schema_extra=EXPERT)
    """How `coverage` lets similarity fall with the distance d of two vectors: exp(-(d/s)^2), exp(-d/s) or 1 - d^2/4."""
    scale_factor: float = Field(1.0, ge=0.1, le=10.0, json_schema_extra=EXPERT)
    """Factor on the kernel's scale s (and the ball's radius), which is the median distance to the 50th neighbour."""
    has_duplicate_weights: bool = Field(True, json_schema_extra=EXPERT)
    """Near-duplicates share the weight of one image, so that a burst counts as one image."""
    near_duplicate_distance: float | None = Field(None, ge=0.0, le=2.0)
    """Images whose unit vectors are at most this far apart are near-duplicates; at most 2/3 s is used. If not given,
    the distance that the encoder's own training measured on copies, or 0.25."""
    neighbours: int = Field(128, ge=8, le=1024, json_schema_extra=EXPERT)
    """In a large pool, after its `head`, a pick covers samples that list it among this many nearest neighbours; from
    `cells_from` samples on at most 64."""
    head: int = Field(2000, ge=0, le=4000, json_schema_extra=EXPERT)
    """In a large pool this many first picks are made by comparing candidates with every sample."""
    exact_up_to: int = Field(16_000, ge=1, le=30_000, json_schema_extra=EXPERT)
    """A pool of at most this many samples is ranked by comparing all pairs at every pick."""
    cells_from: int = Field(250_000, ge=1000, json_schema_extra=EXPERT)
    """From this many samples on neighbours are searched in the nearest k-means cells only; in a pool that is ranked by
    regions from 30,000 samples of a region on."""
    regions_from: int = Field(2_000_000, ge=1, json_schema_extra=EXPERT)
    """From this many samples on the pool is divided into regions of like samples, which are ranked one by one and
    merged by gain, so that no process holds more than a region. For `coverage` and `probability-coverage`."""
    region_size: int = Field(250_000, ge=100, json_schema_extra=EXPERT)
    """Samples of a region at most, as far as a sample of the pool tells."""
    budget: int | str | None = "10%"
    """How many to pick: a count, or `p%` of the pool. The default is `100%` where a stop condition is given."""
    coverage_goal: float | None = Field(None, gt=0.0, le=1.0)
    """Stop when the picks cover this share of the pool."""
    minimum_distance: float | None = Field(None, ge=0.0, le=2.0)
    """Stop before the first pick that is closer than this to an earlier pick or a labelled image; `k-center` reaches
    that point latest."""
    gain_knee: float | None = Field(None, gt=0.0, lt=1.0)
    """Stop where the mean gain of 1 % of the pool falls below this share of the mean gain of the first 1 %."""
    accuracy_goal: float | None = Field(None, gt=0.0, le=1.0)
    """Stop at as many picks as will bring a linear probe to this accuracy once they are labelled, by the forecast of
    `wtl progress`. It ends no picks before there are enough labels to forecast by, nor where it is not within reach."""
    group_by: str | None = None
    """The column or metadata key that quotas and balance refer to; `taken_on` groups by day."""
    quotas: tuple[Quota, ...] = ()
    """Hard limits by group: tables of `group`, `minimum`, `maximum`, `minimum_share`, `maximum_share`."""
    balance: Balance | None = None
    """A soft target by group: a table of `target` and `strength`."""
    weights: tuple[WeightBy, ...] = ()
    """Columns that say how much samples matter: tables of `column` and `strength`."""
    similar_to: tuple[SimilarTo, ...] = ()
    """Images that picks should be like, or unlike: tables of `sample_ids` and `strength`."""
    labels: Literal["auto", "use", "ignore"] = "auto"
    """Whether the classes of labels that came back steer the picks: towards samples of which the labels say different
    things, and towards rare classes. `auto` lets them once labelled images name each other's classes better than by
    chance, `use` from two classes on, `ignore` never. Labels that sources carry are metadata, and have no say."""
    clusters: int = Field(500, ge=2, le=20_000, json_schema_extra=EXPERT)
    """Clusters of `stratified-random`, and of `typicality` at most."""

    @model_validator(mode="before")
    @classmethod
    def _read_lightly(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = from_lightly(_without_removed(values))
        if "budget" not in values and any(values.get(name) is not None for name in _STOPS):
            values["budget"] = "100%"  # the default would end the picks before what was asked for does
        return values

    @field_validator("budget", mode="before")
    @classmethod
    def _is_budget(cls, value: Any) -> int | str | None:
        return None if value is None else OperatingPoint.parse(value).written

    @property
    def is_coverage(self) -> bool:
        """Whether samples are picked by what they cover, so that weights steer."""
        return self.objective in ("coverage", "probability-coverage")

    def budget_of(self, samples: int) -> int | None:
        """The budget as a number of picks out of a pool of so many samples; None without a budget."""
        return None if self.budget is None else OperatingPoint.parse(self.budget).of(samples)

    @model_validator(mode="after")
    def _has_groups(self) -> Self:
        if (self.quotas or self.balance) and self.group_by is None:
            raise ValueError("quotas and balance need group_by, the column that they refer to")
        groups = [quota.group for quota in self.quotas]
        if len(set(groups)) < len(groups):
            raise ValueError("quotas: expected each group once")
        if sum(quota.minimum_share for quota in self.quotas) > 1.0 + 1e-9:
            raise ValueError("quotas: expected minimum shares that sum to at most 1")
        steering = ("quotas", "balance", "weights", "similar_to")
        if not self.is_coverage and any(getattr(self, name) for name in steering):
            named = ", ".join(name for name in steering if getattr(self, name))
            raise ValueError(f"{named}: expected objective coverage or probability-coverage, found {self.objective}")
        if not self.is_coverage and self.labels == "use":
            raise ValueError(
                f"labels: expected objective coverage or probability-coverage for 'use', found {self.objective}"
            )
        return self


def _without_removed(values: dict[str, Any]) -> dict[str, Any]:
    """The values without removed keys at their defaults. Raises ValueError for another value of one."""
    for name, default in REMOVED.items():
        if values.get(name, default) != default:
            raise ValueError(f"{name}: expected it to be left out, since the tail follows the pool by itself now")
    return {name: value for name, value in values.items() if name not in REMOVED}


class LadderParams(Params):
    """How a ranking is measured."""

    random_draws: int = Field(5, ge=5, le=100)
    """Random orders that the ranking is compared with."""
    references: int = Field(10_000, ge=100, le=100_000, json_schema_extra=EXPERT)
    """In a large pool coverage is measured on this many samples, chosen by a hash of their id and held out of the
    picks; at most half of the pool."""
    all_up_to: int = Field(20_000, ge=1, le=100_000, json_schema_extra=EXPERT)
    """In a pool of at most this many samples coverage is measured on all of them."""
