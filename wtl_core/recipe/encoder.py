"""Parameters of the encoder: which network, how long it trains, and when it gets a successor. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from wtl_core.recipe import encoder_names
from wtl_core.recipe.base import Params

PACKAGE_SIDE_PX = 160
"""The side of `package:` where none is asked for. On CIFAR-10 it gave the best features: 77.9 % by 20-NN with 10,000
references, against 73.9 at 96 px, 76.5 at 128 and 75.4 at 224 (2026-11-26)."""


class EncoderParams(Params):
    """Which network turns an image into a vector, and how one is trained where none is given."""

    name: str = "auto"
    """`auto`, `package:NAME`, `ssl`, `pixels`, `timm:NAME`, `torchvision:NAME`, `file:PATH`, or the path of an encoder
    in a workspace."""
    seconds: float = Field(300, gt=0, le=30 * 86400)
    """Wall-clock budget of training, which after a warm-up becomes a number of steps, so that a rerun trains the same
    number. With `auto` the image side of a packaged network is chosen so that embedding the pool fits into it."""
    epochs: float | None = Field(None, gt=0, le=100_000)
    """Passes over the pool's images instead of seconds."""
    side_px: int | None = Field(None, ge=16, le=512)
    """Image side of `ssl` and of named networks. If not given, `ssl` takes it from the pool's sizes, `package:` 160,
    and the others as published. `auto` chooses its own."""
    width: int | None = Field(None, ge=8, le=256)
    """Channels of the first stage of `ssl`; vectors have 8 times as many dimensions. Default: 16 on a CPU, 64 on a
    GPU."""
    batch_images: int | None = Field(None, ge=8, le=65_536)
    """Images in a training step. If not given, it depends on the machine."""
    start: str | None = None
    """Weights that training starts from: an encoder's fingerprint, file or folder, or `timm:NAME`. If not given, random
    weights."""
    seed: int = Field(0, ge=0, le=2**63 - 1)
    """Seed of the first weights, the order of images and their random views."""
    compile: bool = False
    """Compile a named network for its GPU. Takes half a minute a run, which pays from about a million images on."""
    retrain: Literal["advise", "automatic", "never"] = "advise"
    """What to do when the pool has outgrown its encoder: `advise` retraining, or let the next refresh do it
    (`automatic`), or nothing (`never`)."""
    retrain_growth: float = Field(2.0, gt=1, le=1_000_000)
    """Retraining is due once the pool has this many times as many images as when the encoder was trained."""
    retrain_drift: float = Field(0.6, gt=0.5, le=1)
    """Retraining is also due once more than this share of the new images' nearest neighbours are new as well; 0.5 is
    expected if new and old images look alike."""

    def with_absolute_paths(self) -> Self:
        """The parameters with the paths in `name` and `start` made absolute; see `Recipe.with_absolute_paths`."""
        start = None if self.start is None else encoder_names.absolute(self.start)
        return self.model_copy(update={"name": encoder_names.absolute(self.name), "start": start})

    @model_validator(mode="after")
    def _check_compile(self) -> Self:
        if self.compile and self.name in ("auto", "ssl"):
            raise ValueError(
                f"encoder.compile: expected a network given by name, found {self.name!r}, whose networks are so small "
                "that compiling takes longer than a million images; leave it false"
            )
        return self
