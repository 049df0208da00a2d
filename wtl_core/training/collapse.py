"""Signs that training has collapsed: four figures of the features, without labels, and the error that ends it."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from wtl_core.errors import InputError

NEIGHBOURS = 10
"""Nearest neighbours of an image that are compared between its two views."""
_LEAST_RANK = 2.0
"""Effective rank below which all features lie on about one line."""
_LEAST_AGREEMENT_OVER_CHANCE = 1.5
"""An agreement of neighbours below so many times chance is noise: the features no longer depend on the image."""


@dataclass(frozen=True)
class Health:
    """Figures of two views' unit features (n, D).

    Attributes:
        effective_rank: Exponential of the entropy of the centred features' spectrum: 1 is a line, D is all directions.
        alignment: Mean squared distance between two views of one image; 0 is perfect, 2 is unrelated.
        uniformity: Log of the mean Gaussian potential of pairs; 0 is a point, -4 and below is well spread.
        agreement: Share of an image's 10 nearest that its other view has too; chance is 10 / n.
    """

    effective_rank: float
    alignment: float
    uniformity: float
    agreement: float

    def __str__(self) -> str:
        return (
            f"effective rank {self.effective_rank:.1f}, alignment {self.alignment:.3f}, "
            f"uniformity {self.uniformity:.2f}, neighbours shared {self.agreement:.0%}"
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object, rounded."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


def measure(first: torch.Tensor, second: torch.Tensor) -> Health:
    """The figures of two views' features (n, D), in float32."""
    first, second = (functional.normalize(values.float(), dim=1) for values in (first, second))
    spectrum = torch.linalg.svdvals(first - first.mean(dim=0)).double()
    share = spectrum / spectrum.sum().clamp(min=1e-12)
    entropy = -(share * share.clamp(min=1e-12).log()).sum()
    gaps = torch.pdist(first[:1024].cpu()).square()
    return Health(
        effective_rank=float(entropy.exp()) if float(spectrum.sum()) > 1e-6 else 1.0,
        alignment=float((first - second).square().sum(dim=1).mean()),
        uniformity=float(torch.exp(-2 * gaps).mean().clamp(min=1e-12).log()),
        agreement=_agreement(first, second),
    )


def check_finite(loss: float, first: torch.Tensor, second: torch.Tensor, *, step: int) -> None:
    """Refuse a run whose loss or features are infinite or NaN: no later step would mend that.

    Raises:
        InputError: the loss or a feature is not finite.
    """
    features = torch.cat([first, second])
    bad = int((~torch.isfinite(features)).any(dim=1).sum())
    if math.isfinite(loss) and not bad:
        return
    raise InputError(
        f"training diverged at step {step}: expected a finite loss and finite features, found loss {loss:.3g} and "
        f"{bad} of {len(features)} views without; try another seed (encoder.seed), or take a pretrained encoder"
    )


def check(health: Health, loss: float, *, images: int, step: int) -> None:
    """Refuse a run whose features no longer tell images apart.

    Args:
        health: Of `images` images.
        loss: The step's; for the message.
        images: How many were measured; with fewer than 8 x 10 the agreement of neighbours is not checked.
        step: Steps done; for the message.

    Raises:
        InputError: the features lie on a line or agree no more than chance.
    """
    chance = NEIGHBOURS / max(1, images - 1)
    is_random = images >= 8 * NEIGHBOURS and health.agreement < _LEAST_AGREEMENT_OVER_CHANCE * chance
    if health.effective_rank >= _LEAST_RANK and not is_random:
        return
    raise InputError(
        f"training collapsed at step {step}: expected features that tell images apart, found loss {loss:.3g}, "
        f"effective rank {health.effective_rank:.1f}, neighbour agreement {health.agreement:.3f} "
        f"(chance {chance:.3f}); check that the images differ from each other, then try another seed or more time "
        "(encoder.seed, encoder.seconds), or take a pretrained encoder"
    )


def _agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    count = len(first)
    k = min(NEIGHBOURS, count - 1)
    if k < 1:
        return 1.0
    nearest = []
    for values in (first, second):
        similarity = values @ values.T
        similarity.fill_diagonal_(-2)
        nearest.append(torch.zeros_like(similarity).scatter_(1, similarity.topk(k, dim=1).indices, 1.0))
    return float((nearest[0] * nearest[1]).sum() / (count * k))
