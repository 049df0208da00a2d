"""Labels to look at again: those that an image's nearest labelled images and a probe disagree with. Changes nothing.

Legend: `N` labelled images, `D` dimensions, `C` classes, `K` neighbours. For an image i with label y

    doubt(i) = p_i(y) / t_y * (n_i(y) + 1) / (K + C)

is small where the label is doubtful. p_i is the probability by a probe (multinomial logistic regression) that other
images taught, four fifths of all, so that it has not seen the label. t_y is the mean of p_j(y) over the images j with
label y, the threshold of confident learning (arXiv 1911.00068): a class that the probe is unsure of is not doubtful
as a whole. n_i(y) of the K nearest labelled images have the label, smoothed by Laplace's rule.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from wtl_core.embedding import vectors
from wtl_core.errors import ConfigError
from wtl_core.labelling.labels import listed
from wtl_core.machine import one_thread
from wtl_core.recipe.selection import EMPTY
from wtl_core.selection.linear_probe import fit_probe
from wtl_core.selection.neighbours import exact_graph, prepare
from wtl_core.workspace import commits
from wtl_core.workspace.storage import Store

MOST_NEIGHBOURS, LEAST_NEIGHBOURS = 20, 5
"""Neighbours that are asked: half as many as a class has images on average, within these bounds."""
FOLDS = 5
"""Of the images, each judged by a probe that the others taught; a class with fewer images is not judged."""
SCHEMA = {
    "sample_id": pl.String,
    "uri": pl.String,
    "label": pl.String,
    "suggestion": pl.String,
    "neighbours": pl.Int64,
    "probability": pl.Float64,
    "doubt": pl.Float64,
    "reason": pl.String,
    "origin": pl.String,
    "entry": pl.Int64,
}


@dataclass(frozen=True)
class Opinions:
    """What neighbours and probe say of each of N rows.

    Attributes:
        doubt: (N,) float64, the smaller, the more doubtful the label.
        best: (N,) int64, the class that the probe holds most probable.
        probability: (N,) float64, how probable.
        favourite: (N,) int64, the class that most neighbours have, the lowest one on a tie.
        votes: (N,) int64, how many have it.
        neighbours: K, how many were asked.
    """

    doubt: np.ndarray
    best: np.ndarray
    probability: np.ndarray
    favourite: np.ndarray
    votes: np.ndarray
    neighbours: int


@dataclass(frozen=True)
class Checked:
    """Labels to look at again.

    Attributes:
        table: Columns of `SCHEMA`, most doubtful first. `suggestion` is the class that the probe holds most probable,
            by `probability`, and that `neighbours` of the K nearest labelled images have, more than have any other.
        checked: Labels that were looked at.
        several: Labels that were not, since they have several classes.
        rare: Labels that were not, since too few images have their class.
        unknown: Labels whose class is not known.
        departed: Labels of images without a vector by the present encoder.
    """

    table: pl.DataFrame
    checked: int
    several: int
    rare: int
    unknown: int
    departed: int


def check(store: Store) -> Checked:
    """The labels of the ledger that probe and neighbours disagree with, of images with one class or none.

    An image that holds nothing of interest counts as one of the class `empty`.

    Raises:
        ConfigError: the workspace has no refresh yet, or no two classes of five labelled images.

    Cost: that of `opinions`; 10,000 labels with 10 classes take some seconds.
    """
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{store.root}: expected vectors, found none yet; `wtl run SOURCE` makes some")
    table = listed(store)
    embedded = vectors.existing_ids(store, last.encoder)
    count = pl.col("classes").list.len()
    known = table.filter(pl.col("classes").is_not_null())
    here = known.filter(pl.col("sample_id").is_in(embedded.implode()))
    label = pl.when(count == 0).then(pl.lit(EMPTY)).otherwise(pl.col("classes").list.first())
    single = here.filter(count <= 1).with_columns(label=label)
    judged = single.filter(pl.len().over("label") >= FOLDS)
    names = judged["label"].unique().sort()
    if len(names) < 2:
        raise ConfigError(
            f"{store.root}: expected labels of two classes or more with at least {FOLDS} images each, found "
            f"{len(names)} of {table.height:,} labels; add labels with classes by `wtl labels add`"
        )
    place = {name: number for number, name in enumerate(names)}
    given = judged["label"].replace_strict(place, return_dtype=pl.Int64).to_numpy()
    unit = functional.normalize(
        torch.from_numpy(vectors.load(store, last.encoder, judged["sample_id"].to_list()).astype(np.float32)), dim=1
    )
    found = opinions(unit.numpy(), given, classes=len(names))
    return Checked(
        table=_as_table(judged, names, given, found),
        checked=judged.height,
        several=here.height - single.height,
        rare=single.height - judged.height,
        unknown=table.height - known.height,
        departed=known.height - here.height,
    )


def opinions(unit_vectors: np.ndarray, labels: np.ndarray, *, classes: int) -> Opinions:
    """What the other rows say of each row's label; see the legend of the module.

    Args:
        unit_vectors: (N, D) float32 of unit length, in an order that says nothing of what they show, such as that of
            sample ids: a row's fold is its place among those of its label, modulo `FOLDS`.
        labels: (N,) int64 in [0, C); each class at least `FOLDS` times.
        classes: C.

    Cost: 2 N^2 D FLOP for neighbours, 60 passes of a product (N, D) x (D, C) for each fold.
    """
    own = np.arange(len(labels))
    probable = _out_of_fold(torch.from_numpy(unit_vectors), torch.tensor(labels), classes)
    neighbours = min(MOST_NEIGHBOURS, max(LEAST_NEIGHBOURS, len(labels) // (2 * classes)))
    votes = _votes(unit_vectors, labels, classes, neighbours)
    by_label = np.bincount(labels, weights=probable[own, labels], minlength=classes)
    threshold = by_label / np.bincount(labels, minlength=classes)
    doubt = probable[own, labels] / threshold[labels] * (votes[own, labels] + 1) / (neighbours + classes)
    best, favourite = probable.argmax(axis=1), votes.argmax(axis=1)
    return Opinions(doubt, best, probable[own, best], favourite, votes[own, favourite], neighbours)


def _out_of_fold(values: torch.Tensor, labels: torch.Tensor, classes: int) -> np.ndarray:
    """(N, C) float64: the probability of each class by a probe that other folds taught."""
    fold = torch.empty_like(labels)
    for label in range(classes):
        rows = torch.nonzero(labels == label).squeeze(1)
        fold[rows] = torch.arange(len(rows)) % FOLDS
    probable = torch.empty(len(labels), classes, dtype=torch.float64)
    for number in range(FOLDS):
        taught, judged = fold != number, fold == number
        with one_thread():
            probe = fit_probe(values[taught], labels[taught], classes=classes)
            probable[judged] = torch.softmax(probe.logits(values[judged]).double(), dim=1)
    return probable.numpy()


def _votes(unit_vectors: np.ndarray, labels: np.ndarray, classes: int, neighbours: int) -> np.ndarray:
    """(N, C) int64: how many of the nearest other rows have which label."""
    near = exact_graph(prepare(unit_vectors), neighbours + 1, near_level=0).rows
    votes = np.zeros((len(labels), classes), np.int64)
    for column in near.T:
        is_other = (column >= 0) & (column != np.arange(len(labels)))
        np.add.at(votes, (np.flatnonzero(is_other), labels[column[is_other]]), 1)
    return votes


def _as_table(judged: pl.DataFrame, names: pl.Series, given: np.ndarray, found: Opinions) -> pl.DataFrame:
    table = judged.with_columns(
        suggestion=names.gather(found.best),
        neighbours=pl.Series(found.votes),
        probability=pl.Series(found.probability),
        doubt=pl.Series(found.doubt),
    )
    text = f"labelled {{}}; {{}} of {found.neighbours} neighbours and the probe say {{}}"
    reason = pl.format(text, "label", "neighbours", "suggestion")
    disagree = pl.Series((found.best != given) & (found.favourite == found.best))
    return table.with_columns(reason=reason).filter(disagree).sort("doubt", "sample_id").select(list(SCHEMA))
