"""A linear classifier on frozen vectors: what a few labels teach in seconds. Works on tensors.

Legend: `N` rows, `D` dimensions, `C` classes.
"""

import inspect
from dataclasses import dataclass

import torch
from torch.nn import functional

_PENALTY, _MOST_PENALTY = 6.0, 0.01
"""On squared weights: 6 / rows, at most 0.01. Over seven sets 3 to 10 are level; long tails prefer the lower end."""
_EQUAL_PENALTY, _MOST_EQUAL_PENALTY = 20.0, 0.1
"""The same where all numbers are scaled to one size."""
_ITERATIONS = 60  # of L-BFGS


class _LBFGS(torch.optim.LBFGS):
    """Without the guard against torch's compiler, whose import takes a second of each run."""

    add_param_group = inspect.unwrap(torch.optim.LBFGS.add_param_group)


@dataclass(frozen=True)
class Probe:
    """A fitted linear classifier on centred and scaled vectors."""

    mean: torch.Tensor
    scale: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor

    def logits(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, C)."""
        return self.scaled(vectors) @ self.weight + self.bias

    def scaled(self, vectors: torch.Tensor) -> torch.Tensor:
        """(N, D), what the weights are applied to."""
        return (vectors.float() - self.mean) / self.scale


def fit_probe(
    vectors: torch.Tensor,
    labels: torch.Tensor,
    *,
    classes: int,
    is_equalised: bool = False,
    dropout: float = 0.0,
    generator: torch.Generator | None = None,
) -> Probe:
    """Multinomial logistic regression by L-BFGS from zero: convex, so no draws.

    The vectors are scaled as a whole, so that the main directions of the features count most: from few labels little
    can be learnt of the others. 250 labels give 61 % on photographs of clothes and 66 on CIFAR-10, where 44 and 51 are
    reached with each number scaled to a deviation of 1 (`is_equalised`, 2026-12-02).

    The penalty on the squared weights falls with the rows, as 6 over their number and at most 0.01, for all strategies.

    With `dropout`, dimensions are left out at random in eight copies of each row, drawn once with `generator`.
    """
    values = vectors.float()
    mean, scale = values.mean(0), values.std(0, unbiased=False)
    factor, most = (_EQUAL_PENALTY, _MOST_EQUAL_PENALTY) if is_equalised else (_PENALTY, _MOST_PENALTY)
    penalty = min(most, factor / len(values))
    scale = (scale if is_equalised else scale.square().mean().sqrt()).clamp(min=1e-4)
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
