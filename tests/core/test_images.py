"""Decoding, verifying and measuring single images."""

import contextlib
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from wtl_core.images import decode, examine, headers, kinds, measure, scan
from wtl_core.images.decode import decode_rgb
from wtl_core.images.faults import ImageError, Reason

LIMITS = examine.Limits(max_pixels=10**8, min_side_px=8, thumbnail_px=128, thumbnail_bytes=16384)


def picture(width: int = 64, height: int = 48, seed: int = 0) -> Image.Image:
    """A smooth image with noise, so that no block of it is flat."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse).astype(int) + rng.integers(-20, 20, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason_of(data: bytes, **limits: int) -> Reason:
    with pytest.raises(ImageError) as caught:
        decode.decode(data, **limits)
    return caught.value.reason


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


def test_names_only_say_what_a_file_claims_to_be() -> None:
    assert kinds.claims_image("a/b.JPEG")
    assert kinds.claims_image("x.svg")
    assert not kinds.claims_image("jpg")
    assert kinds.kind_by_name("s3://b/x.tar.gz") == "tar"
    assert kinds.kind_by_name("weights.docx") == "loose"


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


def one_by_one(files: list[bytes]) -> list[tuple[str, str] | bytes]:
    """What `decode` makes of each file: its pixels' bytes, or the reason and message of its refusal."""
    out: list[tuple[str, str] | bytes] = []
    for data in files:
        try:
            pixels = decode.decode(data, max_pixels=decode.HIGHEST_MAX_PIXELS).pixels
        except ImageError as error:
            out.append((str(error.reason), error.message))
        else:
            out.append(str(pixels.shape).encode() + pixels.tobytes())
    return out


def all_at_once(files: list[bytes]) -> list[tuple[str, str] | bytes]:
    return [
        (str(image.reason), image.message)
        if isinstance(image, ImageError)
        else str(image.shape).encode() + image.tobytes()
        for image in decode.decode_trusted(files)
    ]


def test_verified_files_decoded_together_give_what_each_gives_alone_in_order() -> None:
    whole = encoded(picture(), "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    files = [
        whole,
        encoded(picture(seed=1), "PNG"),
        b"",
        whole[: len(whole) // 2],  # the decoder itself refuses it
        whole[: len(whole) // 2] + b"\xff\xd9",  # closed after the cut: only verifying refuses it
        encoded(picture(seed=2), "JPEG", exif=turned.tobytes()),
        encoded(picture(seed=3).convert("CMYK"), "JPEG"),
        encoded(picture(900, 700, seed=4), "JPEG"),  # too large to wait for the others
        encoded(picture(seed=5), "WEBP"),
        encoded(picture(seed=6), "JPEG", progressive=True),
        encoded(picture(seed=7).convert("L"), "JPEG"),
        b"\xff\xd8\xff" + bytes(40),
        encoded(picture(2, 1), "JPEG"),
    ]
    alone, together = one_by_one(files), all_at_once(files)
    assert [row for row, found in enumerate(alone) if isinstance(found, tuple)] == [2, 3, 4, 11]
    assert [row for row, found in enumerate(together) if isinstance(found, tuple)] == [2, 3, 11]
    assert [found[0] for found in together if isinstance(found, tuple)] == ["empty", "truncated", "truncated"]
    verified = [row for row, found in enumerate(alone) if isinstance(found, bytes)]
    assert [together[row] for row in verified] == [alone[row] for row in verified]
    assert all_at_once(files[::-1]) == together[::-1]
    assert all_at_once([]) == []


@given(st.lists(st.tuples(st.integers(2, 3000), st.integers(0, 255)), max_size=4), st.integers(0, 60))
@example([(21, 1)], 0)  # what Pillow cannot even name
@settings(max_examples=60, deadline=None)
def test_a_damaged_jpeg_never_changes_what_is_decoded_beside_it(edits: list[tuple[int, int]], cut: int) -> None:
    whole = encoded(picture(40, 30), "JPEG")
    damaged = bytearray(whole)
    for position, value in edits:
        damaged[position % len(damaged)] = value
    files = [whole, bytes(damaged[: len(damaged) - cut]), whole]
    alone, together = one_by_one(files), all_at_once(files)
    assert (together[0], together[2]) == (alone[0], alone[2])
    assert together[1] == alone[1] or isinstance(alone[1], tuple)


def test_pillows_own_guards_stand_again_after_decoding() -> None:
    """Its limit of pixels and the filters of warnings belong to the process: a notebook may rely on both."""
    limit, filters = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    assert limit
    files = [encoded(picture(200, 150, seed), "WEBP") for seed in range(8)] + [b"RIFF1234WEBPVP8 broken"]
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(one_by_one, [files] * 8))
    assert all(found == decoded[0] for found in decoded)
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == (limit, filters)


def test_an_image_above_pillows_limit_and_below_ours_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode.decode(encoded(picture(64, 48), "WEBP")).pixels.shape == (48, 64, 3)
    assert reason_of(encoded(picture(64, 48), "WEBP"), max_pixels=3000) == Reason.TOO_MANY_PIXELS


def test_decode_rgb_gives_planes_for_torch() -> None:
    pixels = decode_rgb(encoded(picture(64, 48), "JPEG"))
    assert (pixels.shape, pixels.dtype) == ((3, 48, 64), torch.uint8)
