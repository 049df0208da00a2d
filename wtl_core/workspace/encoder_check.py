"""What a commit says of its encoder's features. Imports no storage library, since encoders are made without one."""

from pydantic import BaseModel, ConfigDict


class EncoderCheck(BaseModel):
    """How much an encoder's features say about the pool that it was made for, see `training.strength_check`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    shared_neighbours: float
    """Share of an image's ten nearest that another view of it has too."""
    by_pixels: float
    """The same share by features without training."""
