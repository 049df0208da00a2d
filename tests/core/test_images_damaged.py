"""Images that are cut, padded, damaged or too large are refused, each for its reason."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.small_images import LIMITS, encoded, picture, reason_of
from wtl_core.images import decode, examine, headers, scan
from wtl_core.images.decode import decode_rgb
from wtl_core.images.faults import ImageError, Reason


def test_every_cut_of_every_format_is_refused() -> None:
    image = picture(24, 16)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"):
        data = encoded(image, kind)
        whole = decode.decode(data).pixels
        for cut in range(0, len(data), max(1, len(data) // 150)):
            try:
                pixels = decode.decode(data[:cut]).pixels
            except ImageError:
                continue
            # a cut that only takes bytes behind the pixels (TIFF's and GIF's last ones) may pass, padding may not
            assert np.array_equal(pixels, whole), f"{kind} cut at {cut} of {len(data)} was padded"


def test_jpeg_and_png_need_their_last_byte() -> None:
    for kind in ("JPEG", "PNG"):
        data = encoded(picture(), kind)
        for cut in range(12, len(data)):
            assert reason_of(data[:cut]) == Reason.TRUNCATED


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"optimize": True}, {"restart_marker_blocks": 4}])
@pytest.mark.parametrize("fill", ["closed", "zeros"])
def test_jpeg_that_was_cut_and_then_closed_is_refused(options: dict[str, object], fill: str) -> None:
    data = encoded(picture(128, 96), "JPEG", quality=85, **options)
    start = headers.read_jpeg(data).scan_start
    for cut in range(start + 10, start + (len(data) - start) * 9 // 10, 97):
        tail = b"\xff\xd9" if fill == "closed" else bytes(len(data) - cut - 2) + b"\xff\xd9"
        assert reason_of(data[:cut] + tail) == Reason.TRUNCATED


@pytest.mark.parametrize("fill", ["closed", "zeros"])
def test_a_progressive_jpeg_cut_anywhere_in_its_scans_is_refused(fill: str) -> None:
    """A cut in the last scan loses refinements of coefficients: no pixel turns grey."""
    data = encoded(picture(128, 96), "JPEG", progressive=True)
    for cut in [*range(1, 41), 100, 400]:
        lost = b"" if fill == "closed" else bytes(cut + 40)
        assert reason_of(data[: -2 - cut] + lost + b"\xff\xd9") == Reason.TRUNCATED


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 4}])
@pytest.mark.parametrize("image", [picture(128, 96), Image.new("RGB", (128, 96), (128, 128, 128))])
def test_stray_bytes_between_a_whole_scan_and_the_end_marker_do_no_harm(
    image: Image.Image, options: dict[str, object]
) -> None:
    data = encoded(image, "JPEG", **options)
    pixels = decode.decode(data).pixels
    for stray in (bytes(8), bytes(40), bytes(5000), b"\x12\x34\x56\x78", b"\xff\xff"):
        assert np.array_equal(decode.decode(data[:-2] + stray + b"\xff\xd9").pixels, pixels)


def test_a_progressive_jpeg_in_four_colours_is_verified_too() -> None:
    data = encoded(picture(128, 96).convert("CMYK"), "JPEG", progressive=True)
    assert decode.decode(data).pixels.shape == (96, 128, 3)
    assert reason_of(data[:-30] + b"\xff\xd9") == Reason.TRUNCATED


def test_progressive_jpeg_without_its_last_scans_is_refused() -> None:
    data = encoded(picture(128, 96), "JPEG", progressive=True)
    last_scan = data.rfind(b"\xff\xda")
    assert reason_of(data[:last_scan] + b"\xff\xd9") == Reason.TRUNCATED


def test_a_profile_that_looks_like_a_scan_does_no_harm() -> None:
    profile = b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x05" * 10
    data = encoded(picture(128, 96), "JPEG", progressive=True, icc_profile=profile)
    assert decode.decode(data).format == "jpeg"


def test_flat_and_grey_images_are_not_taken_for_padding() -> None:
    for colour in (0, 128, 255):
        for optimize in (False, True):
            data = encoded(Image.new("RGB", (300, 200), (colour,) * 3), "JPEG", optimize=optimize)
            assert scan.has_grey_corner(decode.decode(data).pixels) == (colour == 128)
    half = picture(128, 96)
    half.paste((128, 128, 128), (64, 0, 128, 96))
    assert decode.decode(encoded(half, "JPEG", quality=95)).format == "jpeg"


def test_bytes_behind_the_end_marker_change_no_pixel() -> None:
    data = encoded(picture(), "JPEG")
    assert np.array_equal(decode.decode(data).pixels, decode.decode(data + bytes(7)).pixels)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def test_bombs_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    tiff = bytearray(encoded(Image.new("L", (16, 16)), "TIFF"))
    gif = bytearray(encoded(Image.new("L", (16, 16)), "GIF"))
    gif[6:10] = b"\xff\xff\xff\xff"
    bmp = bytearray(encoded(Image.new("RGB", (16, 16)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    lossy, lossless = (bytearray(encoded(picture(), "WEBP", lossless=flag)) for flag in (False, True))
    lossy[26:30] = struct.pack("<HH", 16383, 16383)
    lossless[21:25] = struct.pack("<I", 16382 | 16382 << 14)
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + (b"\xff" * 2 + b"\0") * 2
    extended = b"RIFF" + struct.pack("<I", 66) + b"WEBP" + canvas + bytes(lossy[12:60])
    avif = bytearray(encoded(picture(), "AVIF"))
    sizes = avif.find(b"ispe") + 8
    avif[sizes : sizes + 8] = struct.pack(">II", 12000, 12000)
    data = bytearray(encoded(picture(), "JPEG"))
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 9] = b"\xff\xf0\xff\xf0"
    decode.load_codecs()
    monkeypatch.setattr(Image.Image, "load", explode)
    monkeypatch.setattr(torch.ops.image, "decode_jpeg", explode)
    monkeypatch.setattr(torch.ops.image, "decode_png", explode)
    bombs = (data, gif, bmp, lossy, lossless, avif)
    for bomb in (png_header(100_000, 100_000), extended, *map(bytes, bombs)):
        assert reason_of(bomb) == Reason.TOO_MANY_PIXELS
    assert reason_of(bytes(tiff), max_pixels=100) == Reason.TOO_MANY_PIXELS


def test_small_images_are_refused_by_their_shorter_side() -> None:
    assert reason_of(encoded(picture(64, 7), "PNG"), min_side_px=8) == Reason.TOO_SMALL
    assert decode.decode(encoded(picture(64, 8), "PNG"), min_side_px=8).format == "png"


def test_other_reasons_are_told_apart() -> None:
    assert reason_of(b"") == Reason.EMPTY
    assert reason_of(b"BMW prices of the year 2020") == Reason.NOT_AN_IMAGE
    assert reason_of(b"8BPS" + bytes(100)) == Reason.UNSUPPORTED
    lossless = bytearray(encoded(picture(), "JPEG"))
    lossless[lossless.find(b"\xff\xc0") + 1] = 0xC3
    assert reason_of(bytes(lossless)) == Reason.UNSUPPORTED
    png = bytearray(encoded(picture(), "PNG"))
    png[60] ^= 0xFF
    assert reason_of(bytes(png)) == Reason.CORRUPT


@given(
    seed=st.integers(0, 5),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=8),
    cut=st.integers(0, 4000),
)
@settings(max_examples=150, deadline=None)
def test_damaged_images_are_kept_or_refused_and_nothing_else(seed: int, edits: list[tuple[int, int]], cut: int) -> None:
    kind = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")[seed]
    data = bytearray(encoded(picture(40, 30, seed), kind))
    for position, value in edits:
        data[position % len(data)] = value
    damaged = bytes(data[: len(data) - cut % 50])
    try:
        examined = examine.examine(damaged, LIMITS, has_thumbnail=True)
    except ImageError:
        pass
    else:
        assert examined.width * examined.height <= LIMITS.max_pixels


@given(
    st.binary(max_size=300),
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0", b"BM"]),
)
@settings(max_examples=150, deadline=None)
def test_noise_behind_a_magic_number_is_refused(noise: bytes, magic: bytes) -> None:
    with contextlib.suppress(ImageError):
        decode_rgb(magic + noise)
