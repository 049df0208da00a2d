"""Active learning as a baseline: train, query, wait for labels, train again.

Each round's model is also the judge, trained on the same images or vectors as for all strategies, so its accuracy at a
budget is that of the model that a user of the loop would have. A model with dropout only asks for labels: its picks
are judged by one trained without, as those of all strategies are. Not here: which labels are asked for (`queries`).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch

from wtl_core.benchmark import judges, network, queries
from wtl_core.benchmark.network import ScratchRecipe
from wtl_core.benchmark.queries import Predictions
from wtl_core.benchmark.stored_images import StoredImages
from wtl_core.selection import linear_probe

DROPOUT, DRAWS = 0.3, 100  # share of inputs that a draw leaves out, and draws
CHUNK = 1024  # rows in one product of Monte-Carlo draws
Model = Literal["probe", "scratch"]


class Learner(Protocol):
    """A model that is trained from scratch on labelled rows of a pool, and then predicts others."""

    device: torch.device

    def fit(self, rows: np.ndarray, seed: int) -> None:
        """Train on these rows of the pool."""

    def accuracy(self) -> float:
        """On the test split, of the judge that all strategies share, trained on the rows of the last `fit`."""

    def predict(self, rows: np.ndarray, labelled: np.ndarray, *, has_draws: bool) -> Predictions:
        """Predictions for some rows of the pool."""


@dataclass(frozen=True)
class Round:
    """What a round gave: `picks`, all rows that are labelled; `seconds`, of training and asking before it.

    `accuracy` is NaN in rounds that are not reported.
    """

    picks: np.ndarray
    rounds: int
    label_waits: int
    seconds: float
    accuracy: float
    train_seconds: float


def label_counts(budgets: list[int], *, rounds: int) -> list[int]:
    """Labels known at each round, rising: a fifth of the first budget, then `rounds` even steps to each budget."""
    known = [min(budgets[0], max(2, budgets[0] // 5))]
    for budget in budgets:
        start = known[-1]
        known += [start + (budget - start) * (step + 1) // rounds for step in range(rounds)]
    return list(dict.fromkeys(known))


def run_loop(
    query: str,
    learner: Learner,
    labels: np.ndarray,
    counts: list[int],
    *,
    reported: Collection[int],
    start: np.ndarray,
    seed: int,
    candidates: int,
    last: Round | None = None,
) -> Iterator[Round]:
    """Rounds of one loop.

    As long as no label names a class there is no model: accuracy is 0, and the next labels are asked for at random.

    Args:
        query: See `queries.ask`.
        learner: Trained from nothing in each round.
        labels: (N,) of the pool; below 0 is an image without a class, which is labelled in vain.
        counts: Labels known at each round, rising.
        reported: Those of the counts at which accuracy is measured; it costs test images, and with dropout a training.
        start: The pool's rows in random order; the first round's labels are its first.
        seed: Of weights, candidates and queries.
        candidates: Unlabelled rows, drawn anew each round, that are looked at; more where a round asks for more.
        last: A finished round to go on from; its model is trained again, which takes no time on the record.
    """
    known, seconds, first, has_model = start[: counts[0]], 0.0, 0, False
    if last is not None:
        known, seconds, first = last.picks, last.seconds + last.train_seconds, last.rounds + 1
        if first < len(counts):
            has_model = _fit(learner, known[labels[known] >= 0], seed)
    for number, count in list(enumerate(counts))[first:]:
        generator = torch.Generator().manual_seed(seed * 1000 + number)
        if number:
            began = judges.clock(learner.device)
            free, wanted = np.setdiff1d(start, known), count - len(known)
            looked = free[torch.randperm(len(free), generator=generator)[: max(candidates, wanted)].numpy()]
            asked = looked[:wanted]
            if has_model:
                predictions = learner.predict(looked, known, has_draws=query == "mc-dropout")
                asked = looked[queries.ask(query, predictions, wanted, generator=generator).numpy()]
            known = np.concatenate([known, asked])
            seconds += judges.clock(learner.device) - began
        began = judges.clock(learner.device)
        has_model = _fit(learner, known[labels[known] >= 0], seed)
        train_seconds = judges.clock(learner.device) - began
        accuracy = float("nan")
        if count in reported:
            accuracy = learner.accuracy() if has_model else 0.0
        yield Round(known, number, number + 1, seconds, accuracy, train_seconds)
        seconds += train_seconds


def _fit(learner: Learner, usable: np.ndarray, seed: int) -> bool:
    """Train on the rows whose label names a class, if there is one; whether there was."""
    if len(usable):
        learner.fit(usable, seed)
    return len(usable) > 0


class ProbeLearner:
    """The linear probe on the vectors."""

    def __init__(
        self,
        vectors: torch.Tensor,
        labels: torch.Tensor,
        test_vectors: torch.Tensor,
        test_labels: torch.Tensor,
        *,
        classes: int,
        dropout: float = 0.0,
    ) -> None:
        self.vectors, self.labels, self.classes, self.dropout = vectors, labels, classes, dropout
        self.device = vectors.device
        self.test_vectors, self.test_labels = test_vectors, test_labels
        self.generator = torch.Generator()

    def fit(self, rows: np.ndarray, seed: int) -> None:
        """Train on these rows of the pool."""
        self.generator.manual_seed(seed)
        self.rows = judges.as_device(rows, self.device)
        self.probe = self._trained(self.dropout)

    def accuracy(self) -> float:
        """On the test split, by a probe trained without dropout."""
        judge = self._trained(0.0) if self.dropout else self.probe
        return judges.probe_accuracy(judge, self.test_vectors, self.test_labels)

    def predict(self, rows: np.ndarray, labelled: np.ndarray, *, has_draws: bool) -> Predictions:
        """Features are the vectors themselves; draws leave out dimensions of them."""
        looked = self.vectors[judges.as_device(rows, self.device)]
        drawn = None
        if has_draws:
            masks = linear_probe.dropout_mask((DRAWS, looked.shape[1]), self.dropout, self.generator, self.device)
            drawn = mean_of_draws(self.probe.scaled(looked), self.probe.weight, self.probe.bias, masks)
        known = self.vectors[judges.as_device(labelled, self.device)]
        return Predictions(self.probe.logits(looked).softmax(dim=1), looked.float(), known.float(), drawn)

    def _trained(self, dropout: float) -> linear_probe.Probe:
        vectors, labels = self.vectors[self.rows], self.labels[self.rows]
        return linear_probe.fit_probe(vectors, labels, classes=self.classes, dropout=dropout, generator=self.generator)


class ScratchLearner:
    """The network trained from scratch on the images."""

    def __init__(
        self,
        images: StoredImages,
        labels: torch.Tensor,
        test_images: torch.Tensor,
        test_labels: torch.Tensor,
        *,
        classes: int,
        recipe: ScratchRecipe,
    ) -> None:
        self.images, self.labels, self.classes, self.recipe = images, labels, classes, recipe
        self.device = labels.device
        self.test_images, self.test_labels = test_images, test_labels
        self.generator = torch.Generator()

    def fit(self, rows: np.ndarray, seed: int) -> None:
        """Train on these rows of the pool."""
        self.generator.manual_seed(seed)
        self.rows, self.chosen, self.seed = rows, judges.as_device(rows, self.device), seed
        self.network = self._trained(self.recipe)

    def accuracy(self) -> float:
        """On the test split, by a network trained without dropout."""
        judge = self._trained(replace(self.recipe, dropout=0.0)) if self.recipe.dropout else self.network
        return network.accuracy(judge, self.test_images, self.test_labels, has_flips=self.recipe.has_flips)

    def predict(self, rows: np.ndarray, labelled: np.ndarray, *, has_draws: bool) -> Predictions:
        """Features are the pooled ones before the last layer; draws drop some of them."""
        logits, features = network.describe(self.network, judges.as_device(self.images[rows], self.device))
        known = network.describe(self.network, judges.as_device(self.images[labelled], self.device))[1]
        drawn = None
        if has_draws:
            masks = linear_probe.dropout_mask(
                (DRAWS, features.shape[1]), self.recipe.dropout, self.generator, self.device
            )
            head = self.network.head
            drawn = mean_of_draws(features, head.weight.detach().T, head.bias.detach(), masks)
        return Predictions(logits.softmax(dim=1), features, known, drawn)

    def _trained(self, recipe: ScratchRecipe) -> network.ScratchNetwork:
        images, labels = judges.as_device(self.images[self.rows], self.device), self.labels[self.chosen]
        return network.train(images, labels, classes=self.classes, recipe=recipe, seed=self.seed)


def mean_of_draws(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """A linear classifier's mean prediction over draws that drop some of its inputs, (N, C).

    Args:
        inputs: (N, D).
        weight: (D, C).
        bias: (C,).
        masks: (T, D) factors on the inputs, a row for each draw.
    """
    weights = masks.unsqueeze(2) * weight
    # rows in chunks: all draws of all rows would be T x N x C numbers
    return torch.cat([(chunk @ weights + bias).softmax(dim=2).mean(dim=0) for chunk in torch.split(inputs, CHUNK)])
