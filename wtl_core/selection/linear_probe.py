"""A linear classifier on frozen vectors: what a few labels teach in seconds. Works on tensors.

Legend: `N` rows, `D` dimensions, `C` classes.
"""

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn import functional

_PENALTY, _MOST_PENALTY = 20.0, 0.1  # on squared weights: 20 / rows, at most 0.1
_ITERATIONS = 60  # of L-BFGS
_setting_threads = threading.Lock()


class _LBFGS(torch.optim.LBFGS):
    """Without the guard against torch's compiler, whose import takes a second of each run."""

    add_param_group = inspect.unwrap(torch.optim.LBFGS.add_param_group)


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
    optimizer = _LBFGS([weight, bias], max_iter=_ITERATIONS, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        weight.grad = bias.grad = None
        loss = functional.cross_entropy(ready @ weight + bias, answers) + penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return Probe(mean, scale, weight.detach(), bias.detach())


def dropout_mask(
    shape: tuple[int, ...] | torch.Size, share: float, generator: torch.Generator | None, device: torch.device
) -> torch.Tensor:
    """Zeros for a share of the places, 1 / (1 - share) elsewhere; drawn on the CPU, so alike on every device."""
    kept = torch.rand(shape, generator=generator) >= share
    return (kept.float() / (1.0 - share)).to(device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: sums over rows, split among threads, would depend on their number.

    The setting is the whole process's: one ranking at a time changes it.
    """
    with _setting_threads:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
