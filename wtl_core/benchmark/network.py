"""A small residual network trained from scratch on the chosen images, as published comparisons of strategies use it.

Architecture, schedule and augmentation are fixed; only the images differ between strategies, and only the number of
passes between budgets. Not here: how accuracies are compared.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wtl_core.encoders.encoder import default_format
from wtl_core.encoders.networks import NetworkShape, build_network

VERSION = 2  # 2: small batches on a processor
_CPU_WIDTH, _CUDA_WIDTH = 16, 64  # channels; each trains in seconds on its device
_CPU_BATCH, _CUDA_BATCH = 64, 512
_PEAK_RATE, _WEIGHT_DECAY, _MOMENTUM, _WARM_UP = 0.1, 5e-4, 0.9, 0.25
_SMOOTHING, _MEAN, _STD = 0.1, 0.47, 0.25
_TEST_ROWS = 1000  # images in one forward pass


@dataclass(frozen=True)
class ScratchRecipe:
    """What is fixed while strategies differ.

    Attributes:
        width: Channels of the first of the ResNet-9's stages.
        effort: Passes over the recipe's.
        has_flips: Mirrored images are images of the same class.
        dropout: On the pooled features; only for the loop that needs it.
        largest_batch: Images in a step at most.
    """

    width: int
    effort: float = 1.0
    has_flips: bool = True
    dropout: float = 0.0
    largest_batch: int = _CUDA_BATCH

    def schedule(self, labels: int) -> tuple[int, int]:
        """Images in a step, and steps: 100 passes over 500 images, 40 over 5,000, 23 over 20,000."""
        batch = min(self.largest_batch, max(32, 2 ** round(math.log2(max(1, labels) / 8))))
        passes = self.effort * min(200.0, 40.0 * (5000 / max(1, labels)) ** 0.4)
        return batch, max(10, round(passes * labels / batch))


def width_for(device: torch.device | str) -> int:
    """A width that the machine trains in seconds."""
    return _CPU_WIDTH if torch.device(device).type == "cpu" else _CUDA_WIDTH


def largest_batch_for(device: torch.device | str) -> int:
    """The largest step that is not slower per image for being smaller.

    The same passes in more steps teach more: 5,000 labels at `effort` 0.4 gave 64 % in steps of 512, 74 % in steps of
    64. A processor takes both equally long; on a GPU a step of 64 lasts as long as one of 512.
    """
    return _CPU_BATCH if torch.device(device).type == "cpu" else _CUDA_BATCH


class ScratchNetwork(nn.Module):
    """A ResNet-9 with a linear head."""

    def __init__(self, recipe: ScratchRecipe, classes: int) -> None:
        super().__init__()
        shape = NetworkShape("resnet9", recipe.width)
        self.body = build_network(shape)
        self.head = nn.Linear(shape.dimensions, classes)
        self.dropout = recipe.dropout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) normalised to logits (n, C)."""
        features = functional.dropout(self.body(images), self.dropout, training=self.training and self.dropout > 0)
        logits: torch.Tensor = self.head(features)
        return logits


def train(
    images: torch.Tensor, labels: torch.Tensor, *, classes: int, recipe: ScratchRecipe, seed: int
) -> ScratchNetwork:
    """Train on (n, 3, S, S) uint8 images and (n,) labels, on the device they are on.

    SGD with Nesterov momentum in one cycle, bfloat16 where the processor has it, shifts by an eighth of the side and
    flips. First weights, order and augmentation follow `seed` alone, and are alike on every device.
    """
    device = images.device
    batch, steps = recipe.schedule(len(labels))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = ScratchNetwork(recipe, classes)
        network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            _groups(network), lr=_PEAK_RATE, momentum=_MOMENTUM, nesterov=True, fused=device.type == "cuda"
        )
        for step, rows in enumerate(_rows(len(labels), batch, steps, generator)):
            for group in optimizer.param_groups:
                group["lr"] = _PEAK_RATE * _one_cycle((step + 0.5) / steps)
            chosen = rows.to(device)
            views = augmented(images[chosen], recipe, generator)
            with _autocast(device):
                loss = functional.cross_entropy(network(views).float(), labels[chosen], label_smoothing=_SMOOTHING)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    network.eval()
    return network


def describe(network: ScratchNetwork, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, C) and pooled features (n, D), float32, in the given order."""
    logits, features = [], []
    with torch.inference_mode(), _autocast(images.device):
        for chunk in torch.split(images, _TEST_ROWS):
            pooled = network.body(normalised_pixels(chunk))
            features.append(pooled.float())
            logits.append(network.head(pooled).float())
    return torch.cat(logits), torch.cat(features)


def accuracy(network: ScratchNetwork, images: torch.Tensor, labels: torch.Tensor, *, has_flips: bool) -> float:
    """Share named right, by the mean over an image and its mirror image where that keeps its class."""
    logits = describe(network, images)[0]
    if has_flips:
        logits = logits + describe(network, images.flip(3))[0]
    return float((logits.argmax(dim=1) == labels).float().mean())


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases and norms do not."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": _WEIGHT_DECAY}, {"params": free, "weight_decay": 0.0}]


def _one_cycle(progress: float) -> float:
    """Up in a straight line for a quarter of the way, then down to zero."""
    return progress / _WARM_UP if progress < _WARM_UP else (1.0 - progress) / (1.0 - _WARM_UP)


def _rows(count: int, batch: int, steps: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Whole batches out of one random order after another, so that every step has the same shape."""
    orders = -(-steps * batch // count)
    order = torch.cat([torch.randperm(count, generator=generator) for _ in range(orders)])
    return list(order[: steps * batch].view(steps, batch))


def augmented(images: torch.Tensor, recipe: ScratchRecipe, generator: torch.Generator) -> torch.Tensor:
    """Normalised, each image shifted and perhaps mirrored on its own, by one gather on the device."""
    count, _, height, width = images.shape
    reach = max(1, height // 8)
    shifts = torch.randint(-reach, reach + 1, (2, count, 1), generator=generator).to(images.device)
    flips = (torch.rand(count, 1, generator=generator) < 0.5).to(images.device) & recipe.has_flips
    across = torch.arange(width, device=images.device).expand(count, -1)
    across = torch.where(flips, width - 1 - across, across) + shifts[0]
    down = torch.arange(height, device=images.device) + shifts[1]
    across, down = _reflected(across, width), _reflected(down, height)
    places = (down.unsqueeze(2) * width + across.unsqueeze(1)).view(count, 1, -1).expand(-1, 3, -1)
    return normalised_pixels(images.flatten(2).gather(2, places).view_as(images))


def _reflected(places: torch.Tensor, size: int) -> torch.Tensor:
    """Positions outside, mirrored at the border."""
    places = places.abs()
    return torch.where(places >= size, 2 * (size - 1) - places, places)


def normalised_pixels(images: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) of bytes as float32 of mean 0 and deviation 1 by channel, in channels-last order."""
    values = (images.float() / 255 - _MEAN) / _STD
    return values.contiguous(memory_format=torch.channels_last)


def _autocast(device: torch.device) -> Any:
    if default_format(device) != "bfloat16":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
