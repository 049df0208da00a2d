"""An encoder: a network, its preprocessing and its number format under one fingerprint.

Here: running a network in fixed forward shapes, the fingerprint, and which number format a device gets.
Not here: where networks come from (`resolve`, `training`) and how they are kept (`cards`).
"""

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from wtl_core.encoders import openvino_network
from wtl_core.encoders.networks import fold_norms
from wtl_core.encoders.packages import PackagedNetwork
from wtl_core.encoders.preprocessing import Preprocessing, fit
from wtl_core.encoders.whitening import Whitening
from wtl_core.errors import ConfigError

NumberFormat = Literal["float32", "bfloat16"]

VERSION = 1
"""Raise when the same weights and preprocessing would give other vectors."""

_CPU_ROWS, _CUDA_ROWS, _CUDA_PIXELS = 32, 1024, 512 * 224 * 224
"""Images in a forward pass: on a processor; on a GPU at most, and as many pixels at most. Parts of every vector's
definition, since passes of another size change low bits."""


@dataclass(frozen=True)
class Encoder:
    """Turns images into unit vectors. Made by `resolve.resolve`, `training.train` or `build`.

    Attributes:
        name: The name by which it was loaded, or `ssl`.
        fingerprint: 64 hex digits over weights, architecture, preprocessing and number format; `compiled` has its own.
        dimensions: Length of a vector.
        preprocessing: What brings images to the network's size.
        number_format: What the network computes in; results are float32 in any case.
        forward_rows: Rows of every forward pass, so that vectors do not depend on batches.
        module: The network, in evaluation mode, on `device`; takes (n, 3, S, S), gives (n, D).
        device: Where it runs.
        card: What is known of it: method, training plan, quality figures, licence.
        whitening: Applied to the network's outputs, on `device`; None leaves them as they are.
    """

    name: str
    fingerprint: str
    dimensions: int
    preprocessing: Preprocessing
    number_format: NumberFormat
    forward_rows: int
    module: nn.Module
    device: torch.device
    card: dict[str, Any] = field(default_factory=dict)
    whitening: Whitening | None = None

    @property
    def side_px(self) -> int:
        """Height and width of the images that `encode` takes."""
        return self.preprocessing.side_px

    @property
    def near_copy_distance(self) -> float | None:
        """The distance below which images are near-duplicates, see `near_copies`; None if it was not measured."""
        distance: float | None = self.card.get("near_copy_distance")
        return distance

    def fitted(self, whitening: Whitening) -> "Encoder":
        """The same encoder with its outputs treated by `whitening`, and a fingerprint of its own."""
        weights = weights_digest(whitening.tensors())
        digest = hashlib.sha256(f"fitted {VERSION} {self.fingerprint} {weights}".encode()).hexdigest()
        moved = whitening.to(self.device)
        return replace(self, fingerprint=digest, dimensions=whitening.dimensions, whitening=moved)

    def fit(self, image: torch.Tensor) -> torch.Tensor:
        """A decoded (3, H, W) uint8 image as the (3, S, S) uint8 square that `encode` takes."""
        return fit(image, self.preprocessing)

    def features(self, batch: torch.Tensor) -> torch.Tensor:
        """Features (forward_rows, D) float32 of one (forward_rows, 3, S, S) uint8 batch on `device`, not normalised."""
        with torch.inference_mode():
            values = self._normalised(batch).to(
                dtype=getattr(torch, self.number_format), memory_format=torch.channels_last
            )
            features: torch.Tensor = self.module(values)
            outputs = features.flatten(1).float()
            return outputs if self.whitening is None else self.whitening(outputs)

    def encode(self, batch: torch.Tensor) -> torch.Tensor:
        """Unit vectors (n, D) float32 on `device` for (n, 3, S, S) uint8 images, in forward passes of fixed shape."""
        out = []
        for start in range(0, len(batch), self.forward_rows):
            chunk = batch[start : start + self.forward_rows]
            features = self.features(pad(chunk.to(self.device), self.forward_rows))[: len(chunk)]
            out.append(functional.normalize(features, dim=1))
        return torch.cat(out) if out else torch.empty(0, self.dimensions, device=self.device)

    def _normalised(self, batch: torch.Tensor) -> torch.Tensor:
        mean, std = self._range
        return (batch.float() - mean) / std

    @cached_property
    def _range(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of bytes, (1, 3, 1, 1) each; cached, since building them would wait for the GPU."""
        both = torch.tensor([self.preprocessing.mean, self.preprocessing.std], device=self.device) * 255
        return both[0].view(1, 3, 1, 1), both[1].view(1, 3, 1, 1)


def pad(batch: torch.Tensor, rows: int) -> torch.Tensor:
    """`batch` filled up with black images to `rows`: passing an image alone changes 0.18 % of float16 outputs."""
    if len(batch) == rows:
        return batch
    padded = batch.new_zeros((rows, *batch.shape[1:]))
    padded[: len(batch)] = batch
    return padded


def build(
    module: nn.Module,
    *,
    name: str,
    architecture: dict[str, Any],
    preprocessing: Preprocessing,
    device: torch.device,
    number_format: NumberFormat | None = None,
    card: dict[str, Any] | None = None,
    whitening: Whitening | None = None,
) -> Encoder:
    """An encoder of a network with its weights loaded.

    Args:
        module: The network, which is changed in place: moved to the device, its normalisations folded, frozen.
        name: The name by which it was asked for.
        architecture: Describes the network well enough to build it again; enters the fingerprint.
        preprocessing: Its preprocessing.
        device: Where it will run.
        number_format: None for the device's own (`default_format`); a stored encoder has its own.
        card: What is known of it.
        whitening: Applied to its outputs; enters the fingerprint.

    Raises:
        ConfigError: the network does not give one row of features for each image.
    """
    number_format = number_format or default_format(device)
    module = module.eval().requires_grad_(requires_grad=False)
    own = module.state_dict()
    digest = fingerprint(own | (whitening.tensors() if whitening else {}), architecture, preprocessing, number_format)
    side = preprocessing.side_px
    rows = _CPU_ROWS if device.type == "cpu" else _cuda_rows(side)
    ready: nn.Module
    if device.type == "cpu" and isinstance(module, PackagedNetwork) and openvino_network.is_installed():
        ready = openvino_network.OpenvinoNetwork(
            module,
            digest=weights_digest(own),
            rows=rows,
            side_px=side,
            is_bfloat16=number_format == "bfloat16",
        )
        dimensions = module.dimensions
    else:
        ready = fold_norms(module).to(device=device, dtype=getattr(torch, number_format))
        ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the stub lacks the keyword
        blank = torch.zeros(2, 3, side, side, device=device, dtype=getattr(torch, number_format))
        dimensions = _dimensions(ready, name, blank)
    if whitening is not None:
        dimensions = whitening.dimensions
    return Encoder(
        name, digest, dimensions, preprocessing, number_format, rows, ready, device, card or {},
        whitening.to(device) if whitening else None,
    )  # fmt: skip


def _dimensions(network: nn.Module, name: str, images: torch.Tensor) -> int:
    """Length of the features that a network gives of two images. Raises ConfigError if it does not give two rows."""
    with torch.inference_mode():
        probe = network(images)
    if not isinstance(probe, torch.Tensor) or probe.ndim < 2 or len(probe) != 2:
        found = tuple(probe.shape) if isinstance(probe, torch.Tensor) else type(probe).__name__
        raise ConfigError(
            f"encoder {name}: expected a network that gives (n, D) features of n images, found {found} of 2 images; "
            "let it give one row for each"
        )
    return int(probe.flatten(1).shape[1])


def fingerprint(
    weights: dict[str, torch.Tensor], architecture: dict[str, Any], preprocessing: Preprocessing, number_format: str
) -> str:
    """SHA-256 hex over everything that changes a vector. Weights are hashed as given, before any change of format."""
    head = {
        "version": VERSION,
        "architecture": architecture,
        "preprocessing": preprocessing.to_json(),
        "number_format": number_format,
    }
    digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
    digest.update(weights_digest(weights).encode())
    return digest.hexdigest()


def weights_digest(weights: dict[str, torch.Tensor]) -> str:
    """SHA-256 hex over names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        values = weights[key].detach().cpu().contiguous()
        digest.update(f"{key}:{values.dtype}:{tuple(values.shape)}:".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b"")
    return digest.hexdigest()


def _cuda_rows(side_px: int) -> int:
    """A power of two that fills the card: 1,024 small images, 512 of 224 px.

    A rule by sizes and not by timing: passes of another size can change low bits of vectors, which would then depend on
    what else the machine was doing. Where memory is too short for a pass, embedding halves it.
    """
    return int(2 ** math.floor(math.log2(max(32, min(_CUDA_ROWS, _CUDA_PIXELS // side_px**2)))))


def default_format(device: torch.device) -> NumberFormat:
    """bfloat16 where the processor has instructions for it, by feature and never by timing."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    if device.type == "cpu":
        return "bfloat16" if torch.cpu._is_avx512_bf16_supported() else "float32"
    return "float32"
