"""Random views of a batch of images, computed on the device in three passes over it: crop with flip, colour, range.

All random numbers come from a generator of the step's own, on the processor. So a step's views are a function of
(seed, step), the same on every device, and a resumed run needs no generator state.
"""

from dataclasses import dataclass

import torch
from torch.nn import functional

# ITU-R BT.601: the weights of a grey value, and the matrix from RGB to YIQ
_GREY = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class Strength:
    """How far a view may be from its image.

    Attributes:
        least_area: Smallest share of the image's area in a crop; sides vary in proportion from 3:4 to 4:3.
        jitter: Largest relative change of brightness, contrast and saturation.
        hue: Largest turn of the hue, as a share of the circle.
        jitter_probability: Share of views whose colours change at all.
        grey_probability: Share of views without colour.
    """

    least_area: float = 0.2
    jitter: float = 0.4
    hue: float = 0.1
    jitter_probability: float = 0.8
    grey_probability: float = 0.2


@dataclass(frozen=True)
class ViewParameters:
    """The random part of n views, float32.

    Attributes:
        crops: (n, 2, 3) affine matrices from a view to its image, flip included; both have coordinates from -1 to 1.
        colours: (n, 3, 3) matrices by which RGB values are multiplied.
        contrasts: (n,) factors of the distance to a view's mean grey.
    """

    crops: torch.Tensor
    colours: torch.Tensor
    contrasts: torch.Tensor

    def to(self, device: torch.device) -> "ViewParameters":
        """The same numbers on `device`."""
        return ViewParameters(*(to_device(part, device) for part in (self.crops, self.colours, self.contrasts)))


def random_parameters(count: int, strength: Strength, generator: torch.Generator) -> ViewParameters:
    """Random parameters of `count` views, on the processor."""
    # Eleven columns are used. With fewer columns every number would change, and so all trained weights.
    uniform = torch.rand(count, 14, generator=generator).unbind(1)
    area = strength.least_area + (1 - strength.least_area) * uniform[0]
    ratio = torch.exp((2 * uniform[1] - 1) * torch.log(torch.tensor(4 / 3)) / 2)
    width, height = (area.sqrt() * ratio).clamp(max=1), (area.sqrt() / ratio).clamp(max=1)
    flip = torch.where(uniform[4] < 0.5, 1.0, -1.0)
    crops = torch.zeros(count, 2, 3)
    crops[:, 0, 0], crops[:, 0, 2] = width * flip, (1 - width) * (2 * uniform[2] - 1)
    crops[:, 1, 1], crops[:, 1, 2] = height, (1 - height) * (2 * uniform[3] - 1)
    is_jittered = uniform[5] < strength.jitter_probability
    spread = torch.where(is_jittered, strength.jitter, 0.0)
    brightness, contrast, saturation = (1 + spread * (2 * value - 1) for value in uniform[6:9])
    angle = torch.where(is_jittered, strength.hue, 0.0) * (2 * uniform[9] - 1) * 2 * torch.pi
    saturation = torch.where(uniform[10] < strength.grey_probability, 0.0, saturation)
    colours = brightness.view(-1, 1, 1) * (_saturation(saturation) @ _hue(angle))
    return ViewParameters(crops, colours, contrast)


def views(images: torch.Tensor, random: ViewParameters, side_px: int) -> torch.Tensor:
    """Views (n, 3, side_px, side_px) float32 in 0 to 1 of (n, 3, S, S) uint8 images on one device."""
    grid = functional.affine_grid(random.crops, [len(images), 3, side_px, side_px], align_corners=False)
    values = functional.grid_sample(
        images.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
    values = torch.einsum("nij,njhw->nihw", random.colours, values)
    grey = torch.tensor(_GREY, device=values.device).view(1, 3, 1, 1)
    middle = (values * grey).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    contrast = random.contrasts.view(-1, 1, 1, 1)
    return (values * contrast + middle * (1 - contrast)).clamp(0, 1)


def _saturation(amount: torch.Tensor) -> torch.Tensor:
    """Matrices that change the saturation: 0 gives grey, 1 the same colours, more than 1 stronger ones."""
    grey = torch.tensor(_GREY).expand(3, 3)
    amount = amount.view(-1, 1, 1)
    return amount * torch.eye(3) + (1 - amount) * grey


def _hue(angle: torch.Tensor) -> torch.Tensor:
    """Matrices that turn the hue: a rotation in YIQ, which is linear where HSV would need a branch per pixel."""
    forward = torch.tensor(_TO_YIQ)
    turn = torch.zeros(len(angle), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    turned: torch.Tensor = torch.linalg.inv(forward) @ turn @ forward
    return turned


def to_device(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`values` on `device`; a copy to a GPU is not waited for."""
    if device.type != "cuda":
        return values
    return values.pin_memory().to(device, non_blocking=True)
