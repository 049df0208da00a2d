"""How much an encoder's features say about a pool, beside features without training: no label is asked.

The figure is the share of an image's ten nearest neighbours that another view of it, half of it in other light, has
too. Over 13 sets it ordered encoders as 20-NN did with a mean rank correlation of 0.6. It is no more than a warning: it
finds features that are no better than plain ones (digits), not those that miss the point (printed characters).
"""

import torch

from wtl_core.encoders import whitening
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.pixels import pixels
from wtl_core.training.augment import Strength, random_parameters, views
from wtl_core.training.image_cache import PoolImages, decode_pool
from wtl_core.workspace.encoder_check import EncoderCheck

IMAGES = 1000
"""Images that are compared with each other: a share of 0.4 is then known to about 1 point."""
_NEIGHBOURS = 10
_STRENGTH = Strength(least_area=0.5, jitter=0.4, hue=0.05, grey_probability=0.0)
_VIEWED_TOGETHER = 64
"""Images whose views are cut together: 224 px as numbers are 0.6 MB each."""


def check(encoder: Encoder, images: PoolImages, *, workers: int = 2) -> EncoderCheck | None:
    """The figures of an encoder and of the training-free one; None for a pool of so few that no network is fitted."""
    found = []
    for candidate in (encoder, pixels(torch.device("cpu"))):
        count = min(len(images.sample_ids), IMAGES)
        squares = torch.from_numpy(decode_pool(images, count, candidate.preprocessing, workers=workers))
        if len(squares) < whitening.LEAST_IMAGES:
            return None
        found.append(round(shared_neighbours(candidate, squares), 4))
    return EncoderCheck(shared_neighbours=found[0], by_pixels=found[1])


def shared_neighbours(encoder: Encoder, squares: torch.Tensor) -> float:
    """Share (0 to 1) of the ten nearest of (n, 3, S, S) uint8 images that their other views have too."""
    generator = torch.Generator().manual_seed(0)
    pieces = []
    for part in torch.split(squares, _VIEWED_TOGETHER):
        random = random_parameters(len(part), _STRENGTH, generator)
        pieces.append((views(part, random, encoder.side_px) * 255).round().to(torch.uint8))
    known, seen = encoder.encode(squares).cpu(), encoder.encode(torch.cat(pieces)).cpu()
    own, other = _nearest(known, known), _nearest(seen, known)
    return float((own.unsqueeze(2) == other.unsqueeze(1)).any(dim=2).float().mean())


def _nearest(vectors: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Rows (n, 10) of the nearest of `known` but the vector's own image."""
    similarity = vectors @ known.T
    similarity.fill_diagonal_(-2)
    return similarity.topk(_NEIGHBOURS, dim=1).indices
