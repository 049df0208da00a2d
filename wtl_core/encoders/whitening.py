"""Features centred, half whitened and reduced by images of the pool: no labels, two small tensors.

Every encoder that is made for a pool is treated so: one that was trained on it, and others that are fitted to it.

Pooled features after a ReLU share one direction, and a few directions hold most of the variance. For a ResNet-9 trained
on CIFAR-10 for 300,000 views the mean had 0.89 of a vector's length, and the effective rank was 19 of 128. Distances
then depend little on what distinguishes images. Centring and half whitening raised its 20-NN accuracy from 59.2 to
64.5 %.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

from wtl_core.machine import one_thread

IMAGES = 4096
"""Images that mean and covariance are computed from."""
LEAST_IMAGES = 100
"""With fewer images mean and covariance say too little: the features stay as they are. By 20-NN of 1,000 images of four
sets (digits, Fashion-MNIST, CIFAR-10, clothing) fits to 64 / 100 / 200 images gain -0.1 / +1.0 / +1.5 points on average
by lite0, and -1.0 / +0.2 / +0.8 with lite2 beside it (96 px, 6 draws, 2026-12-07)."""
MOST_DIMENSIONS = 256
"""Longer features are reduced to their main directions. On CIFAR-10 all 512 of a packaged network gave 0.2 points less
by 20-NN than 256, and selection costs by the number."""

_PREFIX = "whitening."
_FLOOR = 0.01
"""Least variance of a direction, as a share of the mean variance: with few images most directions do not vary."""
_ROUNDING = 1e-10
"""Share of the largest variance below which there is nothing but rounding: such directions are arbitrary. By a network
fitted to 64, 100 and 200 images, later ones of CIFAR-10 had 64.4, 64.3 and 67.2 % by 20-NN with them, and 66.2, 68.0
and 69.5 without; of clothing 58.6, 58.2, 60.3, and 58.5, 59.8, 61.4 (efficientnet-lite0, 4 draws, 2026-12-06)."""
_LEAST_NORM = 1e-6
"""Shorter features count as zero."""


@dataclass(frozen=True)
class Whitening:
    """x -> (x / |x| - mean) matrix, with C^(-1/4) of the covariance C of x / |x|: K columns of it for D dimensions.

    The matrix is symmetric where K is D; otherwise its columns are C's K main directions, scaled by their variances. Of
    fewer images than dimensions there are only as many directions as images tell apart.

    The square root of a full whitening: directions that hardly vary, which hold rounding errors and noise, are not
    scaled up to the size of the others.

    Attributes:
        mean: (D,) float32.
        matrix: (D, K) float32.
    """

    mean: torch.Tensor
    matrix: torch.Tensor

    @property
    def dimensions(self) -> int:
        """K, the length of what it gives."""
        return self.matrix.shape[1]

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """(n, K) float32 for (n, D) features; rows that are zero or not finite stay so, and are refused by callers."""
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        values = (features / norms.clamp(min=_LEAST_NORM) - self.mean) @ self.matrix
        return torch.where(norms > _LEAST_NORM, values, 0 * norms)

    def to(self, device: torch.device) -> "Whitening":
        """On a device."""
        return Whitening(self.mean.to(device), self.matrix.to(device))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Both tensors by the names under which they are stored among a network's weights."""
        return {f"{_PREFIX}mean": self.mean, f"{_PREFIX}matrix": self.matrix}


def fit_whitening(features: torch.Tensor) -> Whitening:
    """The whitening of (n, D) features, computed in float64 on the processor; to `MOST_DIMENSIONS` at most.

    It is the same on any number of threads.
    """
    values = functional.normalize(features.double().cpu(), dim=1)
    with one_thread():
        mean = values.mean(dim=0)
        centred = values - mean
        variances, basis = torch.linalg.eigh(centred.T @ centred / len(values))
        least = (_FLOOR * variances.mean()).clamp(min=1e-12)
        scaled = basis * variances.clamp(min=least) ** -0.25
        if len(mean) > MOST_DIMENSIONS:
            varied = max(1, int((variances > _ROUNDING * variances[-1]).sum()))
            matrix = scaled.flip(1)[:, : min(varied, MOST_DIMENSIONS)].contiguous()  # variances rise
        else:
            matrix = scaled @ basis.T
    return Whitening(mean.float(), matrix.float())


def split(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], Whitening | None]:
    """A network's weights, and the whitening that is stored among them; None if there is none."""
    network = {name: values for name, values in weights.items() if not name.startswith(_PREFIX)}
    if len(network) == len(weights):
        return network, None
    return network, Whitening(weights[f"{_PREFIX}mean"], weights[f"{_PREFIX}matrix"])
