"""What labels that came back say about which images to label next, as a factor on each candidate's weight.

Two models are taught by the labels, both on the frozen vectors and both in seconds: a linear probe, and votes of the
labelled images that fall with distance. All directions count alike to the probe, and the main ones most to the votes,
so that they are two opinions. Where the two disagree, labels are missing. Where both are unsure alike, classes overlap,
and more labels there teach little: weights by a probe's own uncertainty cost the nearest neighbours 1 to 2 points on
balanced pools, and weights by disagreement nothing. Candidates of classes that are rare among the predictions weigh
more, in proportion to how surely they are of such a class.

Where the vectors tell classes apart, borders between them are worth labels: there a candidate weighs more, too, the
less sure a third model is, a probe to which the main directions count most. That counts much where classes are uneven,
and a little, as their labels grow many, where they are not. What else was tried is in `docs/log.md`.

Legend: `N` candidates, `L` labelled images, `K` of them with known classes, `C` classes, `D` dimensions.
"""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from wtl_core.machine import one_thread
from wtl_core.selection.dense import FETCH_ROWS
from wtl_core.selection.label_votes import OTHER, Votes
from wtl_core.selection.linear_probe import Probe, fit_probe
from wtl_core.selection.neighbours import BLOCK_COLUMNS, Points

_DISAGREEMENT = 5.0
"""How much more a candidate weighs on which the models disagree wholly. From 3 to 10 the results are level on CIFAR-10
with a long tail and without."""
_RARITY = 0.5
"""Power of a class's share by which its candidates weigh more. 0.25 and 0.75 were no better on long tails."""
_DOUBT = 10.0
"""How much more a candidate weighs whose two likeliest classes are equally likely, in a pool of a single class and by
labels that name each other always. By 20, results are level on two long tails of Fashion-MNIST."""
_CLEARNESS, _LEAST_DOUBT = 4, 1.0
"""Power of how well labels name each other, with which doubt counts, and the least of `_DOUBT` that does. With less
counted too, 20-NN accuracy fell by 0.8 to 1.6 on photographs of clothes, whose labels name 60 % of each other. By the
eighth power two long tails gain up to 0.5 points less, and one with bursts up to 0.5 more."""
_LATE_DOUBT, _LATE = 3.0, 100
"""How much more such a candidate weighs beside, whatever the sizes of classes, once a class has very many labels, and
labels of a class with which it weighs half of that. Without it a probe loses 0.9 and 1.0 points at 2,500 and 5,000
labels of balanced CIFAR-10 by the default encoder; with it 20-NN loses 0.2 to 0.3."""
_TAUGHT = 4_000
"""Labelled images that the third model learns from, at most: 10,000 of 200 classes would take two seconds."""
_LEAST_SHARE = 1e-3
"""Of a class of average size: what a class without any prediction counts as."""
_LIKE, _UNSURE_BETWEEN, _AND = "like ", "unsure between ", " and "
_BLOCK = 4096
"""Candidates whose probabilities are in memory at once."""
_SIZED = 20_000
"""Candidates by which shares of classes are estimated."""
_CHECKED = 2_000
"""Labelled images whose class is predicted by the others, as a check: 1.1 % of error at most."""
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
        likeliest: (N,) int32, the class that each candidate most likely has, by the mean of both models; of several
            that it most likely has together, the rarest.
        second: (N,) int32, the next one; of several together the next rarest, as its complement (`~`, below zero).
        disagreement: (N,) float32 between 0 and 1, half the summed difference of the models' probabilities.
        labelled: Labelled images whose classes are known.
        agreement: Share of labelled images whose class, or all of whose classes, the votes of the others name.
        commonest: Share of labelled images that have the commonest class, or the commonest ones together, which naming
            them always would reach.
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
        check = f"the labels of the others name {100 * self.agreement:.0f} % of them right"
        beside = f"always naming the commonest class would {100 * self.commonest:.0f} %"
        return f"{given} {'steer the picks' if self.is_heard else 'do not steer the picks yet'}: {check}, {beside}."

    def reason(self, row: int) -> str:
        """What the labels say of a candidate, in words."""
        code = int(self.second[row])
        has_both = code < 0
        first, second = self.names[self.likeliest[row]], self.names[~code if has_both else code]
        if self.disagreement[row] >= _UNSURE:
            return f"{_UNSURE_BETWEEN}{first}{_AND}{second}"
        return f"{_LIKE}{first}{_AND}{second}" if has_both else f"{_LIKE}{first}"


def is_like(reason: str) -> bool:
    """Whether the text is of an image that is of all classes that it names, and not of one of them."""
    return reason.startswith(_LIKE)


def likely_classes(reason: str, names: Collection[str]) -> list[str]:
    """The classes, out of `names` and `OTHER`, that a text of `LabelSay.reason` speaks of; empty if it is of others.

    Names may hold ` and ` themselves. Where a text can be read in several ways, the classes of all of them are given.
    """
    known = {*names, OTHER}
    text = reason.removeprefix(_LIKE if is_like(reason) else _UNSURE_BETWEEN)
    words = text.split(_AND)
    readings: list[tuple[str, ...]] = [
        (_AND.join(words[:count]), _AND.join(words[count:])) for count in range(1, len(words))
    ]
    if is_like(reason):
        readings.insert(0, (text,))
    return list(dict.fromkeys(name for names in readings if known.issuperset(names) for name in names))


def listen(
    votes: Votes,
    vectors: np.ndarray,
    labelled: Points,
    labelled_vectors: np.ndarray,
    *,
    order: np.ndarray,
    always: bool = False,
) -> LabelSay:
    """What the labels say of the candidates, if they name two classes or more; arguments as for `learn`."""
    return learn(votes, vectors, labelled, labelled_vectors, order=order, always=always).say(votes, vectors)


@dataclass(frozen=True)
class Lesson:
    """What the labels teach, by which they speak of any candidates.

    Attributes:
        votes: The labelled images' classes, and votes on nobody.
        probe: The linear model to which all directions count alike.
        doubter: The one to which the main directions count most; None where its doubt is worth nothing.
        doubt: How much more a candidate weighs that it wholly doubts.
        rarity: (C,) float64, by which candidates of a class weigh more.
        agreement: As in `LabelSay`, and `commonest` and `is_heard` too.
    """

    votes: Votes
    probe: Probe
    doubter: Probe | None
    doubt: float
    rarity: np.ndarray
    agreement: float
    commonest: float
    is_heard: bool

    def say(self, votes: Votes, vectors: np.ndarray) -> LabelSay:
        """What they say of N candidates, by the votes on these and their (N, D) vectors of unit length."""
        count = len(vectors)
        factors, disagreement = np.empty(count), np.empty(count, np.float32)
        likeliest, second = np.empty(count, np.int32), np.empty(count, np.int32)
        for start in range(0, count, _BLOCK):
            part = slice(start, min(start + _BLOCK, count))
            probed, voted = _predict(self.probe, votes, vectors, part)
            both = (probed + voted) / 2.0
            disagreement[part] = np.abs(probed - voted).sum(1) / 2.0
            factors[part] = (1.0 + _DISAGREEMENT * disagreement[part]) * (both @ self.rarity)
            if self.doubter is not None:
                factors[part] *= 1.0 + self.doubt * _doubt(_probed(self.doubter, vectors[part]))
            at = np.arange(len(both))
            members = None if self.votes.sets.are_single else self.votes.sets.named(both)
            likeliest[part] = both.argmax(1)
            both[at, likeliest[part]] = -1.0
            second[part] = both.argmax(1)
            if members is not None:
                likeliest[part], second[part] = self._together(members, likeliest[part], second[part])
        return LabelSay(
            factors=factors,
            names=self.votes.names,
            likeliest=likeliest,
            second=second,
            disagreement=disagreement,
            labelled=len(self.votes.known),
            agreement=self.agreement,
            commonest=self.commonest,
            is_heard=self.is_heard,
        )

    def _together(
        self, members: np.ndarray, likeliest: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`LabelSay.likeliest` and `second`: the given ones but where (n, C) bool `members` name several classes."""
        weights = members * self.rarity
        rarest = weights.argmax(1)
        weights[np.arange(len(members)), rarest] = -1.0
        has_both = members.sum(1) > 1
        return np.where(has_both, rarest, likeliest), np.where(has_both, ~weights.argmax(1), second)


def learn(
    votes: Votes,
    vectors: np.ndarray,
    labelled: Points,
    labelled_vectors: np.ndarray,
    *,
    order: np.ndarray,
    always: bool = False,
) -> Lesson:
    """Teach both models by the labels, which name two classes or more.

    Args:
        votes: Of all labelled images on N candidates, or on a sample of them.
        vectors: (N, D) of the candidates, of unit length.
        labelled: L points.
        labelled_vectors: (L, D) of unit length, the same.
        order: (N,) the candidates in an order that depends on their ids alone.
        always: Let the factors count in any case; else only where labelled images name each other's classes surely
            better than always naming the commonest one would.
    """
    known = votes.known
    given, target = torch.from_numpy(labelled_vectors[known].astype(np.float32)), torch.from_numpy(votes.target)
    with one_thread():
        probe = fit_probe(given, target, classes=len(votes.names), is_equalised=True)
    sized = np.sort(order[:_SIZED])
    sizes = votes.sets.named(np.add(*_predict(probe, votes, vectors, sized)) / 2.0).sum(0)
    shares = np.maximum(sizes / sizes.sum(), _LEAST_SHARE / len(votes.names))
    agreement, commonest = _agreement(votes, labelled), votes.sets.commonest
    error = (commonest * (1.0 - commonest) / min(len(known), _CHECKED)) ** 0.5
    clearness = max(0.0, (agreement - commonest) / max(1.0 - commonest, 1e-9))
    uneven = _DOUBT * _unevenness(shares)
    late = _LATE_DOUBT * len(known) / (len(known) + _LATE * len(votes.names))
    doubt = clearness**_CLEARNESS * (late + (uneven if uneven * clearness**_CLEARNESS >= _LEAST_DOUBT else 0.0))
    doubter = None
    if votes.sets.are_single and doubt > 0.0:  # of several classes none need be likely
        some = np.linspace(0, len(known) - 1, min(len(known), _TAUGHT)).astype(np.int64)
        with one_thread():
            doubter = fit_probe(given[some], target[some], classes=len(votes.names))
    return Lesson(
        votes=votes.of_others(0, votes.own),
        probe=probe,
        doubter=doubter,
        doubt=doubt,
        rarity=shares**-_RARITY,
        agreement=agreement,
        commonest=commonest,
        is_heard=always or agreement > commonest + _SURE * error,
    )


def _predict(
    probe: Probe, votes: Votes, vectors: np.ndarray, rows: np.ndarray | slice
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the classes by the probe and by the votes, (rows, C) each."""
    return _probed(probe, vectors[rows]), votes.shares(rows)


def _probed(probe: Probe, vectors: np.ndarray) -> np.ndarray:
    """(n, C) float32, probabilities of the classes by a probe."""
    with one_thread():
        return np.asarray(probe.logits(torch.from_numpy(vectors.astype(np.float32))).softmax(1).numpy())


def _doubt(probabilities: np.ndarray) -> np.ndarray:
    """(n,) from 0, where one class is certain, to 1, where the two likeliest of (n, C) are equally likely."""
    first, second = np.partition(-probabilities, 1, axis=1)[:, :2].T
    return np.asarray(1.0 + first - second)


def _unevenness(shares: np.ndarray) -> float:
    """From 0, for C classes of one size, to 1 - 1 / C, for a single class; by exp(entropy), the classes that count."""
    return 1.0 - float(np.exp(-(shares * np.log(shares)).sum() / shares.sum())) / len(shares)


def _agreement(votes: Votes, labelled: Points) -> float:
    """Share of labelled images, some thousand at most, whose classes, and no others, the votes of all others name."""
    known = votes.known
    asked = np.linspace(0, len(known) - 1, min(len(known), _CHECKED)).astype(np.int64)
    checked = known[asked]
    place = np.full(labelled.count, -1)
    place[checked] = np.arange(len(checked))
    points, others = labelled.subset(checked), votes.of_others(len(checked), place)
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for row in range(0, labelled.count, FETCH_ROWS):
            left = labelled.left_slice(row, min(row + FETCH_ROWS, labelled.count))
            for column in range(0, points.count, BLOCK_COLUMNS):
                bits = points.product(left, column, column + BLOCK_COLUMNS).cpu().numpy()
                others.add(bits[:, : points.count - column], row, column, threads)
    given = votes.target[asked] > 0
    told = votes.sets.named_by_others(others.shares(slice(None)), given)
    return float((told == given).all(1).mean())
