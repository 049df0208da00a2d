"""What a benchmark compares: a frozen model without torch, so that the command line plans with it. No work here."""

from importlib.util import find_spec
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.recipe.operating_point import OperatingPoint

Judge = Literal["nearest", "probe", "scratch"]
PoolKind = Literal["balanced", "long-tail", "bursts", "long-tail-bursts", "outliers"]

RANKED = ("stratified-random", "k-center", "typicality", "probability-coverage", "coverage")
"""Strategies that `wtl_core.selection` orders by, so that their results depend on its version."""
ONE_PASS = ("random", "class-balanced-random", *RANKED, "mundig")
"""Strategies that order the whole pool once. `class-balanced-random` is an oracle: it reads the labels."""
ORACLES = frozenset({"class-balanced-random"})
WITHOUT_VECTORS = frozenset({"random", "class-balanced-random"})
"""Strategies that look at no vector; their orders are not stored but drawn when they are needed."""
STEERED = "coverage+labels"
"""Coverage whose rest is ranked again at each budget, steered by the labels of all picks so far."""
LOOPS = ("least-confidence", "margin", "entropy", "mc-dropout", "core-set", "dal", "badge")
"""Active learning: a model is trained on what is labelled, says what to label next, and is trained again."""
WAITING = (STEERED, *LOOPS)
"""Strategies that wait for labels, so that their picks at a budget depend on the budgets before it."""
STRATEGIES = (*ONE_PASS, *WAITING)


class BenchmarkParams(BaseModel):
    """Strategies x budgets x seeds, on which pools, and by which measure."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    encoder: str = "ssl"
    """Where vectors come from; `ssl` is trained on the images of the training split alone."""
    encoder_seconds: float = Field(300, gt=0, le=30 * 86400)
    """Wall-clock budget of its training."""
    side_px: int = Field(32, ge=8, le=256)
    """Images are resized to squares of this side, whatever their shape."""
    test_images: int | None = Field(None, ge=10, le=1_000_000)
    """Test images that accuracy is measured on, chosen by a hash; all if not given."""
    validation_share: float = Field(0.0, ge=0.0, le=0.5)
    """Share of the training split, chosen by a hash, that is in no pool; accuracy is measured on it as well."""
    pools: tuple[PoolKind, ...] = ("balanced",)
    """Kinds of pools to choose from, each made reproducibly from the training split."""
    strategies: tuple[str, ...] = ("random", "coverage")
    """What is compared: strategies that order the pool in one pass, active-learning loops, and `coverage+labels`, which
    waits for labels once at each budget and ranks the rest again by them, as a refresh does."""
    judges: tuple[Judge, ...] = ("nearest", "probe")
    """How accuracy is measured: `nearest`, 20 nearest neighbours on the vectors; `probe`, a linear classifier on them;
    `scratch`, a small network trained from scratch on the images. Loops retrain their model each round, the `probe` or
    the one from `scratch`; picks of loops by the `probe` are judged by `nearest` too."""
    budgets: tuple[int | str, ...] = ("1%", "2%", "5%", "10%", "20%", "40%")
    """Operating points: counts, or `p%` of the pool."""
    loop_budget: int | str = "5%"
    """Loops stop at this operating point, since every round trains a network."""
    loop_rounds: int = Field(2, ge=1, le=50)
    """Rounds of a loop between one budget and the next; it starts from a fifth of the smallest budget, at random."""
    loop_candidates: int = Field(20_000, ge=100, le=10_000_000)
    """Unlabelled images, drawn anew each round, that a loop looks at."""
    loop_seeds: int = Field(3, ge=1, le=1000)
    """Repetitions of loops, which take the longest."""
    seeds: int = Field(10, ge=2, le=1000)
    """Repetitions. A seed decides the random strategies' draws and the network's first weights, the same for all
    strategies, so that differences are paired."""
    scratch_width: int | None = Field(None, ge=8, le=256)
    """Channels of the first stage of the network trained from scratch; None takes 16 on a CPU and 64 on a GPU."""
    scratch_effort: float = Field(1.0, gt=0.0, le=10.0)
    """Factor on the number of passes of that network over its images."""
    scratch_side_px: int = Field(64, ge=8, le=256)
    """Images of a larger side are averaged down to this one for that network, which takes four times as long for twice
    the side; vectors are of `side_px` all the same."""
    has_flips: bool = True
    """Whether a mirrored image is of the same class; false for digits and letters."""
    pool_share: float = Field(1.0, gt=0.0, le=1.0)
    """Below 1, each seed has its own pool: this share, drawn anew, which all strategies of the seed choose from.

    At 1, an order that draws nothing is the same for all seeds, and intervals hold for this one pool only.
    """
    seed: int = Field(0, ge=0)
    """Seed of the pools."""

    @field_validator("encoder")
    @classmethod
    def _is_encoder(cls, name: str) -> str:
        parse_name(name)
        return name

    @field_validator("strategies")
    @classmethod
    def _are_strategies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in names if name not in STRATEGIES]:
            raise ValueError(f"expected strategies out of {', '.join(STRATEGIES)}; found {', '.join(unknown)}")
        return tuple(dict.fromkeys(names))

    @field_validator("pools", "judges")
    @classmethod
    def _are_distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("expected at least one")
        return tuple(dict.fromkeys(names))

    @field_validator("budgets", "loop_budget")
    @classmethod
    def _are_budgets(cls, value: tuple[int | str, ...] | int | str) -> tuple[int | str, ...] | int | str:
        if isinstance(value, tuple):
            if not value:
                raise ValueError("expected at least one budget")
            return tuple(OperatingPoint.parse(budget).written for budget in value)
        return OperatingPoint.parse(value).written

    @model_validator(mode="after")
    def _has_baseline(self) -> Self:
        if "random" not in self.strategies:
            raise ValueError("strategies: expected random among them, the others are compared with it")
        return self

    @model_validator(mode="after")
    def _loops_have_a_judge(self) -> Self:
        if self.loops and set(self.judges) == {"nearest"}:
            raise ValueError(
                f"judges: expected probe or scratch for {', '.join(self.loops)}, found nearest alone, which trains no "
                "model; add one, or take loops out of strategies"
            )
        return self

    @property
    def seen_px(self) -> int:
        """Side of the images that the network trained from scratch sees."""
        return min(self.side_px, self.scratch_side_px)

    @property
    def orders(self) -> tuple[str, ...]:
        """The strategies whose picks are the same whoever judges them: all but loops."""
        return tuple(name for name in self.strategies if name not in LOOPS)

    @property
    def loops(self) -> tuple[str, ...]:
        """The strategies that train the judge's model to choose."""
        return tuple(name for name in self.strategies if name in LOOPS)


def can_run(strategy: str) -> bool:
    """Whether what the strategy needs is installed."""
    return strategy != "mundig" or find_spec("lightly_mundig") is not None


def check_installed(strategies: tuple[str, ...]) -> None:
    """Refuse, before any work, what would fail after an encoder has been trained.

    Raises:
        ConfigError: `mundig` without the package `lightly-mundig`.
    """
    if not all(can_run(strategy) for strategy in strategies):
        raise ConfigError(
            "strategy mundig: expected the package lightly-mundig; pip install lightly-mundig, or leave it out"
        )
