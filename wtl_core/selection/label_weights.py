"""What labels that came back say about which images to label next: a factor on each candidate's weight.

Two models are taught by the labels, both on the frozen vectors and both in seconds: a linear probe, and votes of the
labelled images that fall with distance. Where the two disagree, labels are missing. Where both are unsure alike,
classes overlap, and more labels there teach little: weights by a probe's own uncertainty cost the nearest neighbours
1 to 2 points on balanced pools, and weights by disagreement nothing. Candidates of classes that are rare among the
predictions weigh more, in proportion to how surely they are of such a class. What else was tried is in `docs/log.md`.

Legend: `N` candidates, `L` labelled images, `M` labels (an image of k classes has k, of weight 1 / k), `C` classes.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numba
import numpy as np
import torch

from wtl_core.selection.linear_probe import Probe, fit_probe
from wtl_core.selection.neighbours import (
    BLOCK_COLUMNS,
    BLOCK_ROWS,
    Points,
    as_left,
    bits_to_level,
    level_distances,
)

EMPTY = "(empty)"
"""The class of images in which labelling found nothing."""
_DISAGREEMENT = 5.0
"""How much more a candidate weighs on which the models disagree wholly. From 3 to 10 the results are level on CIFAR-10
with a long tail and without."""
_RARITY = 0.5
"""Power of a class's share by which its candidates weigh more. 0.25 and 0.75 were no better on long tails."""
_LEAST_SHARE = 1e-3
"""Of a class of average size: what a class without any prediction counts as."""
_TEMPERATURE = 0.07
"""Of votes exp(-d^2 / 2 T) for a distance d, as the benchmark's nearest neighbours vote (arXiv 1805.01978). Votes as
wide as the coverage kernel see no difference between classes: by them picks were worse than those of one pass."""
_VOTE_ONE = 1 << 40
"""A vote at distance 0, as a whole number: sums do not depend on their order, and 8 million labels fit."""
_SIZED = 20_000
"""Candidates by which shares of classes are estimated."""
_CHECKED = 4_000
"""Labelled images whose class is predicted by the others, as a check: 0.8 % of error at most."""
_SURE = 3.0
"""Standard errors by which that check must be better than always naming the commonest class."""
_UNSURE = 0.5
"""Disagreement from which a candidate is called unsure: half of the probability goes to other classes."""


@dataclass(frozen=True)
class LabelSay:
    """What the labels say.

    Attributes:
        factors: (N,) float64 above 0, for the weights of the candidates.
        names: C classes, sorted.
        likeliest: (N,) int32, the class that each candidate most likely has, by the mean of both models.
        second: (N,) int32, the next one.
        disagreement: (N,) float32 between 0 and 1, half the summed difference of the models' probabilities.
        labelled: Labelled images whose classes are known.
        agreement: Share of labelled images whose class the votes of the others name.
        commonest: Share of the commonest class among the labels, which naming it always would reach.
        is_heard: Whether the factors count.
    """

    factors: np.ndarray
    names: list[str]
    likeliest: np.ndarray
    second: np.ndarray
    disagreement: np.ndarray
    labelled: int
    agreement: float
    commonest: float
    is_heard: bool

    def facts(self) -> dict[str, Any]:
        """For the receipt."""
        return {
            "is_heard": self.is_heard,
            "labelled": self.labelled,
            "classes": len(self.names),
            "agreement": round(self.agreement, 4),
            "commonest": round(self.commonest, 4),
        }

    def sentence(self) -> str:
        """What a run tells of them."""
        given = f"Labels of {self.labelled:,} images in {len(self.names):,} classes"
        check = f"by the others {self.agreement:.0%} get their class, the commonest class is {self.commonest:.0%}"
        return (
            f"{given} steer the picks ({check})." if self.is_heard else f"{given} do not steer the picks yet: {check}."
        )

    def reason(self, row: int) -> str:
        """What the labels say of a candidate, in words."""
        first, second = self.names[self.likeliest[row]], self.names[self.second[row]]
        return f"unsure between {first} and {second}" if self.disagreement[row] >= _UNSURE else f"like {first}"


def listen(
    candidates: Points,
    vectors: np.ndarray,
    labelled: Points,
    labelled_vectors: np.ndarray,
    classes: Sequence[Sequence[str] | None],
    *,
    order: np.ndarray,
    mode: Literal["auto", "use"] = "auto",
) -> LabelSay | None:
    """What the labels say of the candidates; None where they name fewer than two classes.

    Deterministic: votes are whole numbers, and the probe is fitted by one thread.

    Args:
        candidates: N points to choose from.
        vectors: (N, D) of unit length, the same.
        labelled: L points.
        labelled_vectors: (L, D) of unit length, the same.
        classes: Of each labelled image; none for an image that holds nothing of interest, None where not known.
        order: (N,) the candidates in an order that depends on their ids alone.
        mode: `use` lets the factors count in any case, `auto` where labelled images name each other's classes surely
            better than always naming the commonest one would.

    Cost: 2 N L D FLOP for the votes; 100,000 x 256 candidates and 10,000 labels of 200 classes take some 4 s.
    """
    rows, codes, weights, names = _labels_of(classes)
    if len(names) < 2:
        return None
    votes = _Voters(labelled, rows, codes, weights, len(names))
    shares = np.bincount(codes, weights=weights, minlength=len(names)) / weights.sum()
    with _one_thread():
        probe = _taught(labelled_vectors, rows, codes, weights, len(names))

    def predict(points: Points, of: np.ndarray) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        for part, voted in votes.of(points):
            with _one_thread():
                probed = probe.logits(torch.from_numpy(of[part].astype(np.float32))).softmax(1).numpy()
            yield part, probed, voted

    sized = np.sort(order[:_SIZED])
    sizes = np.zeros(len(names))
    for _, probed, voted in predict(candidates.subset(sized), vectors[sized]):
        sizes += np.bincount((probed + voted).argmax(1), minlength=len(names))
    rarity = np.maximum(sizes / len(sized), _LEAST_SHARE / len(names)) ** -_RARITY

    count = candidates.count
    factors, disagreement = np.empty(count), np.empty(count, np.float32)
    likeliest, second = np.empty(count, np.int32), np.empty(count, np.int32)
    for part, probed, voted in predict(candidates, vectors):
        both = (probed + voted) / 2.0
        disagreement[part] = np.abs(probed - voted).sum(1) / 2.0
        factors[part] = (1.0 + _DISAGREEMENT * disagreement[part]) * (both @ rarity)
        at = np.arange(len(both))
        likeliest[part] = both.argmax(1)
        both[at, likeliest[part]] = -1.0
        second[part] = both.argmax(1)
    agreement, commonest = _agreement(labelled, rows, codes, weights, len(names)), float(shares.max())
    images = len(np.unique(rows))
    error = (commonest * (1.0 - commonest) / min(images, _CHECKED)) ** 0.5
    return LabelSay(
        factors=factors,
        names=names,
        likeliest=likeliest,
        second=second,
        disagreement=disagreement,
        labelled=images,
        agreement=agreement,
        commonest=commonest,
        is_heard=mode == "use" or agreement > commonest + _SURE * error,
    )


def _labels_of(classes: Sequence[Sequence[str] | None]) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Labelled image, class and weight of each label, (M,) each, and the C names; images of unknown class have none."""
    named = [(row, list(found) or [EMPTY]) for row, found in enumerate(classes) if found is not None]
    names = sorted({name for _, found in named for name in found})
    code = {name: number for number, name in enumerate(names)}
    rows = np.array([row for row, found in named for _ in found], np.int64)
    codes = np.array([code[name] for _, found in named for name in found], np.int64)
    weights = np.array([1.0 / len(found) for _, found in named for _ in found])
    return rows, codes, weights, names


def _taught(vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray, weights: np.ndarray, classes: int) -> Probe:
    """The probe; an image of several classes is of each in part."""
    images, at = np.unique(rows, return_inverse=True)
    target = np.zeros((len(images), classes), np.float32)
    np.add.at(target, (at, codes), weights)
    return fit_probe(
        torch.from_numpy(vectors[images].astype(np.float32)), torch.from_numpy(target), classes=classes
    )  # fmt: skip


class _Voters:
    """The labels, ready to vote on any points."""

    def __init__(
        self, labelled: Points, rows: np.ndarray, codes: np.ndarray, weights: np.ndarray, classes: int
    ) -> None:
        whole = (
            -(-len(rows) // BLOCK_ROWS) * BLOCK_ROWS
        )  # in blocks of one shape, so that no sum depends on their number
        padded = np.zeros(whole, np.int64)
        padded[: len(rows)] = rows
        self.left = as_left(labelled.right[torch.from_numpy(padded).to(labelled.right.device)], labelled.dimensions)
        self.codes, self.classes = codes, classes
        votes = np.exp(-(level_distances() ** 2) / 2.0 / _TEMPERATURE) * _VOTE_ONE
        parts = np.rint(1.0 / weights).astype(np.int64)
        self.kinds = parts - 1
        self.table = np.stack([np.rint(votes / part) for part in range(1, int(parts.max()) + 1)]).astype(np.int64)
        self.prior = np.bincount(codes, weights=weights, minlength=classes) / weights.sum()

    def of(self, points: Points, own: np.ndarray | None = None) -> Iterator[tuple[slice, np.ndarray]]:
        """Parts of the points, and the probabilities of their classes by the votes, (rows, C) float64.

        With `own` (M,) a label has no vote on the point of that number. Points that nobody votes on get the shares of
        the classes among the labels.
        """
        own = np.full(len(self.codes), -1) if own is None else own
        width = BLOCK_COLUMNS // torch.get_num_threads() + 1
        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            for start in range(0, points.count, BLOCK_COLUMNS):
                stop = min(start + BLOCK_COLUMNS, points.count)
                votes = np.zeros((self.classes, stop - start), np.int64)
                for first in range(0, len(self.codes), BLOCK_ROWS):
                    bits = points.product(self.left[first : first + BLOCK_ROWS], start, start + BLOCK_COLUMNS).cpu()
                    mine = slice(first, first + BLOCK_ROWS)
                    jobs = [
                        threads.submit(
                            _add_votes, bits.numpy(), self.table, self.kinds[mine], self.codes[mine], own[mine] - start,
                            column, min(column + width, stop - start), votes,
                        )
                        for column in range(0, stop - start, width)
                    ]  # fmt: skip
                    for job in jobs:
                        job.result()
                share = votes.T + self.prior
                yield slice(start, stop), share / share.sum(1, keepdims=True)


@numba.njit(cache=True, nogil=True)
def _add_votes(
    bits: np.ndarray, table: np.ndarray, kinds: np.ndarray, codes: np.ndarray, own: np.ndarray,
    begin: int, end: int, votes: np.ndarray,
) -> None:  # fmt: skip
    """Add the votes of the labels (rows of `bits`) on the points `begin` to `end` (columns) to `votes` (C, points)."""
    for row in range(codes.shape[0]):
        line, target, values = bits[row], votes[codes[row]], table[kinds[row]]
        for column in range(begin, end):
            target[column] += values[bits_to_level(line[column])]
        if begin <= own[row] < end:
            target[own[row]] -= values[bits_to_level(line[own[row]])]


def _agreement(labelled: Points, rows: np.ndarray, codes: np.ndarray, weights: np.ndarray, classes: int) -> float:
    """Share of labelled images, some thousand at most, one of whose classes the votes of all others name."""
    images = np.unique(rows)
    checked = images[np.linspace(0, len(images) - 1, min(len(images), _CHECKED)).astype(np.int64)]
    place = np.full(labelled.count, -1)
    place[checked] = np.arange(len(checked))
    has_class = np.zeros((len(checked), classes), bool)
    asked = place[rows] >= 0
    has_class[place[rows[asked]], codes[asked]] = True
    voters, hits = _Voters(labelled, rows, codes, weights, classes), 0
    for part, voted in voters.of(labelled.subset(checked), place[rows]):
        hits += int(has_class[part][np.arange(len(voted)), voted.argmax(1)].sum())
    return hits / len(checked)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: sums over rows, split among threads, would depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
