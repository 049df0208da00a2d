"""How far an encoder places near-copies of an image from it: the distance below which images are near-duplicates.

No one distance suits all encoders: 99 % of near-copies of CIFAR-10's images lay within 0.25 by a ResNet-9's own
features, but 6 % by the same features centred and half whitened, which put different images farther apart too.
"""

import torch
from torch.nn import functional

from wtl_core.encoders.encoder import Encoder

IMAGES = 512
"""Images that the distance is measured on: the 0.9 quantile is then known to about 1.3 points of share."""

_ROWS = 32
"""Images whose copies are made at once: as floats, with their margins and noise, 512 of 512 px would take 5 GB."""
_SHIFT, _BRIGHTNESS, _NOISE = 1 / 16, 0.1, 2.0
"""Of a near-copy: the largest shift as a share of the side, the largest relative change of brightness, and the standard
deviation of the noise in grey values of 0 to 255."""
_SHARE = 0.9
"""Share of near-copies that lie within the distance; the farthest tenth, which is of odd images, is left out."""
_MOST_OF_APART = 0.6
"""Largest distance of near-duplicates over that of two images by chance: 0.58 were measured on CIFAR-10, 0.49 on
photographs of clothes, and 0.87 on sprites, of which then 99.8 % had a near-duplicate."""


def copies(images: torch.Tensor) -> torch.Tensor:
    """A near-copy of each of (n, 3, S, S) uint8 images, like the next frame of a film; the same images give the same.

    Shifted by up to a sixteenth of the side, up to a tenth brighter or darker, with noise of its own.
    """
    generator = torch.Generator().manual_seed(0)
    count, side = len(images), images.shape[-1]
    reach = max(1, round(_SHIFT * side))
    corners = torch.randint(0, 2 * reach + 1, (2, count), generator=generator).T
    factors = 1 + _BRIGHTNESS * (2 * torch.rand(count, 1, 1, 1, generator=generator) - 1)
    made = []
    for rows in range(0, count, _ROWS):
        piece = slice(rows, rows + _ROWS)
        padded = functional.pad(images[piece].float(), (reach,) * 4, mode="reflect")
        places = zip(padded, corners[piece].tolist(), strict=True)
        shifted = torch.stack([image[:, y : y + side, x : x + side] for image, (y, x) in places])
        noise = _NOISE * torch.randn(shifted.shape, generator=generator)
        made.append((shifted * factors[piece] + noise).clamp(0, 255).to(torch.uint8))
    return torch.cat(made)


def distance(encoder: Encoder, images: torch.Tensor) -> float | None:
    """The distance from its image within which nine of ten near-copies lie, but well below that of any two images.

    A network that no one taught that small changes do not matter places near-copies of some pictures, such as small
    sprites, as far from them as other pictures: all of a pool would be near-duplicates.

    Args:
        encoder: The encoder.
        images: (n, 3, S, S) uint8, of which the first `IMAGES` are taken, without those that have no vector or whose
            copies have none.

    Returns:
        The distance; None if no image is left.
    """
    images = images[:IMAGES].cpu()
    vectors, copied = encoder.encode(images), encoder.encode(copies(images))
    is_finite = torch.isfinite(vectors).all(dim=1) & torch.isfinite(copied).all(dim=1)
    if not is_finite.any():
        return None
    vectors, copied = vectors[is_finite], copied[is_finite]
    apart = float((vectors - vectors.roll(1, dims=0)).norm(dim=1).median())
    near = float((vectors - copied).norm(dim=1).quantile(_SHARE))
    return round(min(near, _MOST_OF_APART * apart), 4)
