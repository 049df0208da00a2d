"""The training-free encoder: `pixel_features` alone.

For smoke runs, tests and pools of a handful of images. On CIFAR-10 its 20-NN accuracy stands well above raw pixels'.
"""

import torch

from wtl_core.encoders.encoder import Encoder, build
from wtl_core.encoders.pixel_features import BIAS, CELLS, COLOUR_WEIGHT, COLOURS, DIRECTIONS, SIDE_PX, Pixels
from wtl_core.encoders.preprocessing import Preprocessing


def pixels(device: torch.device) -> Encoder:
    """The encoder named `pixels`. float32 everywhere: it is small, and its fingerprint is the same on every machine."""
    module = Pixels()
    return build(
        module,
        name="pixels",
        architecture={
            "network": "pixels",
            "weights": [COLOUR_WEIGHT, BIAS],
            "cells": [CELLS, DIRECTIONS, COLOURS],
        },
        preprocessing=Preprocessing(SIDE_PX, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        device=device,
        number_format="float32",
        card={"method": "pixels", "licence": "none: nothing is trained"},
    )
