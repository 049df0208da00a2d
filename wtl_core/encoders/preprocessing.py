"""From a decoded image to the square of bytes that an encoder takes; nothing here is fitted on the pool."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from wtl_core.errors import ConfigError

_MOST_ASPECT = 8
"""The ends of longer strips are cut off before a crop: scaled up whole, 8 x 100,000 pixels would take 2.5 GB."""


@dataclass(frozen=True)
class Preprocessing:
    """How images become (3, side_px, side_px) bytes and those become numbers. Part of an encoder's fingerprint.

    Attributes:
        side_px: Height and width of what the network sees.
        fit: `squash` scales both sides to `side_px` (nothing is lost); `crop` scales the shorter side to `resize_px`
            and takes the centre; the ends of strips longer than 8 to 1 are cut off before.
        resize_px: Length of the shorter side before the crop; equal to `side_px` for `squash`.
        interpolation: Antialiased when shrinking.
        mean: Per channel, subtracted from values in 0 to 1.
        std: Per channel, divides after that.
    """

    side_px: int
    fit: Literal["squash", "crop"] = "squash"
    resize_px: int = 0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Refuse values that cannot be followed. Raises ConfigError."""
        if self.fit not in ("squash", "crop"):
            raise ConfigError(f"Preprocessing: expected fit squash or crop, found {self.fit!r}; name one of them")
        if self.fit == "crop" and self.resize_px < self.side_px:
            raise ConfigError(
                f"Preprocessing: expected resize_px of at least side_px, {self.side_px}, to crop from, found "
                f"{self.resize_px}; set it, or squash"
            )
        if min(self.side_px, *self.std) <= 0:
            raise ConfigError(f"Preprocessing: expected side_px and std above 0, found {self.side_px}, {self.std}")

    def to_json(self) -> dict[str, Any]:
        """A JSON object, read back by `from_json`."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


def from_json(value: dict[str, Any]) -> Preprocessing:
    """What `to_json` wrote."""
    return Preprocessing(**{**value, "mean": tuple(value["mean"]), "std": tuple(value["std"])})


def at_side(preprocessing: Preprocessing, side_px: int) -> Preprocessing:
    """The same preprocessing for another side: a crop shows the same share of an image."""
    resize_px = round(preprocessing.resize_px * side_px / preprocessing.side_px)
    return replace(preprocessing, side_px=side_px, resize_px=resize_px)


def fit(images: torch.Tensor, preprocessing: Preprocessing) -> torch.Tensor:
    """Bring (3, H, W) or (n, 3, H, W) uint8 images to `side_px` squares, uint8, on the device they are on."""
    side = preprocessing.side_px
    if preprocessing.fit == "squash" and tuple(images.shape[-2:]) == (side, side):
        return images
    batch = images if images.ndim == 4 else images.unsqueeze(0)
    if preprocessing.fit == "crop":
        batch = _middle(batch)
        height, width = batch.shape[-2:]
        scale = preprocessing.resize_px / min(height, width)
        target = (max(side, round(height * scale)), max(side, round(width * scale)))
    else:
        target = (side, side)
    if target != tuple(batch.shape[-2:]):
        batch = resized(batch, target, preprocessing.interpolation)
    top, left = (target[0] - side) // 2, (target[1] - side) // 2
    batch = batch[..., top : top + side, left : left + side]
    return batch if images.ndim == 4 else batch[0]


def fit_rows(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """`fit` of one (H, W, 3) uint8 image as decoders lay it out: (S, S, 3)."""
    side = preprocessing.side_px
    if preprocessing.fit == "squash" and pixels.shape == (side, side, 3):
        return pixels  # without calling torch, which would hand the interpreter to another thread
    return fit(torch.from_numpy(pixels).permute(2, 0, 1), preprocessing).permute(1, 2, 0).numpy()


def _middle(batch: torch.Tensor) -> torch.Tensor:
    """The middle of strips, 8 to 1 at most."""
    height, width = batch.shape[-2:]
    longest = _MOST_ASPECT * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return batch[..., top : top + longest, left : left + longest]


def resized(batch: torch.Tensor, target: tuple[int, int], interpolation: str) -> torch.Tensor:
    """A batch (N, C, H, W) of bytes scaled to `target` (height, width), rounded to bytes again."""
    if batch.device.type == "cpu":
        # The CPU kernel for bytes is several times faster than float; channels-last is its vector path.
        batch = batch.contiguous(memory_format=torch.channels_last)
        return functional.interpolate(batch, target, mode=interpolation, antialias=True)
    values = functional.interpolate(batch.float(), target, mode=interpolation, antialias=True)
    return values.round_().clamp_(0, 255).to(torch.uint8)
