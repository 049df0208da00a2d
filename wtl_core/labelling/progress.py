"""What the labels so far show: accuracy on images drawn at random, whether choosing helped, and what more would bring.

Accuracy is that of a linear probe on the encoder's vectors, so it says how much the labels teach, not how good a model
of one's own will be. What is judged on are controls: images that were drawn uniformly at random from the pool (see
`batches.control_ids`), so it is unbiased, and they teach nothing then. Reads only; nothing is trained anew.

The forecast is an empirical law: a doubling of L labels takes 0.104 x sqrt(1000 / L) of the error away. Over labels of
CIFAR-10, Fashion-MNIST and photographs of clothes, balanced and with long tails, in one pass and steered by labels, it
was within 2 points of the truth in two of three cases, better than curves fitted to the labels at hand, whose noise is
as large as what they are to show. The interval is as wide as it was wrong (`tests/bench/reports/labels.md`).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
import torch

from wtl_core.embedding import vectors
from wtl_core.errors import ConfigError
from wtl_core.labelling import batches
from wtl_core.recipe.selection import EMPTY
from wtl_core.selection.linear_probe import fit_probe
from wtl_core.workspace import commits, ledger, selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

LEAST_CONTROLS = 40
"""Labelled controls from which accuracy is told: by 40, a share of 0.8 is known to 12 points."""
_LEAST_LABELS = 40
_FOLDS = 5
_DRAWS = 1000
_SHORT = 20
"""Labels of a class below which it is short: a vote of 20 neighbours cannot be won by fewer."""
_LAW, _AT = 0.104, 1000.0
_WRONG_BY, _LEAST_WRONG = 0.85, 0.01
"""Half of the interval: that share of the forecast, and a point. Sets differ: some are at their end, others are not."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds it in 95 % of cases."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Picks against controls: accuracy of probes taught by as many of each, judged on other controls.

    Attributes:
        labels: How many taught.
        by_picks: By the first of the picks.
        by_controls: By images at random.
        difference: The first less the second, paired.
    """

    labels: int
    by_picks: float
    by_controls: float
    difference: Estimate


@dataclass(frozen=True)
class Forecast:
    """What more labels bring: `gain` in accuracy by `more` labels, with its interval."""

    more: int
    gain: Estimate


@dataclass(frozen=True)
class Progress:
    """What the labels show.

    Attributes:
        labelled: Labelled images.
        known: Those whose classes are known and that have a vector.
        controls: Those of them that are a uniform draw of the pool.
        accuracy: On the controls, taught by all other labels; None with fewer than `LEAST_CONTROLS`.
        comparison: None without enough controls, or with fewer picks than are compared.
        forecast: None without `accuracy`.
        classes: One row a class, the fewest labels first: `class`, `labels`, `share` among them, `pool_share` with
            `pool_low` and `pool_high` by the controls (null without), `next` of the picks that will probably be of it
            (null where labels do not steer them).
        short: Classes with fewer than 20 labels.
    """

    labelled: int
    known: int
    controls: int
    accuracy: Estimate | None
    comparison: Comparison | None
    forecast: Forecast | None
    classes: pl.DataFrame
    short: list[str]

    def to_json(self) -> dict[str, Any]:
        """What `wtl progress --json` prints."""
        return {
            name: value.to_dicts() if isinstance(value, pl.DataFrame) else _plain(value)
            for name, value in vars(self).items()
        }


def run(store: Store, more: int | None = None) -> Progress:
    """What the labels of the ledger show.

    Args:
        store: The workspace.
        more: Labels that the forecast is for; as many again if not given.

    Raises:
        ConfigError: the workspace has no ranking yet.
    """
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected a ranking, found none yet; `wtl run SOURCE` makes one")
    entries = ledger.read(store)
    labels = ledger.labels(entries)
    has_vector = pl.Series(list(vectors.existing_ids(store, last.encoder)), dtype=pl.String)
    known = labels.filter(pl.col("classes").is_not_null(), pl.col("sample_id").is_in(has_vector.implode()))
    known = known.sort("entry", "sample_id")  # the first batches first
    ranking = selections.read_ranking(store, last.selection)
    drawn = batches.control_ids(entries, [*ranking["sample_id"], *labels["sample_id"]])
    back = set(known["sample_id"]).intersection(
        entries.filter(pl.col("is_control").fill_null(value=False))["sample_id"]
    )
    # Up to the last control that is back: of those after it only the ones that are picks, too, may be labelled.
    until = max((place for place, sample_id in enumerate(drawn, 1) if sample_id in back), default=0)
    is_control = known["sample_id"].is_in(drawn[:until]).to_numpy()
    named = [list(names) or [EMPTY] for names in known["classes"].to_list()]
    accuracy = comparison = None
    if is_control.sum() >= LEAST_CONTROLS and (~is_control).sum() >= _LEAST_LABELS:
        unit = vectors.load(store, last.encoder, known["sample_id"].to_list()).astype(np.float32)
        accuracy, comparison = measured(unit, named, is_control)
    table = _classes(named, is_control, _next_of(ranking, last))
    return Progress(
        labelled=labels.height,
        known=known.height,
        controls=int(is_control.sum()),
        accuracy=accuracy,
        comparison=comparison,
        forecast=None if accuracy is None else forecast(accuracy.value, known.height, more or known.height),
        classes=table,
        short=table.filter(pl.col("labels") < _SHORT)["class"].to_list(),
    )


def measured(
    unit_vectors: np.ndarray, classes: list[list[str]], is_control: np.ndarray
) -> tuple[Estimate, Comparison | None]:
    """Accuracy on the controls, and picks against controls.

    An image of several classes counts as named right by any of them.

    Args:
        unit_vectors: (K, D) float32 of labelled images, the first labelled ones first.
        classes: Of each, one at least.
        is_control: (K,) bool.
    """
    names = sorted({name for found in classes for name in found})
    place = {name: number for number, name in enumerate(names)}
    target = np.zeros((len(classes), len(names)), np.float32)
    for row, found in enumerate(classes):
        target[row, [place[name] for name in found]] = 1.0 / len(found)

    def hits(taught: np.ndarray, judged: np.ndarray) -> np.ndarray:
        probe = fit_probe(torch.from_numpy(unit_vectors[taught]), torch.from_numpy(target[taught]), classes=len(names))
        found = probe.logits(torch.from_numpy(unit_vectors[judged])).argmax(1).numpy()
        return np.asarray(target[judged, found] > 0)

    controls, picks = np.flatnonzero(is_control), np.flatnonzero(~is_control)
    accuracy = _share(hits(picks, controls))
    size = len(controls) - -(-len(controls) // _FOLDS)
    if size > len(picks):
        return accuracy, None
    shuffled = np.random.default_rng(0).permutation(controls)
    by_picks, by_controls = [], []
    for fold in range(_FOLDS):
        judged = shuffled[fold::_FOLDS]
        taught = np.setdiff1d(controls, judged)
        by_controls.append(hits(taught, judged))
        by_picks.append(hits(picks[: len(taught)], judged))
    both = np.concatenate(by_picks).astype(float), np.concatenate(by_controls).astype(float)
    difference = both[0] - both[1]
    again = np.random.default_rng(0).integers(0, len(difference), (_DRAWS, len(difference)))
    low, high = np.quantile(difference[again].mean(1), [0.025, 0.975])
    compared = Comparison(
        labels=size,
        by_picks=float(both[0].mean()),
        by_controls=float(both[1].mean()),
        difference=Estimate(float(difference.mean()), float(low), float(high)),
    )
    return accuracy, compared


def forecast(accuracy: float, labels: int, more: int) -> Forecast:
    """What `more` labels add to the accuracy that so many reach, by the law above."""
    gain = _LAW * (1.0 - accuracy) * (_AT / labels) ** 0.5 * float(np.log2(1.0 + more / labels))
    gain = min(gain, 1.0 - accuracy)
    half = _WRONG_BY * gain + _LEAST_WRONG
    return Forecast(more, Estimate(gain, gain - half, min(gain + half, 1.0 - accuracy)))


def _share(hits: np.ndarray) -> Estimate:
    """A share with Wilson's interval."""
    count, value, z = len(hits), float(hits.mean()), 1.96
    middle = (value + z * z / 2 / count) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (value * (1 - value) / count + z * z / 4 / count**2) ** 0.5
    return Estimate(value, max(0.0, middle - half), min(1.0, middle + half))


def _next_of(ranking: pl.DataFrame, last: Commit) -> dict[str, float] | None:
    """How many of the picks will probably be of which class; None where labels do not steer them."""
    picks = ranking.head(last.counts.picks)
    if "why" not in picks.columns or picks["why"].null_count() == picks.height:
        return None
    found = picks.select(
        pl.col("why").str.extract(r"^like (.*)$").alias("sure"),
        pl.col("why").str.extract_groups(r"^unsure between (?<first>.*) and (?<second>.*)$").alias("unsure"),
    ).unnest("unsure")
    counts: dict[str, float] = {}
    for column, weight in (("sure", 1.0), ("first", 0.5), ("second", 0.5)):
        for name, number in found[column].drop_nulls().value_counts().iter_rows():
            counts[name] = counts.get(name, 0.0) + weight * number
    return counts


def _classes(classes: list[list[str]], is_control: np.ndarray, coming: dict[str, float] | None) -> pl.DataFrame:
    rows = []
    controls = [found for found, drawn in zip(classes, is_control, strict=True) if drawn]
    for name in sorted({name for found in classes for name in found}):
        count = sum(name in found for found in classes)
        pool = _share(np.array([name in found for found in controls])) if len(controls) >= LEAST_CONTROLS else None
        rows.append(
            {
                "class": name,
                "labels": count,
                "share": count / len(classes),
                "pool_share": pool and pool.value,
                "pool_low": pool and pool.low,
                "pool_high": pool and pool.high,
                "next": None if coming is None else coming.get(name, 0.0),
            }
        )
    numbers = ("share", "pool_share", "pool_low", "pool_high", "next")
    schema = {"class": pl.String, "labels": pl.Int64} | dict.fromkeys(numbers, pl.Float64)
    return pl.DataFrame(rows, schema=schema).sort("labels", "class")


def _plain(value: object) -> object:
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value  # type: ignore[call-overload]
