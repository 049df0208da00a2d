"""Features centred and half whitened by the images that a network was trained on: no labels, two small tensors.

Pooled features behind a ReLU share one direction, and a few directions hold most of what varies: of a ResNet-9 trained
on CIFAR-10 for 300,000 views the mean had 0.89 of a vector's length, and 19 of 128 directions counted. Distances then
say little of what tells images apart. Centred and half whitened, that network's 20-NN went from 59.2 to 64.5 %.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

IMAGES = 4096
"""Images that the two moments are taken over."""

_PREFIX, _FLOOR, _LEAST_NORM = "whitening.", 0.01, 1e-6


@dataclass(frozen=True)
class Whitening:
    """x -> (x / |x| - mean) matrix, with the symmetric matrix C^(-1/4) of the covariance C of x / |x|.

    The root of a full whitening: directions that hardly vary, where rounding and noise live, are not blown up to the
    size of the others.

    Attributes:
        mean: (D,) float32.
        matrix: (D, D) float32.
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """(n, D) float32 for (n, D) features; what is zero or not finite stays so, to be refused by whoever looks."""
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        values = (features / norms.clamp(min=_LEAST_NORM) - self.mean) @ self.matrix
        return torch.where(norms > _LEAST_NORM, values, features)

    def to(self, device: torch.device) -> "Whitening":
        """On a device."""
        return Whitening(self.mean.to(device), self.matrix.to(device))

    def tensors(self) -> dict[str, torch.Tensor]:
        """By the names under which they are kept among a network's weights."""
        return {f"{_PREFIX}mean": self.mean, f"{_PREFIX}matrix": self.matrix}


def fit_whitening(features: torch.Tensor) -> Whitening:
    """The whitening of (n, D) features, worked out in float64 on the processor.

    Directions that vary less than a hundredth of the mean are taken for that much: of few images, most do not vary.
    """
    values = functional.normalize(features.double().cpu(), dim=1)
    mean = values.mean(dim=0)
    centred = values - mean
    variances, basis = torch.linalg.eigh(centred.T @ centred / len(values))
    least = (_FLOOR * variances.mean()).clamp(min=1e-12)
    matrix = (basis * variances.clamp(min=least) ** -0.25) @ basis.T
    return Whitening(mean.float(), matrix.float())


def split(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Whitening | None]:
    """A network's weights, and the whitening that lies among them; None if there is none."""
    network = {name: values for name, values in weights.items() if not name.startswith(_PREFIX)}
    if len(network) == len(weights):
        return network, None
    return network, Whitening(weights[f"{_PREFIX}mean"], weights[f"{_PREFIX}matrix"])
