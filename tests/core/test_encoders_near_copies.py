"""How far near-copies lie by an encoder: what a copy is, what is measured, and that it travels with the weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from wtl_core.encoders.cards import FOLDER, WEIGHTS, load_encoder, save_encoder
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.encoders.resolve import resolve
from wtl_core.encoders.whitening import fit_whitening
from wtl_core.training import near_copies
from wtl_core.workspace.storage import Store, open_store

CPU = torch.device("cpu")


def smooth(count: int, side: int = 32) -> torch.Tensor:
    """Images of soft shapes, as photographs have them: nothing moves far by a shift of two pixels."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    large = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=True)
    return (255 * large.clamp(0, 1)).to(torch.uint8)


def kept(store: Store, distance: float | None) -> str:
    torch.manual_seed(0)
    shape = NetworkShape("resnet9", 8)
    return save_encoder(
        store,
        build_network(shape).state_dict() | fit_whitening(torch.rand(100, shape.dimensions)).tensors(),
        shape=shape,
        preprocessing=Preprocessing(32),
        number_format="float32",
        card={},
        near_copy_distance=distance,
    )


def test_copies_are_the_image_again_but_never_the_same_bytes() -> None:
    images = smooth(64)
    copies = near_copies.copies(images)
    assert (copies.shape, copies.dtype) == (images.shape, torch.uint8)
    assert torch.equal(copies, near_copies.copies(images))
    assert (copies != images).flatten(1).any(1).all()
    flat, others = images.double().flatten(1), copies.double().flatten(1)
    nearest = torch.cdist(others, flat).argmin(1)
    assert torch.equal(nearest, torch.arange(64))
    one_pixel = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)  # smaller than any network takes
    assert near_copies.copies(one_pixel).shape == one_pixel.shape


def test_copies_are_made_a_few_at_a_time_as_if_all_were_made_at_once() -> None:
    """Written down plainly, for all images together."""
    images = smooth(70, side=33)
    generator = torch.Generator().manual_seed(0)
    padded = torch.nn.functional.pad(images.float(), (2,) * 4, mode="reflect")
    tops, lefts = torch.randint(0, 5, (2, 70), generator=generator).tolist()
    places = zip(tops, lefts, strict=True)
    shifted = torch.stack([padded[row, :, y : y + 33, x : x + 33] for row, (y, x) in enumerate(places)])
    factors = 1 + 0.1 * (2 * torch.rand(70, 1, 1, 1, generator=generator) - 1)
    noise = 2.0 * torch.randn(images.shape, generator=generator)
    assert torch.equal(near_copies.copies(images), (shifted * factors + noise).clamp(0, 255).to(torch.uint8))


def test_nine_of_ten_copies_lie_within_the_distance(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    encoder = load_encoder(store, kept(store, None), device=CPU)
    images = smooth(200)
    found = near_copies.distance(encoder, images)
    moved = (encoder.encode(images) - encoder.encode(near_copies.copies(images))).norm(dim=1).numpy()
    assert 0.85 <= (moved <= found).mean() <= 0.95
    assert found < np.median((encoder.encode(images) - encoder.encode(images.roll(1, 0))).norm(dim=1).numpy())


def test_images_without_a_vector_have_no_say(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    encoder = load_encoder(store, kept(store, None), device=CPU)

    class Blind(nn.Module):
        """Gives no numbers for images that are dark all over."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = encoder.module(values)
            return torch.where(values.flatten(1).amax(1, keepdim=True) < -1.0, torch.nan, found)

    blind, images = replace(encoder, module=Blind()), smooth(64)
    dark = torch.zeros_like(images[:3])
    alone = near_copies.distance(encoder, images)  # the copies of more images are others
    assert near_copies.distance(blind, torch.cat([images, dark])) == pytest.approx(alone, abs=0.005)
    assert near_copies.distance(blind, dark) is None


def test_it_travels_with_the_weights_and_changes_no_vector(tmp_path: Path) -> None:
    one, other = open_store(str(tmp_path / "one")), open_store(str(tmp_path / "other"))
    digest = kept(one, 0.31)
    assert kept(other, None) == digest
    images = smooth(4)
    encoders: list[Encoder] = [load_encoder(store, digest, device=CPU) for store in (one, other)]
    assert [encoder.near_copy_distance for encoder in encoders] == [0.31, None]
    assert torch.equal(encoders[0].encode(images), encoders[1].encode(images))
    assert resolve(f"file:{one.path(FOLDER)}/{digest}/{WEIGHTS}", other, device="cpu").near_copy_distance == 0.31
