"""Which network, image side and step a pool gets on a machine: rules on sizes and features, never on timings."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from wtl_core.encoders.encoder import NumberFormat, weights_digest
from wtl_core.encoders.networks import NetworkShape
from wtl_core.encoders.preprocessing import Preprocessing, at_side, from_json
from wtl_core.encoders.resolve import Start
from wtl_core.errors import InputError
from wtl_core.recipe.encoder import EncoderParams

VERSION = 3
"""Raise when the same plan would train to another encoder. 2: its features are centred and half whitened; 3: beside
training-free ones."""

LEAST_IMAGES = 16
"""With fewer images there is too little to contrast."""
_MAX_IMAGES = {"cpu": 100_000, "cuda": 1_000_000}
"""The most images to train on: more than a budget can show several times would only fill memory."""

_VIEWS = 4
"""More views of fewer images learn faster at the same cost (arXiv:2403.05490; measured in tests/bench/reports)."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that the trained weights depend on, but for the images and the device. Committed before training.

    Attributes:
        shape: The network.
        preprocessing: Of the finished encoder, and of the images that views are cut from.
        view_px: Side of the views. Smaller than `side_px`, it costs less, and crops show things at the size that they
            have in whole images.
        images: How many of the pool's images are trained on: the first in `sample_id` order, which is a random sample
            since ids are hashes.
        batch_images: Images in a step; each gives `views` views.
        views: Random views per image and step.
        accumulate: Pieces that a step is computed in to save memory; each piece contrasts only its own images.
        steps: How many steps there are; 0 until the budget has been turned into a number.
        learning_rate: The highest learning rate of the schedule.
        weight_decay: Applied to weights, not to biases and normalisations.
        temperature: Of the contrastive loss.
        hidden: Width of the projector, which is thrown away.
        number_format: Of the network's products, in training and afterwards.
        seed: Feeds weights, order and views.
        start: Digest of the weights that training starts from; None for random weights.
    """

    shape: NetworkShape
    preprocessing: Preprocessing
    view_px: int
    images: int
    batch_images: int
    views: int
    accumulate: int
    steps: int
    learning_rate: float
    weight_decay: float
    temperature: float
    hidden: int
    number_format: NumberFormat
    seed: int
    start: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object, read back by `plan_from_json`."""
        return {**asdict(self), "preprocessing": self.preprocessing.to_json()}


def plan_from_json(value: dict[str, Any]) -> TrainingPlan:
    """What `TrainingPlan.to_json` wrote."""
    nested = {"shape": NetworkShape(**value["shape"]), "preprocessing": from_json(value["preprocessing"])}
    return TrainingPlan(**{**value, **nested})


def plan_training(
    params: EncoderParams,
    sides_px: np.ndarray,
    *,
    device: Literal["cpu", "cuda"],
    number_format: NumberFormat,
    start: Start | None = None,
    devices: int = 1,
) -> TrainingPlan:
    """The plan for a pool; its `steps` are 0 unless the budget is in epochs.

    Args:
        params: What the user fixed.
        sides_px: (N,) shorter side of every image.
        device: Kind of device.
        number_format: The format that it has instructions for.
        start: Weights to continue from, with their network and a tenth of the learning rate; None for random ones.
        devices: How many train together: each contrasts a batch of its own, and the rate rises with the root of the
            number, as gradients of more images are steadier.

    Raises:
        InputError: too few images to contrast with each other.
    """
    check_count(len(sides_px))
    side = params.side_px or (start.preprocessing.side_px if start else side_for(sides_px, device))
    images = min(len(sides_px), _MAX_IMAGES[device])
    batch = min(params.batch_images or devices * (256 if device == "cuda" else 64), images)
    return TrainingPlan(
        shape=start.shape if start else _shape(params, side, device),
        preprocessing=at_side(start.preprocessing, side) if start else Preprocessing(side),
        view_px=side if start else side * 3 // 4,
        images=images,
        batch_images=batch,
        views=_VIEWS,
        accumulate=devices,
        steps=0 if params.epochs is None else max(1, round(params.epochs * images / batch)),
        learning_rate=(0.24 if device == "cuda" else 0.17) * (0.1 if start else 1) * devices**0.5,
        weight_decay=5e-4,
        temperature=0.2,
        hidden=2048 if device == "cuda" else 512,
        number_format=number_format,
        seed=params.seed,
        start=weights_digest(start.weights) if start else None,
    )


def check_count(images: int) -> None:
    """Refuse to train on fewer than `LEAST_IMAGES` images. Raises InputError."""
    if images < LEAST_IMAGES:
        raise InputError(
            f"expected at least {LEAST_IMAGES} images to train an encoder on, found {images}; "
            "add images, or take --encoder pixels or a pretrained one"
        )


def side_for(sides_px: np.ndarray, device: Literal["cpu", "cuda"]) -> int:
    """Image side for a pool: near that of its median image, up to what the device can train on in minutes."""
    median = float(np.median(sides_px))
    steps = (32, 64) if device == "cpu" else (32, 64, 128)
    return next((side for side in steps if median <= 1.5 * side), steps[-1])


def _shape(params: EncoderParams, side: int, device: Literal["cpu", "cuda"]) -> NetworkShape:
    stem_stride: Literal[1, 2, 4] = 1 if side <= 40 else 2 if side <= 96 else 4
    if device == "cpu":
        return NetworkShape("resnet9", params.width or 16, stem_stride)
    return NetworkShape("resnet18", params.width or 64, stem_stride)


def training_key(identity: dict[str, Any], sample_ids: Sequence[str]) -> str:
    """64 hex digits over a training's identity and the ids of its images, in order."""
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for sample_id in sample_ids:
        digest.update(f"\n{sample_id}".encode())
    return digest.hexdigest()
