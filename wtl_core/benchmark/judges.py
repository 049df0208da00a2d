"""Accuracy that the chosen images reach, by their vectors: 20 nearest neighbours, or a linear probe. Works on arrays.

Not here: the network trained from scratch (`network`). Legend: `N` rows, `D` dimensions, `C` classes.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

NEIGHBOURS = 20
_TEMPERATURE = 0.07  # of the votes, as in arXiv 1805.01978
_PENALTY, _MOST_PENALTY = 20.0, 0.1  # on squared weights: 20 / rows, at most 0.1
_ITERATIONS = 60  # of L-BFGS
_BLOCK = 4096  # test rows in one product


def nearest_accuracy(
    vectors: torch.Tensor, labels: torch.Tensor, test_vectors: torch.Tensor, test_labels: torch.Tensor, *, classes: int
) -> float:
    """Share of test rows that their 20 nearest labelled rows name right, each with a vote of exp(cosine / 0.07).

    All arguments on one device. Source: arXiv 1805.01978, whose weights keep few labels from all having one say.
    """
    train = functional.normalize(vectors.float(), dim=1)
    hits = 0
    for rows, answers in zip(torch.split(test_vectors, _BLOCK), torch.split(test_labels, _BLOCK), strict=True):
        similar = functional.normalize(rows.float(), dim=1) @ train.T
        near = similar.topk(min(NEIGHBOURS, len(train)), dim=1)
        votes = torch.zeros(len(rows), classes, device=rows.device)
        votes.scatter_add_(1, labels[near.indices], torch.exp((near.values - 1.0) / _TEMPERATURE))
        hits += int((votes.argmax(dim=1) == answers).sum())
    return hits / len(test_labels)


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier on standardised vectors."""

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, C)."""
        return self.standardised(vectors) @ self.weight + self.bias

    def standardised(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, D), what the weights are applied to."""
        return (vectors.float() - self.mean) / self.scale


def fit_probe(
    vectors: torch.Tensor,
    labels: torch.Tensor,
    *,
    classes: int,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Probe:
    """Multinomial logistic regression by L-BFGS from zero: convex, so no draws.

    The penalty on the squared weights falls with the rows, as 20 over their number and at most 0.1, for all strategies.

    With `dropout`, dimensions are left out at random in eight copies of each row, drawn once with `generator`.
    """
    values = vectors.float()
    mean, scale = values.mean(0), values.std(0, unbiased=False).clamp(min=1e-4)
    penalty = min(_MOST_PENALTY, _PENALTY / len(values))
    ready, answers = (values - mean) / scale, labels
    if dropout > 0.0:
        ready, answers = ready.repeat(8, 1), labels.repeat(8)
        ready = ready * dropout_mask(ready.shape, dropout, generator, ready.device)
    weight = torch.zeros(values.shape[1], classes, device=values.device, requires_grad=True)
    bias = torch.zeros(classes, device=values.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(ready @ weight + bias, answers) + penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Probe(mean, scale, weight.detach(), bias.detach())


def probe_accuracy(probe: Probe, test_vectors: torch.Tensor, test_labels: torch.Tensor) -> float:
    """Share of test rows that the probe names right."""
    return float((probe.logits(test_vectors).argmax(dim=1) == test_labels).float().mean())


def dropout_mask(
    shape: tuple[int, ...] | torch.Size, share: float, generator: torch.Generator | None, device: torch.device
) -> torch.Tensor:
    """Zeros for a share of the places, 1 / (1 - share) elsewhere; drawn on the CPU, so alike on every device."""
    kept = torch.rand(shape, generator=generator) >= share
    return (kept.float() / (1.0 - share)).to(device)


def clock(device: torch.device) -> float:
    """Seconds by `time.perf_counter`, once all work that was given to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def as_device(array: np.ndarray, device: torch.device | str) -> torch.Tensor:
    """The array as a tensor of its own on `device`."""
    return torch.from_numpy(np.array(array)).to(device)
