"""The networks that are trained here from scratch: residual networks sized to small images and small machines.

A trained one becomes an encoder with training-free features beside its own (`beside_pixels`).
Not here: which one a pool gets (`sizing`), weights (`cards`), networks of timm and torchvision (`foreign`).
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from wtl_core.encoders.foreign import bare_network
from wtl_core.encoders.packages import bare_packaged
from wtl_core.encoders.pixel_features import SIDE_PX, Pixels
from wtl_core.encoders.preprocessing import Preprocessing

_BESIDE = "+pixels"
_PIXELS_WEIGHT = 0.7
"""Length of the training-free features beside 1 of the trained ones. 20-NN on CIFAR-10 with 50,000 references, all
whitened together: 66.3 % without them by a network of 5 minutes of a core, 70.6, 72.0, 72.3 and 72.8 with 0.3, 0.5, 0.7
and 1; by better features (SimCLR vectors of 76.9) 78.0, 78.2 and 78.7 with 0.5, 0.7 and 1. Sets that had no say, by
networks of 4 minutes of a busy core, without them, with 0.7 and with 1: 12,000 images of Fashion-MNIST 84.6, 88.1 and
88.6, scikit-learn's digits 99.0, 99.7 and 99.3, emoji (784, of which 212 ask) 69.3, 68.9 and 69.8 (2026-12-02)."""


@dataclass(frozen=True)
class NetworkShape:
    """Enough to build a network again.

    Attributes:
        kind: `resnet9` (eight 3 x 3 convolutions), `resnet18`, either with `+pixels` (training-free features beside its
            own), or a foreign one (`timm:NAME`, `torchvision:NAME`) whose training was continued here, or one of a
            package (`package:NAME`).
        width: Channels of the first stage; vectors have eight times as many dimensions, of foreign networks too. Of a
            packaged network: the number of its features itself.
        stem_stride: 1 keeps the resolution (up to some 40 px), 2 halves it, 4 quarters it (convolution, then pooling).
    """

    kind: str
    width: int
    stem_stride: Literal[1, 2, 4] = 1

    @property
    def dimensions(self) -> int:
        """Length of the pooled features."""
        if self.kind.startswith("package:"):
            return self.width
        return 8 * self.width + (Pixels.DIMENSIONS if self.kind.endswith(_BESIDE) else 0)

    def to_json(self) -> dict[str, Any]:
        """A JSON object whose values are the constructor's."""
        return asdict(self)


class ConvNorm(nn.Module):
    """A 3 x 3 (or 1 x 1) convolution and its batch normalisation, which `fold` merges into it."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Convolve, then normalise."""
        return cast(torch.Tensor, self.norm(self.conv(values)))

    def fold(self) -> None:
        """Merge the normalisation into the convolution; only for evaluation."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is a 1 x 1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, stride=stride)
        self.second = ConvNorm(outputs, outputs)
        is_same = inputs == outputs and stride == 1
        self.shortcut: nn.Module = nn.Identity() if is_same else ConvNorm(inputs, outputs, stride=stride, kernel=1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The inner path beside the shortcut."""
        inner = functional.relu(self.first(values), inplace=True)
        return functional.relu(self.second(inner) + self.shortcut(values), inplace=True)


class Stem(nn.Module):
    """The first convolution, at the resolution that the image side calls for."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(3, width, stride=min(stride, 2))
        self.is_pooled = stride == 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to the first feature map."""
        values = functional.relu(self.first(images), inplace=True)
        return functional.max_pool2d(values, 2) if self.is_pooled else values


class ResNet9(nn.Module):
    """Few wide layers: 2 cores train width 16 at some 1,700 images of 32 px a second, forward and backward."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        width = shape.width
        self.stem = Stem(width, shape.stem_stride)
        self.steps = nn.ModuleList(ConvNorm(width << n, width << (n + 1)) for n in range(3))
        self.blocks = nn.ModuleList([Block(2 * width, 2 * width), nn.Identity(), Block(8 * width, 8 * width)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, S, S) to pooled features (n, 8 x width)."""
        values = self.stem(images)
        for step, block in zip(self.steps, self.blocks, strict=True):
            values = block(functional.max_pool2d(functional.relu(step(values), inplace=True), 2))
        return torch.mean(values, dim=(2, 3))


class ResNet18(nn.Module):
    """Four stages of two blocks each, after a 3 x 3 stem that keeps the resolution of small images."""

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        width = shape.width
        self.stem = Stem(width, shape.stem_stride)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(4):
            for position in range(2):
                stride = 2 if stage and not position else 1
                blocks.append(Block(channels, width << stage, stride=stride))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, S, S) to pooled features (n, 8 x width)."""
        return torch.mean(self.blocks(self.stem(images)), dim=(2, 3))


class BesidePixels(nn.Module):
    """Training-free features beside those of a trained network: what a short training has not learnt, they know."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.pixels = Pixels()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, S, S), normalised as for the network, to features (n, D) float32."""
        # the one preprocessing that these networks have; as numbers, since a buffer would change to their format
        ranges = zip(images.float().unbind(dim=1), Preprocessing.mean, Preprocessing.std, strict=True)
        bright = torch.stack([channel * std + mean for channel, mean, std in ranges], dim=1)
        small = functional.adaptive_avg_pool2d(bright, SIDE_PX)
        learnt = functional.normalize(self.network(images).float(), dim=1)
        return torch.cat([learnt, _PIXELS_WEIGHT * functional.normalize(self.pixels(small), dim=1)], dim=1)


def beside_pixels(shape: NetworkShape, network: nn.Module) -> tuple[NetworkShape, nn.Module]:
    """What a trained network is kept as, with its shape: with training-free features, but for foreign networks."""
    if ":" in shape.kind:
        return shape, network
    return replace(shape, kind=shape.kind + _BESIDE), BesidePixels(network)


def trained_part(shape: NetworkShape, weights: dict[str, torch.Tensor]) -> tuple[NetworkShape, dict[str, torch.Tensor]]:
    """Shape and weights of what was trained of a network that was kept: the inverse of `beside_pixels`."""
    if not shape.kind.endswith(_BESIDE):
        return shape, weights
    bare = {name.removeprefix("network."): values for name, values in weights.items()}
    return replace(shape, kind=shape.kind.removesuffix(_BESIDE)), bare


def build_network(shape: NetworkShape) -> nn.Module:
    """An untrained network; its weights come from torch's global generator."""
    if shape.kind.endswith(_BESIDE):
        return BesidePixels(build_network(replace(shape, kind=shape.kind.removesuffix(_BESIDE))))
    if shape.kind.startswith("package:"):
        return bare_packaged(shape.kind.removeprefix("package:"))
    if ":" in shape.kind:
        return bare_network(shape.kind)
    assert shape.kind in ("resnet9", "resnet18"), shape.kind
    network = ResNet9(shape) if shape.kind == "resnet9" else ResNet18(shape)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def fold_norms(network: nn.Module) -> nn.Module:
    """Merge batch normalisations into convolutions, in place, for evaluation: fewer passes over memory."""
    for module in network.eval().modules():
        if isinstance(module, ConvNorm):
            module.fold()
    return network
