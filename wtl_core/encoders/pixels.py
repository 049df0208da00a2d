"""The training-free encoder: low-frequency colour beside histograms of gradient direction.

For smoke runs, tests and pools of a handful of images. On CIFAR-10 its 20-NN accuracy stands well above raw pixels'.
"""

import math

import torch
from torch import nn
from torch.nn import functional

from wtl_core.encoders.encoder import Encoder, build
from wtl_core.encoders.preprocessing import Preprocessing

SIDE_PX = 32
_CELLS, _DIRECTIONS, _COLOURS = 4, 8, 4
"""Cells along a side for directions, bins of direction, and cells along a side for colour."""
_COLOUR_WEIGHT, _BIAS = 0.4, 0.05
"""Weight of colour beside directions, and the constant; both are part of the fingerprint."""


class Pixels(nn.Module):
    """(n, 3, 32, 32) in 0 to 1 -> (n, 177): gradient directions in 4 x 4 cells, colour in 4 x 4 cells, one constant."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The constant keeps a plain grey image from having a vector of length zero."""
        gradients = self._directions(images)
        colours = functional.adaptive_avg_pool2d(images, _COLOURS).flatten(1) - 0.5
        bias = torch.full_like(colours[:, :1], _BIAS)
        return torch.cat([gradients, _COLOUR_WEIGHT * _bounded(colours), bias], dim=1)

    def _directions(self, images: torch.Tensor) -> torch.Tensor:
        """Square roots of histograms (Hellinger's kernel), soft between neighbouring directions, L2-normalised."""
        grey = images.mean(dim=1, keepdim=True)
        padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2])[:, 0]
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1])[:, 0]
        strength = torch.sqrt(across**2 + down**2 + 1e-12)
        position = (torch.atan2(down, across) / (2 * math.pi) + 0.5) * _DIRECTIONS
        bins = torch.arange(_DIRECTIONS, device=images.device).view(1, -1, 1, 1)
        gap = torch.remainder(position.unsqueeze(1) - bins, _DIRECTIONS)
        share = (1 - torch.minimum(gap, _DIRECTIONS - gap)).clamp(min=0)
        histograms = functional.adaptive_avg_pool2d(share * strength.unsqueeze(1), _CELLS).flatten(1)
        return _bounded(torch.sqrt(histograms))


def _bounded(values: torch.Tensor) -> torch.Tensor:
    """Unit length, except that values near zero are not scaled up to it."""
    length: torch.Tensor = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return values / length.clamp(min=0.05)


def pixels(device: torch.device) -> Encoder:
    """The encoder named `pixels`. float32 everywhere: it is small, and its fingerprint is the same on every machine."""
    module = Pixels()
    return build(
        module,
        name="pixels",
        architecture={
            "network": "pixels",
            "weights": [_COLOUR_WEIGHT, _BIAS],
            "cells": [_CELLS, _DIRECTIONS, _COLOURS],
        },
        preprocessing=Preprocessing(SIDE_PX, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        device=device,
        number_format="float32",
        card={"method": "pixels", "licence": "none: nothing is trained"},
    )
