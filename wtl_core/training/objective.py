"""What training minimises: views of one image close to each other, views of different images apart.

B images in V views, D dimensions. Source: SimCLR, arXiv:2002.05709; several positives as in arXiv:2004.11362.
"""

import torch
from torch import nn
from torch.nn import functional


def contrast(projected: torch.Tensor, *, views: int, temperature: float) -> torch.Tensor:
    """Mean contrastive loss of (V * B, D) float32 projections, view-major: row v * B + i is a view of image i.

    For each row a softmax over its cosines to all others, divided by `temperature`; its V - 1 other views are the right
    answers.
    """
    unit = functional.normalize(projected, dim=1)
    logits = unit @ unit.T / temperature
    count = len(unit)
    own = torch.eye(count, dtype=torch.bool, device=unit.device)
    image = torch.arange(count, device=unit.device) % (count // views)
    is_positive = (image.unsqueeze(0) == image.unsqueeze(1)) & ~own
    among = torch.logsumexp(logits.masked_fill(own, float("-inf")), dim=1)
    right = (logits * is_positive).sum(dim=1) / (views - 1)
    return (among - right).mean()


class Projector(nn.Module):
    """Two layers between features and loss; thrown away after training, since features before them transfer better."""

    def __init__(self, dimensions: int, hidden: int, *, outputs: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dimensions, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(n, dimensions) to (n, outputs)."""
        projected: torch.Tensor = self.layers(features)
        return projected
