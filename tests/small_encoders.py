"""Small networks, their weights and stored encoders, for several test modules."""

import shutil
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from wtl_core.encoders.cards import FOLDER, WEIGHTS, save_encoder
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.workspace.storage import Store

SHAPE = NetworkShape("resnet9", 8)


def weights(seed: int = 0, shape: NetworkShape = SHAPE) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    network = build_network(shape)
    for _ in range(2):
        network(torch.rand(16, 3, 32, 32))  # moves the running statistics away from 0 and 1
    return network.state_dict()


def images(count: int, side: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, side, side), dtype=np.uint8))


def timm_weights(name: str, folder: Path) -> str:
    """A timm network's name with random weights in a file."""
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model(name, pretrained=False).state_dict(), folder / f"{name}.safetensors")
    return f"timm:{name}@{folder / name}.safetensors"


FACTORY = """
import torch
from torch import nn
from wtl_core.encoders.preprocessing import Preprocessing
torch.manual_seed(3)
NET = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def kept(): return NET, Preprocessing(32)
def drawn(): return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.Flatten()), Preprocessing(32)
class Wrong(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.give = give
    def forward(self, x): return self.give(x)
def pair(): return Wrong(lambda x: (x, x)), Preprocessing(32)
def flat(): return Wrong(lambda x: x.mean((1, 2, 3))), Preprocessing(32)
def one(): return Wrong(lambda x: x.mean(0, keepdim=True)), Preprocessing(32)
def none(): return ()
def broken(): raise FileNotFoundError("weights.bin")
"""


def write_weights(target: Path, seed: int) -> str:
    """A weights file as `wtl` writes it; the encoder's fingerprint."""
    torch.manual_seed(seed)
    shape, store = NetworkShape("resnet9", 8), Store(f"{target}-{seed}")
    digest = save_encoder(
        store,
        build_network(shape).state_dict(),
        shape=shape,
        preprocessing=Preprocessing(32),
        number_format="float32",
        card={"method": "none"},
    )
    shutil.copy(store.path(f"{FOLDER}/{digest}/{WEIGHTS}"), target)
    return digest
