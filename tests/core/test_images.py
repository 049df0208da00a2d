"""Decoding single images of every format."""

import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.small_images import encoded, picture, reason_of
from wtl_core.images import decode, headers, kinds
from wtl_core.images.decode import decode_rgb
from wtl_core.images.faults import ImageError, Reason


def test_lossless_formats_give_their_pixels() -> None:
    image = picture()
    for kind, name in (("PNG", "png"), ("BMP", "bmp"), ("TIFF", "tiff")):
        decoded = decode.decode(encoded(image, kind))
        assert decoded.format == name
        assert np.array_equal(decoded.pixels, np.asarray(image))
    assert np.array_equal(decode.decode(encoded(image, "WEBP", lossless=True)).pixels, np.asarray(image))


def test_lossy_formats_are_told_by_their_first_bytes_and_come_close() -> None:
    image = picture()
    for kind, name in (("JPEG", "jpeg"), ("WEBP", "webp"), ("AVIF", "avif")):
        decoded = decode.decode(encoded(image, kind, quality=95))
        assert decoded.format == name
        assert np.abs(decoded.pixels.astype(int) - np.asarray(image)).mean() < 12


def test_heic_is_read_where_the_extra_is_installed() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    decoded = decode.decode(encoded(picture(), "HEIF", quality=95))
    assert (decoded.format, decoded.pixels.shape) == ("heic", (48, 64, 3))


def test_heic_without_the_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
    with pytest.raises(ImageError, match=r"pip install wtl\[heic\]") as caught:
        decode.decode(data)
    assert caught.value.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "I;16"])
def test_png_modes_become_rgb_without_alpha(mode: str) -> None:
    if mode == "I;16":
        levels = np.arange(64 * 48, dtype=np.uint16).reshape(48, 64) * 20
        image, expected = Image.fromarray(levels), np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    else:
        image = picture().convert(mode)
        expected = np.asarray(image.convert("RGB"))
    decoded = decode.decode(encoded(image, "PNG"))
    assert np.array_equal(decoded.pixels, expected)


def test_palette_png_with_transparency_keeps_its_colours() -> None:
    image = picture().quantize(16)
    decoded = decode.decode(encoded(image, "PNG", transparency=3))
    assert np.array_equal(decoded.pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}])
def test_jpeg_variants_decode_as_pillow_decodes_them(options: dict[str, object]) -> None:
    data = encoded(picture(), "JPEG", quality=90, **options)
    ours, theirs = decode.decode(data).pixels.astype(int), np.asarray(Image.open(io.BytesIO(data))).astype(int)
    assert np.abs(ours - theirs).max() <= 4


def test_cmyk_and_grey_jpegs_become_rgb() -> None:
    for mode in ("CMYK", "L"):
        data = encoded(picture().convert(mode), "JPEG", quality=95)
        theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
        assert np.abs(decode.decode(data).pixels.astype(int) - theirs).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_turns_pixels_upright(orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    for kind in ("JPEG", "PNG", "TIFF", "WEBP"):
        data = encoded(picture(), kind, exif=tags)
        from PIL import ImageOps

        expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB"))
        assert decode.decode(data).pixels.shape == np.asarray(expected).shape
        assert np.abs(decode.decode(data).pixels.astype(int) - np.asarray(expected)).mean() < 2


def test_exif_time_is_kept() -> None:
    tags = Image.Exif()
    tags[0x0132] = "2022:01:01 00:00:00"  # of the file's last change: the photograph's own time wins
    tags.get_ifd(0x8769)[0x9003] = "2021:05:06 07:08:09"
    for kind in ("JPEG", "PNG", "WEBP"):
        assert decode.decode(encoded(picture(), kind, exif=tags)).taken_at == "2021-05-06T07:08:09"


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_no_exif_block_does_harm(block: bytes) -> None:
    for start in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert 1 <= headers.parse_exif(start + block).orientation <= 8


def test_first_frame_of_an_animation_is_taken_and_said_so() -> None:
    frames = [picture(seed=s) for s in range(3)]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], lossless=True)
        decoded = decode.decode(data)
        assert decoded.is_first_of_several
        assert np.abs(decoded.pixels.astype(int) - np.asarray(frames[0])).mean() < 15
    assert not decode.decode(encoded(frames[0], "GIF")).is_first_of_several


def test_names_only_say_what_a_file_claims_to_be() -> None:
    assert kinds.claims_image("a/b.JPEG")
    assert kinds.claims_image("x.svg")
    assert not kinds.claims_image("jpg")
    assert kinds.kind_by_name("s3://b/x.tar.gz") == "tar"
    assert kinds.kind_by_name("weights.docx") == "loose"


def test_an_image_above_pillows_limit_and_below_ours_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode.decode(encoded(picture(64, 48), "WEBP")).pixels.shape == (48, 64, 3)
    assert reason_of(encoded(picture(64, 48), "WEBP"), max_pixels=3000) == Reason.TOO_MANY_PIXELS


def test_decode_rgb_gives_planes_for_torch() -> None:
    pixels = decode_rgb(encoded(picture(64, 48), "JPEG"))
    assert (pixels.shape, pixels.dtype) == ((3, 48, 64), torch.uint8)
