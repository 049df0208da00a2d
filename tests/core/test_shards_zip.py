"""Zip shards: members with their sidecars, damage named."""

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_shards import (
    JPEG,
    LIMIT,
    kept,
    make_jpeg,
    make_zip,
    read_bytes,
    refused,
)
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards import archives


def test_zip_members_are_read_with_their_sidecars(tmp_path: Path) -> None:
    entries = read_bytes(
        tmp_path,
        "a.zip",
        make_zip([("x/1.jpg", JPEG), ("x/1.json", b'{"a": 1}'), ("x/", b""), ("readme", b"hi"), ("0.jpg", b"")]),
    )
    assert kept(entries) == ["x/1.jpg"]
    assert entries[0].metadata == '{"a": 1}'
    assert refused(entries) == [("0.jpg", "empty")]


def test_a_damaged_zip_member_is_one_refusal(tmp_path: Path) -> None:
    data = bytearray(make_zip([("1.jpg", JPEG), ("2.jpg", JPEG)], zipfile.ZIP_STORED))
    data[100] ^= 0xFF
    entries = read_bytes(tmp_path, "a.zip", bytes(data))
    assert refused(entries) == [("1.jpg", "corrupt")]
    assert kept(entries) == ["2.jpg"]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_zip_never_does_more_than_lose_members(data: st.DataObject) -> None:
    raw = bytearray(make_zip([("1.jpg", JPEG), ("2.txt", b"x" * 50), ("3.jpg", JPEG)]))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: len(raw) - data.draw(st.sampled_from([0, 0, 0, 1, 30, 300]))]
    try:
        assert len(list(archives.read_zip(io.BytesIO(raw), size=len(raw), max_file_bytes=LIMIT))) <= 3
    except ImageError as error:
        assert error.reason in (Reason.BROKEN_SHARD, Reason.TOO_LARGE)  # noqa: PT017


def test_office_documents_are_not_opened(tmp_path: Path) -> None:
    entries = read_bytes(tmp_path, "letter.docx", make_zip([("1.jpg", JPEG)]))
    assert [(entry.data, entry.reason, entry.note) for entry in entries] == [(None, None, "not an image")]


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_member_is_one_refused_entry(tmp_path: Path, method: int) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for seed in range(3):
            archive.writestr(f"{seed}.jpg", make_jpeg(seed))
    data = bytearray(packed.getvalue())
    with zipfile.ZipFile(packed) as archive:
        info = archive.getinfo("1.jpg")
    start = info.header_offset + 30 + len(info.filename)
    data[start + 12 : start + info.compress_size - 4] = b"\xa5" * (info.compress_size - 16)
    entries = read_bytes(tmp_path, "a.zip", bytes(data))
    assert kept(entries) == ["0.jpg", "2.jpg"]
    assert refused(entries) == [("1.jpg", "corrupt")]
