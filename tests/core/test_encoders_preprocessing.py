"""What an encoder does to an image before its network sees it, and the encoder without one."""

from typing import Any

import pytest
import torch
from torch import nn

from tests.small_encoders import images
from wtl_core.encoders import preprocessing
from wtl_core.encoders.preprocessing import Preprocessing, fit
from wtl_core.encoders.resolve import resolve
from wtl_core.errors import ConfigError
from wtl_core.training.augment import Strength, ViewParameters, random_parameters, views
from wtl_core.workspace.storage import Store


def test_pixels_needs_no_weights_and_gives_even_a_blank_image_a_vector(store: Store) -> None:
    encoder = resolve("pixels", store, device="cpu")
    grey = torch.full((1, 3, 32, 32), 127, dtype=torch.uint8)
    vectors = encoder.encode(torch.cat([grey, 0 * grey, images(2)]))
    assert torch.isfinite(vectors).all()
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert encoder.fingerprint == resolve("pixels", store, device="cpu").fingerprint


def test_pixels_puts_a_shifted_image_nearer_than_another_one(store: Store) -> None:
    encoder = resolve("pixels", store, device="cpu")
    smooth = nn.functional.interpolate(images(20, 5).float(), 36, mode="bicubic").clamp(0, 255).to(torch.uint8)
    here, there = encoder.encode(smooth[..., 2:34, 2:34]), encoder.encode(smooth[..., 3:35, 1:33])
    assert ((here @ there.T).argmax(dim=1) == torch.arange(20)).all()


@pytest.mark.parametrize("size", [(32, 32), (500, 375), (20, 90)])
def test_squash_keeps_the_whole_image_and_crop_its_middle(size: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    assert fit(image, Preprocessing(24)).shape == (3, 24, 24)
    assert fit(image, Preprocessing(24, "crop", 28)).shape == (3, 24, 24)
    both = fit(torch.stack([image, image]), Preprocessing(24))
    assert torch.equal(both[0], fit(image, Preprocessing(24)))


@pytest.mark.parametrize("is_upright", [False, True])
def test_a_long_strip_is_cropped_before_it_is_scaled_up(is_upright: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[int, int]] = []
    scale = preprocessing.resized
    monkeypatch.setattr(
        preprocessing, "resized", lambda batch, size, how: sizes.append(size) or scale(batch, size, how)
    )
    ramp = torch.linspace(0, 255, 4000).to(torch.uint8).expand(3, 8, 4000)
    strip = ramp.transpose(1, 2) if is_upright else ramp
    found = fit(strip, Preprocessing(24, "crop", 28))
    assert sorted(sizes[0]) == [28, 8 * 28]
    assert found.shape == (3, 24, 24)
    assert (found.float() - 127).abs().max() <= 2  # the middle of the ramp


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fit": "cover"}, "expected fit squash or crop, found 'cover'"),
        ({"fit": "crop"}, "expected resize_px of at least side_px, 32"),
        ({"std": (0.0, 1.0, 1.0)}, "above 0"),
    ],
)
def test_preprocessing_that_would_do_something_else_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Preprocessing(32, **values)


def test_a_draw_that_changes_nothing_gives_the_image_itself() -> None:
    still = ViewParameters(torch.eye(2, 3).repeat(8, 1, 1), torch.eye(3).repeat(8, 1, 1), torch.ones(8))
    assert torch.allclose(views(images(8), still, 32), images(8).float() / 255, atol=1e-5)


def test_a_crop_shows_the_part_that_was_drawn() -> None:
    ramp = torch.arange(32, dtype=torch.uint8).view(1, 1, 1, 32).expand(64, 3, 32, 32)
    seen = views(
        ramp, random_parameters(64, Strength(jitter=0, hue=0, grey_probability=0), torch.Generator().manual_seed(1)), 24
    )
    row = seen[:, 0, 12] * 255
    assert (row.amin(dim=1) >= -0.01).all()
    assert (row.amax(dim=1) <= 31.01).all()
    spans = row.amax(dim=1) - row.amin(dim=1)
    assert 8 < float(spans.min()) < float(spans.max()) < 31.1
    assert ((row[:, -1] - row[:, 0]) < 0).float().mean() > 0.3  # some are flipped


def test_colour_jitter_is_one_matrix_and_a_contrast() -> None:
    strength = Strength(least_area=1, grey_probability=0)
    random = random_parameters(512, strength, torch.Generator().manual_seed(0))
    grey = torch.tensor((0.299, 0.587, 0.114))
    plain = (random.colours - torch.eye(3)).abs().amax(dim=(1, 2)) < 1e-5
    assert 0.1 < plain.float().mean() < 0.3  # one in five keeps its colours
    white = random.colours @ torch.ones(3)
    assert torch.allclose(white, white[:, :1].expand(-1, 3), atol=2e-3)  # hue and saturation leave white and grey alone
    assert (white[:, 0] - 1).abs().max() <= 0.4 + 1e-3
    only_grey = random_parameters(64, Strength(jitter=0, hue=0, grey_probability=1), torch.Generator()).colours
    assert torch.allclose(only_grey, grey.expand(64, 3, 3), atol=1e-5)
