"""Figures, digests and thumbnails of single images."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.small_images import LIMITS, encoded, picture
from wtl_core.images import examine, measure


def naive_measures(pixels: np.ndarray) -> tuple[float, float, float, float]:
    luma = (pixels.astype(np.int64) @ np.array([77, 150, 29]) + 128) >> 8
    shares = np.bincount(luma.ravel(), minlength=256) / luma.size
    shares = shares[shares > 0]
    edges = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    return edges.var(), luma.mean(), luma.std(), -(shares * np.log2(shares)).sum()


@pytest.mark.parametrize("size", [(64, 48), (31, 9), (256, 256)])
def test_measures_match_the_plain_formulas(size: tuple[int, int]) -> None:
    pixels = np.asarray(picture(*size))
    found = measure.measure(measure.shrink(pixels))
    expected = naive_measures(pixels)
    assert (found.sharpness, found.brightness, found.contrast, found.entropy) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("size", "factor"), [((500, 375), 2), ((700, 520), 3), ((2100, 64), 9), ((70000, 9), 274)])
def test_large_images_are_measured_on_whole_box_averages(size: tuple[int, int], factor: int) -> None:
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = measure.shrink(pixels)
    rows = min(factor, height)
    boxes = pixels[: height // rows * rows, : width // factor * factor].astype(np.int64)
    boxes = boxes.reshape(height // rows, rows, width // factor, factor, 3).sum(axis=(1, 3))
    assert np.array_equal(small, (boxes + rows * factor // 2) // (rows * factor))
    assert max(small.shape[:2]) <= 256


def test_a_blurred_image_is_less_sharp_and_a_flat_one_not_at_all() -> None:
    image = picture(200, 200)
    blurred = image.resize((50, 50)).resize((200, 200))
    sharp, soft = (measure.measure(np.asarray(i).copy()).sharpness for i in (image, blurred))
    assert sharp > 5 * soft
    assert measure.measure(np.full((20, 20, 3), 7, np.uint8)) == (0.0, 7.0, 0.0, 0.0, 0)


def test_perceptual_hash_survives_recompression_and_tells_images_apart() -> None:
    def phash(image: Image.Image) -> int:
        return measure.measure(measure.shrink(np.asarray(image.convert("RGB")).copy())).phash

    for seed in range(10):
        image = picture(300, 200, seed)
        again = Image.open(io.BytesIO(encoded(image, "JPEG", quality=60)))
        assert (phash(image) ^ phash(again)).bit_count() <= 6
        assert (phash(image) ^ phash(image.resize((150, 100)))).bit_count() <= 6
        assert (phash(image) ^ phash(picture(300, 200, seed + 100))).bit_count() > 8


def naive_hash(pixels: np.ndarray) -> int:
    """A bit for each of the 8 x 8 lowest frequencies but the first that is above the median of these 63."""
    luma = ((pixels.astype(np.int64) @ np.array([77, 150, 29]) + 128) >> 8).astype(np.float64)
    edges = [(np.arange(33) * size / 32) for size in luma.shape]
    starts, ends = ([np.floor(e[:-1]).astype(int) for e in edges], [np.ceil(e[1:]).astype(int) for e in edges])
    cells = [
        [luma[a:b, c:d].mean() for c, d in zip(starts[1], ends[1], strict=True)]
        for a, b in zip(starts[0], ends[0], strict=True)
    ]
    cosines = np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(32) + 1) / 64)
    values = (cosines @ np.array(cells) @ cosines.T).ravel()
    return sum(1 << i for i in range(1, 64) if values[i] > np.median(values[1:]) + 1e-6)


@pytest.mark.parametrize("size", [(64, 48), (31, 9), (256, 256), (100, 37)])
def test_the_perceptual_hash_is_that_of_its_definition(size: tuple[int, int]) -> None:
    for seed in range(5):
        pixels = np.asarray(picture(*size, seed))
        assert measure.measure(pixels.copy()).phash == naive_hash(pixels)


def test_twins_share_a_pixel_digest_and_near_twins_do_not() -> None:
    for size in ((64, 64), (400, 300)):
        data = encoded(picture(*size), "JPEG")
        png = np.asarray(Image.open(io.BytesIO(data))).copy()
        first, twin = (examine.examine(d, LIMITS, has_thumbnail=False) for d in (data, data + b"\0"))
        assert first.pixel_digest == twin.pixel_digest
        assert first.sample_id != twin.sample_id
        png[5, 5, 0] ^= 1
        assert (
            examine.examine(encoded(Image.fromarray(png), "PNG"), LIMITS, has_thumbnail=False).pixel_digest
            != first.pixel_digest
        )


def test_thumbnails_are_small_in_pixels_and_bytes() -> None:
    data = encoded(picture(500, 375), "JPEG", quality=95)
    thumbnail = examine.examine(data, LIMITS, has_thumbnail=True).thumbnail
    assert thumbnail is not None
    assert Image.open(io.BytesIO(thumbnail)).size == (125, 93)
    assert len(thumbnail) <= LIMITS.thumbnail_bytes
    small = encoded(picture(64, 64), "JPEG")
    shown = examine.examine(small, LIMITS, has_thumbnail=True)
    assert (shown.thumbnail, shown.is_own_thumbnail) == (None, True)
    tight = examine.Limits(10**8, 8, 128, 100)
    assert examine.examine(data, tight, has_thumbnail=True).thumbnail is None


def test_thumbnail_pixels_are_area_averages() -> None:
    pixels = np.asarray(picture(250, 180)).copy()
    assert measure.resize_within(pixels, 200).shape == (144, 200, 3)
    ours = measure.shrunk_by_area(pixels, 90, 125)
    assert np.abs(ours.astype(int) - measure.resize_within(pixels, 125)).max() <= 1
    boxes = pixels.reshape(90, 2, 125, 2, 3).astype(int).sum(axis=(1, 3))
    assert ours.shape == (90, 125, 3)
    assert np.abs(ours.astype(int) - boxes / 4).max() <= 0.51
