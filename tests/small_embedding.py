"""Small pictures, a small encoder, and what embedding them gives, for several test modules."""

import io

import numpy as np
import torch
from PIL import Image
from torch import nn

from wtl_core.embedding import embedder
from wtl_core.encoders.encoder import Encoder, build
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing

CPU = torch.device("cpu")


def picture(seed: int, *, kind: str = "JPEG", orientation: int = 1, mode: str = "RGB", size: int = 20) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (size, size + seed % 5, 3), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


def items(count: int) -> list[tuple[str, bytes | None]]:
    return [(f"s{row}", picture(row)) for row in range(count)]


def make_encoder(number_format: str = "float32", module: nn.Module | None = None) -> Encoder:
    torch.manual_seed(0)
    return build(
        module or build_network(NetworkShape("resnet9", 8)),
        name="t",
        architecture={},
        preprocessing=Preprocessing(16),
        device=CPU,
        number_format=number_format,  # type: ignore[arg-type]
    )


def gather(pieces: list[embedder.Piece]) -> tuple[list[str], np.ndarray, list[tuple[str, str, str]]]:
    ids = [sample_id for piece in pieces for sample_id in piece.ids]
    failures = [failure for piece in pieces for failure in piece.failures]
    return ids, np.concatenate([piece.vectors for piece in pieces]), failures
