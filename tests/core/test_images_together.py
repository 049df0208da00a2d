"""Images decoded together, and in several threads, give what each gives alone."""

import warnings
from concurrent.futures import ThreadPoolExecutor

from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.small_images import encoded, picture
from wtl_core.images import decode
from wtl_core.images.faults import ImageError


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
