"""What the labels so far show: accuracy on images drawn at random, whether choosing helped, and what more would bring.

Accuracy and forecast are those of `selection.accuracy`. What is judged on are controls: a uniform random draw of the
pool, all of it labelled (see `selection.control_draw`). Images of the draw whose classes are not known are left out of
it. Reads only; nothing is trained anew.
"""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from wtl_core.embedding import vectors
from wtl_core.labelling import cut
from wtl_core.pool import live_pool
from wtl_core.recipe.selection import EMPTY
from wtl_core.selection.accuracy import (
    LEAST,
    Estimate,
    Forecast,
    Goal,
    forecast,
    judging,
    labels_for,
    lacking,
    measure,
    share_of,
)
from wtl_core.selection.control_draw import Draw, random_draw
from wtl_core.selection.label_weights import is_like, likely_classes
from wtl_core.workspace import ledger, selections, sides, snapshots
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

_FOLDS = 5
SHORT = 20
"""Labels of a class below which it is short: a vote of 20 neighbours cannot be won by fewer."""


@dataclass(frozen=True)
class Comparison:
    """Picks against controls: accuracy of probes taught by as many of each, judged on other controls.

    Attributes:
        labels: How many taught.
        by_picks: By the first picks that `wtl export` handed out, without those that are judged on.
        by_controls: By images at random.
        difference: The first less the second, paired.
    """

    labels: int
    by_picks: float
    by_controls: float
    difference: Estimate


@dataclass(frozen=True)
class Progress:
    """What the labels show.

    Attributes:
        labelled: Labelled images.
        known: Those whose classes are known.
        controls: Those of them that are a uniform draw of the pool.
        unknown: Images of the draw that are left out, since their classes are not known: labelled without one, or
            redundant.
        missing: Images up to the last control of the random order that are not labelled; the draw ends before the
            first of them.
        missing_out: Those of them that are handed out.
        behind: Labelled images up to the last control that are not of the draw, since a missing one is before them.
        taught: Labels that teach the probe: of known classes, with a vector, and not of the draw.
        accuracy: On the controls, taught by these labels; None with fewer than `accuracy.LEAST` of either.
        picks: Those of the labels that teach which `wtl export` handed out as picks.
        compared: How many of these are needed to compare them with controls.
        comparison: None without `accuracy`, or with fewer picks than that.
        forecast: For as many more labels as were asked for, or for all that are left; None without `accuracy`, and
            where all images are labelled.
        goal: The labels to the accuracy that was asked for; None if none was.
        classes: One row a class, the fewest labels first: `class`, `labels`, `share` among them, `pool_share` with
            `pool_low` and `pool_high` by the controls (null without), `next` of the picks that will probably be of it
            (null where labels do not steer them).
        short: Classes with fewer than `SHORT` labels.
    """

    labelled: int
    known: int
    controls: int
    unknown: int
    missing: int
    missing_out: int
    behind: int
    taught: int
    accuracy: Estimate | None
    picks: int
    compared: int
    comparison: Comparison | None
    forecast: Forecast | None
    goal: Goal | None
    classes: pl.DataFrame
    short: list[str]

    @property
    def lacking(self) -> str:
        """What is missing where `accuracy` is None, in words."""
        return lacking(self.controls, self.taught)

    @property
    def lacks_controls(self) -> bool:
        """Whether more images drawn at random are among what is missing."""
        return self.controls < LEAST

    @property
    def is_far(self) -> bool:
        """Whether the forecast reaches beyond twice the labels that teach, up to which forecasts were checked."""
        return self.forecast is not None and self.forecast.more > self.taught

    def to_json(self) -> dict[str, Any]:
        """What `wtl progress --json` prints."""
        return {
            name: value.to_dicts() if isinstance(value, pl.DataFrame) else _plain(value)
            for name, value in vars(self).items()
        }


def run(store: Store, more: int | None = None, *, goal: float | None = None, refresh: Commit | None = None) -> Progress:
    """What the labels of the ledger show.

    Args:
        store: The workspace.
        more: Labels that the forecast is for; if not given, as many as the probe learned from.
        goal: An accuracy, above 0 and at most 1, for which the labels that it takes are told.
        refresh: Whose ranking and encoder count, for one that is not committed yet; the latest if None.

    Raises:
        ConfigError: the workspace has no ranking yet.
    """
    last = cut.latest_refresh(store) if refresh is None else refresh
    entries = ledger.read(store)
    is_held_out = pl.col("sample_id").is_in(sides.held_out(store, entries).implode())
    ranking = selections.read_ranking(store, last.selection).filter(~is_held_out)
    labels = ledger.labels(entries).filter(~is_held_out)
    draw = _draw(store, last, ranking, entries)
    known = labels.filter(pl.col("classes").is_not_null())
    named = [list(names) or [EMPTY] for names in known["classes"].to_list()]
    is_drawn = known["sample_id"].is_in(draw.ids).to_numpy()
    has_vector = known["sample_id"].is_in(vectors.existing_ids(store, last.encoder).implode()).to_numpy()
    rows = np.flatnonzero(has_vector)
    is_control = is_drawn[rows]
    picks = _picked(entries, known["sample_id"].gather(rows).to_list(), is_control)
    unit = vectors.load(store, last.encoder, known["sample_id"].gather(rows).to_list())
    classes = [named[row] for row in rows]
    accuracy = measure(unit, classes, is_control)
    share = accuracy.share
    open_ranking = ranking.filter(~pl.col("sample_id").is_in(ledger.settled_ids(entries)))
    coming = _next_of(open_ranking.head(last.counts.picks), {name for names in named for name in names})
    left = open_ranking["duplicate_of"].null_count()
    asked = more or accuracy.taught
    table = _classes(named, is_drawn, coming)
    handed_out = set(ledger.sample_ids(entries, "exported"))
    return Progress(
        labelled=labels.height,
        known=known.height,
        controls=int(is_drawn.sum()),
        unknown=len(draw.ids) - int(is_drawn.sum()),
        missing=len(draw.missing),
        missing_out=len(handed_out.intersection(draw.missing)),
        behind=len(draw.behind),
        taught=accuracy.taught,
        accuracy=share,
        picks=len(picks),
        compared=_taught_in_part(int(is_control.sum())),
        comparison=None if share is None else compare(unit, classes, is_control, picks),
        forecast=None if share is None or not left else forecast(share, accuracy.taught, min(asked, left)),
        goal=None if goal is None else labels_for(goal, accuracy, left=left),
        classes=table,
        short=table.filter(pl.col("labels") < SHORT)["class"].to_list(),
    )


def _draw(store: Store, last: Commit, ranking: pl.DataFrame, entries: pl.DataFrame) -> Draw:
    """The random draw of what is in the pool now: images that have left it, or that filters exclude, are none of it."""
    snapshot, filters = snapshots.read_snapshot(store, last.listing), last.recipe.ingest.filters
    if filters:
        live = live_pool.load(store, snapshot, filters=filters).samples.filter(~pl.col("is_filtered"))["sample_id"]
    else:
        live = live_pool.sample_ids(store, snapshot)
    settled = pl.Series(ledger.settled_ids(entries), dtype=pl.String)
    is_of_pool = settled.is_in(live.implode()) & ~settled.is_in(sides.held_out(store, entries).implode())
    return random_draw(entries, [*ranking["sample_id"], *settled.filter(is_of_pool)])


def _picked(entries: pl.DataFrame, ids: list[str], is_control: np.ndarray) -> np.ndarray:
    """The places in `ids` of the picks of batches in the order in which they were handed out.

    Left out are controls, and what `wtl export --split` handed out, which is drawn at random.
    """
    place = {sample_id: row for row, sample_id in enumerate(ids) if not is_control[row]}
    split = pl.col("request").str.json_path_match("$.split")
    out = entries.filter(pl.col("kind") == "exported", ~pl.col("is_control"), split.is_null())["sample_id"]
    return np.array([place[sample_id] for sample_id in out if sample_id in place], np.int64)


def _taught_in_part(controls: int) -> int:
    """How many of the controls teach while one part of them is judged: as many in each part."""
    return controls - -(-controls // _FOLDS)


def compare(
    vectors: np.ndarray, classes: Sequence[Sequence[str]], is_control: np.ndarray, picks: np.ndarray
) -> Comparison | None:
    """Picks against controls; None where there are fewer picks than are compared.

    Args:
        vectors: (K, D) of labelled images, of unit length.
        classes: Of each, as for `accuracy.measure`.
        is_control: (K,) bool.
        picks: (P,) int64, rows of images that were picked and are no controls, the first picked ones first.
    """
    controls = np.flatnonzero(is_control)
    size = _taught_in_part(len(controls))
    if size > len(picks):
        return None
    hits = judging(vectors, classes)
    shuffled = np.random.default_rng(0).permutation(controls)
    by_picks, by_controls = [], []
    for fold in range(_FOLDS):
        judged = shuffled[fold::_FOLDS]
        taught = np.setdiff1d(shuffled, judged, assume_unique=True)[:size]
        by_controls.append(hits(taught, judged))
        by_picks.append(hits(picks[:size], judged))
    both = np.concatenate(by_picks).astype(float), np.concatenate(by_controls).astype(float)
    without = [np.delete(picks[:size], np.s_[part::_FOLDS]) for part in range(_FOLDS)]
    of_training = [float(hits(taught, controls).mean()) for taught in without]
    return Comparison(
        labels=size,
        by_picks=float(both[0].mean()),
        by_controls=float(both[1].mean()),
        difference=_paired(both[0] - both[1], of_training),
    )


def _paired(difference: np.ndarray, of_training: Sequence[float]) -> Estimate:
    """The mean of (K,) differences of -1, 0 and 1, with its interval.

    Few images tell a difference, so a win and a loss are added (Bonett and Price, 2012): no interval has no width. For
    what other labels would have taught the variance of accuracies without a fifth of the picks each is added. Where
    picks were random too, the interval left out zero in 4 to 8 % of 100 cases each by 50 and 150 controls of digits,
    Fashion-MNIST, CIFAR-10 and clothing (10 % by 150 of digits), and in 0 to 7 % of drawn clusters (2026-12-02).
    """
    count, z = len(difference) + 2, 1.96
    win, loss = (int((sign * difference > 0).sum() + 1) / count for sign in (1, -1))
    judged = (win + loss - (win - loss) ** 2) / count
    value, half = float(difference.mean()), z * (judged + float(np.var(of_training))) ** 0.5
    return Estimate(value, max(-1.0, value - half), min(1.0, value + half))


def _next_of(picks: pl.DataFrame, names: Collection[str]) -> dict[str, float] | None:
    """How many of the picks will probably be of which of the named classes; None where labels do not steer them."""
    if "why" not in picks.columns or picks["why"].null_count() == picks.height:
        return None
    counts: dict[str, float] = {}
    for reason, number in picks["why"].drop_nulls().value_counts().sort("why").iter_rows():
        likely = likely_classes(reason, names)
        for name in likely:
            counts[name] = counts.get(name, 0.0) + (number if is_like(reason) else number / len(likely))
    return counts


def _classes(classes: list[list[str]], is_control: np.ndarray, coming: dict[str, float] | None) -> pl.DataFrame:
    rows = []
    controls = [found for found, drawn in zip(classes, is_control, strict=True) if drawn]
    for name in sorted({name for found in classes for name in found}):
        count = sum(name in found for found in classes)
        pool = share_of(np.array([name in found for found in controls])) if len(controls) >= LEAST else None
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
