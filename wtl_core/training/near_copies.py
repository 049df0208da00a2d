"""How far near-copies of an image lie from it by an encoder: what tells near-duplicates from images that are alike.

No distance does for all encoders: of near-copies of CIFAR-10's images 99 % lay within 0.25 by a ResNet-9's own
features, and 6 % by the same features centred and half whitened, where different images lie farther apart too.
"""

import torch
from torch.nn import functional

from wtl_core.encoders.encoder import Encoder

IMAGES = 512
"""Images that are enough to measure it."""

_SHIFT, _BRIGHTNESS, _NOISE = 1 / 16, 0.1, 2.0
_SHARE = 0.9


def copies(images: torch.Tensor) -> torch.Tensor:
    """Of (n, 3, S, S) uint8, as the next frames of a film; the same images give the same.

    Moved by up to a sixteenth of the side, up to a tenth brighter or darker, with other noise (of 2 in 255).
    """
    generator = torch.Generator().manual_seed(0)
    count, side = len(images), images.shape[-1]
    reach = max(1, round(_SHIFT * side))
    padded = functional.pad(images.float(), (reach,) * 4, mode="reflect")
    tops, lefts = torch.randint(0, 2 * reach + 1, (2, count), generator=generator).tolist()
    moved = torch.stack([image[:, y : y + side, x : x + side] for image, y, x in zip(padded, tops, lefts, strict=True)])
    factors = 1 + _BRIGHTNESS * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    noise = _NOISE * torch.randn(images.shape, generator=generator)
    return (moved * factors + noise).clamp(0, 255).to(torch.uint8)


def distance(encoder: Encoder, images: torch.Tensor) -> float:
    """The distance within which nine of ten near-copies of (n, 3, S, S) uint8 images lie from their image."""
    images = images[:IMAGES].cpu()
    distances = (encoder.encode(images) - encoder.encode(copies(images))).norm(dim=1)
    return round(float(distances.quantile(_SHARE)), 4)
