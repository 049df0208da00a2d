"""The embedding engine: a vector is a function of its image alone, and nothing that fails becomes a vector."""

import dataclasses
import io
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from typing import cast
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from tests.small_embedding import gather, items, make_encoder, picture
from wtl_core.embedding import embedder, nvjpeg
from wtl_core.embedding.embedder import embed
from wtl_core.embedding.nvjpeg import NvjpegDecoder, plain_pixels
from wtl_core.embedding.squares import CpuDecoder
from wtl_core.encoders.encoder import Encoder, build
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing
from wtl_core.errors import ConfigError


def naive(encoder: Encoder, images: list[tuple[str, bytes | None]]) -> np.ndarray:
    """One image after the other, no threads, no batches but the fixed one."""
    from wtl_core.images.decode import decode_rgb

    squares = [encoder.fit(decode_rgb(data)) for _, data in images if data is not None]
    return torch.cat([encoder.encode(square.unsqueeze(0)) for square in squares]).to(torch.float16).numpy()


@pytest.mark.parametrize("number_format", ["float32", "bfloat16"])
def test_batches_workers_and_neighbours_change_no_bit(number_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, images = make_encoder(number_format), items(101)
    expected = naive(encoder, images)
    for workers, rows in ((1, 256), (3, 1), (2, 90), (2, 1000)):
        monkeypatch.setattr(embedder, "LEAST_PIECE_ROWS", rows)
        ids, vectors, failures = gather(list(embed(encoder, images, workers=workers)))
        assert ids == [sample_id for sample_id, _ in images]
        assert np.array_equal(vectors, expected)
        assert failures == []
    _, shuffled, _ = gather(list(embed(encoder, images[::-1])))
    assert np.array_equal(shuffled[::-1], expected)


@pytest.mark.parametrize(("workers", "piece", "part"), [(1, 256, 32), (2, 256, 32), (16, 512, 8), (64, 2048, 8)])
def test_on_many_cores_each_still_decodes_several_files_at_a_time(workers: int, piece: int, part: int) -> None:
    rows = embedder.piece_rows(make_encoder(), workers)
    assert (rows, embedder.rows_at_once(rows, workers, is_whole=True)) == (piece, part)


def test_few_large_files_are_decoded_by_all_threads() -> None:
    for count, workers in ((32, 2), (32, 16), (7, 16), (1, 4)):
        part = embedder.rows_at_once(count, workers, is_whole=False)
        assert -(-count // part) >= min(count, workers)


def test_vectors_are_float16_of_unit_length() -> None:
    _, vectors, _ = gather(list(embed(make_encoder(), items(20))))
    assert vectors.dtype == np.float16
    assert np.allclose(np.linalg.norm(vectors.astype(np.float32), axis=1), 1, atol=2e-3)


def test_what_cannot_be_decoded_is_a_failure_with_its_reason() -> None:
    images = items(80)
    whole = dict(zip(*gather(list(embed(make_encoder(), images)))[:2], strict=True))
    images[3] = ("s3", None)
    images[40] = ("s40", picture(40)[:300])
    images[79] = ("s79", b"no image at all")
    ids, vectors, failures = gather(list(embed(make_encoder(), images)))
    assert [failure[:2] for failure in failures] == [("s3", "missing"), ("s40", "truncated"), ("s79", "not_an_image")]
    assert ids == [f"s{row}" for row in range(80) if row not in (3, 40, 79)]
    assert all(np.array_equal(vector, whole[sample_id]) for sample_id, vector in zip(ids, vectors, strict=True))


class Spoiled(nn.Module):
    """Gives nothing for dark images and no number for bright ones."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        level = values.mean(dim=(1, 2, 3))
        features = values.mean(dim=(2, 3)) + 1
        features[level < -1.7] = 0
        features[level > 2] = torch.nan
        return features


def flat(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (value, value, value)).save(buffer, "PNG")
    return buffer.getvalue()


def test_no_number_and_length_zero_are_refused_with_the_sample_named() -> None:
    images = [*items(10), ("dark", flat(0)), ("bright", flat(255)), ("last", flat(100))]
    ids, vectors, failures = gather(list(embed(make_encoder(module=Spoiled()), images)))
    assert ids == [*(f"s{row}" for row in range(10)), "last"]
    assert np.isfinite(vectors).all()
    assert [failure[:2] for failure in failures] == [("dark", "bad_vector"), ("bright", "bad_vector")]
    assert "the encoder gave length nan" in failures[1][2]


def test_nothing_gives_nothing() -> None:
    assert list(embed(make_encoder(), [])) == []


def test_only_failures_still_come_out() -> None:
    ids, vectors, failures = gather(list(embed(make_encoder(), [("a", None), ("b", None)])))
    assert (ids, vectors.shape, len(failures)) == ([], (0, 64), 2)


class Small(nn.Module):
    """Fits at most `limit` rows."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if len(values) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return values.flatten(1)[:, :8] + 3


def test_out_of_memory_halves_the_forward_pass_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    _, vectors, _ = gather(list(embed(make_encoder(module=Small(10)), items(50))))
    assert len(vectors) == 50
    assert "halved to 8 images" in caplog.text
    with pytest.raises(ConfigError, match="take a smaller network"):
        list(embed(dataclasses.replace(make_encoder(module=Small(2)), module=Small(0)), items(5)))


def test_an_error_of_the_reader_reaches_the_caller() -> None:
    def broken() -> Iterator[tuple[str, bytes | None]]:
        yield from items(3)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(embed(make_encoder(), broken()))


def test_leaving_early_stops_reading_and_leaves_no_thread() -> None:
    read = 0

    def endless() -> Iterator[tuple[str, bytes | None]]:
        nonlocal read
        data = picture(0)
        while True:
            read += 1
            yield f"s{read}", data

    pieces = cast(Iterator[embedder.Piece], embed(make_encoder(), endless(), workers=2))
    next(pieces)
    cast(Iterator[embedder.Piece], pieces).close()  # type: ignore[attr-defined]
    assert read < 3000
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wtl-")]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (picture(0), 20 * 20),
        (picture(3, size=300), 300 * 303),
        (picture(0, orientation=6), 0),
        (picture(0, mode="L"), 0),
        (picture(0, mode="CMYK"), 0),
        (picture(0, kind="PNG"), 0),
        (picture(0)[:20], 0),
        (b"", 0),
    ],
)
def test_only_plain_upright_colour_jpegs_go_to_the_gpu(data: bytes, expected: int) -> None:
    assert plain_pixels(data) == expected


@pytest.fixture
def no_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's decoder on the processor: torchvision takes a list of files on either device."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Mock())
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())


@pytest.mark.usefixtures("no_streams")
def test_the_gpu_decoder_sorts_odd_files_out_whatever_their_neighbours_are() -> None:
    encoder = make_encoder()
    chunk: list[tuple[str, bytes | None]] = [
        (f"s{row}", picture(row, kind="PNG" if row % 3 == 0 else "JPEG", orientation=6 if row % 5 == 0 else 1))
        for row in range(20)
    ]
    chunk[7] = ("gone", None)
    chunk[8] = ("cut", picture(8)[:300])  # plain by its head, refused by the decoder
    squares = NvjpegDecoder(encoder)(chunk)
    plain = CpuDecoder(encoder)(chunk)
    assert sorted(squares.ids) == sorted(plain.ids)
    assert sorted(failure[:2] for failure in squares.failures) == [("cut", "truncated"), ("gone", "missing")]
    expected = dict(zip(plain.ids, plain.pixels, strict=True))
    assert all(torch.equal(expected[name], pixels) for name, pixels in zip(squares.ids, squares.pixels, strict=True))


@pytest.mark.usefixtures("no_streams")
def test_the_gpu_decoder_holds_few_large_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, chunk = make_encoder(), items(20)
    whole = NvjpegDecoder(encoder)(chunk)
    batches, stacks = [], []
    decode, fit = nvjpeg.decode_batch, Encoder.fit
    monkeypatch.setattr(nvjpeg, "BATCH_BYTES", 3 * 2000)
    monkeypatch.setattr(nvjpeg, "FITTED_BYTES", 12 * 900)
    monkeypatch.setattr(nvjpeg, "decode_batch", lambda files, on: batches.append(len(files)) or decode(files, on))
    monkeypatch.setattr(Encoder, "fit", lambda self, images: stacks.append(len(images)) or fit(self, images))
    parts = NvjpegDecoder(encoder)(chunk)
    assert (parts.ids, sum(batches), sum(stacks)) == (whole.ids, 20, 20)
    assert max(batches) == 4  # of 400 to 480 pixels each
    assert max(stacks) <= 2
    assert torch.equal(parts.pixels, whole.pixels)


@pytest.mark.usefixtures("no_streams")
def test_short_memory_is_no_reason_to_decode_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    decoder = NvjpegDecoder(make_encoder())
    monkeypatch.setattr(nvjpeg.codecs(), "decode_jpeg", full)
    with pytest.raises(torch.OutOfMemoryError):
        decoder(items(3))


@pytest.mark.gpu
def test_on_a_gpu_odd_files_are_decoded_beside_the_plain_ones() -> None:
    encoder = build(
        build_network(NetworkShape("resnet18", 8, 4)),
        name="t",
        architecture={},
        preprocessing=Preprocessing(128),
        device=torch.device("cuda"),
    )
    images: list[tuple[str, bytes | None]] = [
        (
            f"s{row}",
            picture(row, kind="PNG" if row % 3 == 0 else "JPEG", orientation=6 if row % 5 == 0 else 1, size=150),
        )
        for row in range(64)
    ]
    images.append(("cut", picture(1, size=150)[:2000]))
    ids, vectors, failures = gather(list(embed(encoder, images)))
    assert sorted(ids) == sorted(f"s{row}" for row in range(64))
    assert [failure[0] for failure in failures] == ["cut"]
    on_cpu = naive(dataclasses.replace(encoder), images[:64])
    rows = [int(sample_id[1:]) for sample_id in ids]
    similarity = (vectors.astype(np.float32) * on_cpu[rows].astype(np.float32)).sum(axis=1)
    assert similarity.min() > 0.98
