"""Encoders from timm's and torchvision's networks, at the published image side or at another one.

Not here: how a network and its weights are found (`foreign`), and a user's own networks (`factory`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from wtl_core.encoders.encoder import Encoder, NumberFormat, build
from wtl_core.encoders.foreign import Foreign, fetch, first_line
from wtl_core.encoders.preprocessing import at_side
from wtl_core.errors import ConfigError
from wtl_core.recipe.encoder_names import EncoderName

_MOST_DIMENSIONS = 8192
"""Pooled features have fewer; unpooled ones of torchvision's networks had up to 86,528."""


def load_pretrained(
    name: EncoderName,
    *,
    device: torch.device,
    side_px: int | None = None,
    number_format: NumberFormat | None = None,
) -> Encoder:
    """A timm or torchvision network's pooled features, at another side than its publisher's if one is given.

    Raises:
        ConfigError: there is no such network, its weights cannot be had (the message says which file to put where),
            its features are not pooled, or it cannot take the side.
    """
    foreign = fetch(name)
    if side_px is not None:
        foreign = _at_side(foreign, name, side_px)
    label = f"{name.kind}:{name.value}"
    encoder = build(
        foreign.network,
        name=label,
        architecture={"network": label},
        preprocessing=foreign.preprocessing,
        device=device,
        number_format=number_format,
        card={"method": "pretrained", "network": label, "licence": foreign.licence},
    )
    check_pooled(name, encoder.dimensions)
    return encoder


def _at_side(foreign: Foreign, name: EncoderName, side_px: int) -> Foreign:
    """The network at another side; timm interpolates position embeddings."""
    network: Any = foreign.network.eval()
    with _takes_side(name, side_px):
        if hasattr(network, "set_input_size"):
            network.set_input_size(img_size=side_px)
        with torch.no_grad():
            network(torch.zeros(1, 3, side_px, side_px))
    return replace(foreign, preprocessing=at_side(foreign.preprocessing, side_px))


def check_side_as_built(name: EncoderName, foreign: Foreign, side_px: int) -> None:
    """Refuse a side that the network cannot take without being built anew for it. Raises ConfigError."""
    with _takes_side(name, side_px), torch.no_grad():
        foreign.network.eval()(torch.zeros(1, 3, side_px, side_px))


@contextmanager
def _takes_side(name: EncoderName, side_px: int) -> Iterator[None]:
    """Turn whatever a network raises for a side that it cannot take into a ConfigError."""
    try:
        yield
    except Exception as error:
        # Networks raise assertions, errors of shapes that do not fit, and types of their own.
        raise ConfigError(
            f"encoder.side_px: expected a side that {name.kind}:{name.value} can take, found {side_px} "
            f"({first_line(error)}); try a multiple of 32 or of its patches, or leave it out"
        ) from error


def check_pooled(name: EncoderName, dimensions: int) -> None:
    """Refuse feature maps that only the network's classifier would pool: such vectors would fill disk and memory."""
    if dimensions > _MOST_DIMENSIONS:
        raise ConfigError(
            f"{name.kind}:{name.value}: expected at most {_MOST_DIMENSIONS:,} dimensions, found {dimensions:,}, as its "
            "features are not pooled; take its namesake of timm where there is one, or a python: factory that pools"
        )
