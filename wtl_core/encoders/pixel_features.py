"""Features without training: low-frequency colour beside histograms of gradient direction.

The encoder `pixels` consists of them, and packaged networks have them beside their own.
"""

import math

import torch
from torch import nn
from torch.nn import functional

SIDE_PX = 32
CELLS, DIRECTIONS, COLOURS = 4, 8, 4
"""Cells along a side for directions, bins of direction, and cells along a side for colour."""
COLOUR_WEIGHT, BIAS = 0.4, 0.05
"""Weight of colour beside directions, and the constant; both are part of the fingerprint."""


class Pixels(nn.Module):
    """(n, 3, 32, 32) in 0 to 1 -> (n, 177): gradient directions in 4 x 4 cells, colour in 4 x 4 cells, one constant."""

    DIMENSIONS = CELLS**2 * DIRECTIONS + COLOURS**2 * 3 + 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The constant keeps a plain grey image from having a vector of length zero."""
        gradients = self._directions(images)
        colours = functional.adaptive_avg_pool2d(images, COLOURS).flatten(1) - 0.5
        bias = torch.full_like(colours[:, :1], BIAS)
        return torch.cat([gradients, COLOUR_WEIGHT * _bounded(colours), bias], dim=1)

    def _directions(self, images: torch.Tensor) -> torch.Tensor:
        """Square roots of histograms (Hellinger's kernel), soft between neighbouring directions, L2-normalised."""
        grey = images.mean(dim=1, keepdim=True)
        padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2])[:, 0]
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1])[:, 0]
        strength = torch.sqrt(across**2 + down**2 + 1e-12)
        position = (torch.atan2(down, across) / (2 * math.pi) + 0.5) * DIRECTIONS
        bins = torch.arange(DIRECTIONS, device=images.device).view(1, -1, 1, 1)
        gap = torch.remainder(position.unsqueeze(1) - bins, DIRECTIONS)
        share = (1 - torch.minimum(gap, DIRECTIONS - gap)).clamp(min=0)
        histograms = functional.adaptive_avg_pool2d(share * strength.unsqueeze(1), CELLS).flatten(1)
        return _bounded(torch.sqrt(histograms))


def _bounded(values: torch.Tensor) -> torch.Tensor:
    """Unit length, except that values near zero are not scaled up to it."""
    length: torch.Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return values / length.clamp(min=0.05)
