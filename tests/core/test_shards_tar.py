"""Tar shards, packed or not: members and their sidecars as the standard library reads them, damage named."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.small_shards import (
    JPEG,
    LIMIT,
    kept,
    make_jpeg,
    make_tar,
    make_zip,
    read_bytes,
    refused,
)
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards import archives, samples, tar

NASTY = [
    "two\nlines.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "\x1b[31mred.jpg",
    "ü/é.jpg",
    "a" * 300 + ".jpg",
    "=1+1.jpg",
]


# ---- tar ----
@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_members_match_the_standard_library(tar_format: int) -> None:
    names = [name for name in NASTY if len(name) < 100 or tar_format != tarfile.USTAR_FORMAT]
    data = make_tar([(name, JPEG + bytes(i)) for i, name in enumerate(names)], tar_format)
    ours = list(tar.read_members(io.BytesIO(data), max_file_bytes=LIMIT))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        theirs = archive.getmembers()
    assert [(m.name.decode(), m.size, m.offset) for m in ours] == [(m.name, m.size, m.offset_data) for m in theirs]


NAME_CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0/")


@given(
    members=st.lists(
        st.tuples(st.text(NAME_CHARACTERS, min_size=1, max_size=150), st.binary(max_size=1500)), max_size=6
    ),
    tar_format=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=60, deadline=None)
def test_any_tar_is_read_as_the_standard_library_reads_it(members: list[tuple[str, bytes]], tar_format: int) -> None:
    ours = tar.read_members(io.BytesIO(make_tar(members, tar_format)), max_file_bytes=LIMIT)
    assert [(member.name.decode(), member.data) for member in ours] == members


def test_a_tar_cut_at_any_byte_keeps_the_members_before_and_says_so() -> None:
    data = make_tar([(f"{i}.jpg", JPEG[:700]) for i in range(4)])
    last_block = 4 * (512 + 1024)
    for cut in range(0, last_block + 512, 7):
        members = tar.read_members(io.BytesIO(data[:cut]), max_file_bytes=LIMIT)
        for _ in range(cut // 1536):
            assert next(members).data == JPEG[:700]
        with pytest.raises(ImageError) as caught:
            next(members)
        assert caught.value.reason == Reason.BROKEN_SHARD


@given(
    archives_of=st.lists(st.lists(st.binary(max_size=1500), max_size=3), min_size=1, max_size=4),
    padding=st.integers(0, 1500),
)
@settings(max_examples=40, deadline=None)
def test_tars_one_after_another_are_read_to_the_last_byte(archives_of: list[list[bytes]], padding: int) -> None:
    data = b"".join(make_tar([("x", body) for body in bodies]) for bodies in archives_of) + bytes(padding)
    members = tar.read_members(io.BytesIO(data), max_file_bytes=LIMIT)
    assert [member.data for member in members] == [body for bodies in archives_of for body in bodies]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_a_second_archive_behind_the_first_is_read(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    data = make_tar([("1.jpg", JPEG)]) + make_tar([("2.jpg", make_jpeg(1))])
    assert kept(read_bytes(tmp_path, "a.tar", pack(data))) == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize("behind", [b"garbage", b"x" * 512, b"x" * 5000])
def test_what_follows_an_archive_and_is_none_is_refused(tmp_path: Path, behind: bytes) -> None:
    entries = read_bytes(tmp_path, "a.tar", make_tar([("1.jpg", JPEG)]) + behind)
    assert kept(entries) == ["1.jpg"]
    assert refused(entries) == [("", "broken_shard")]


def test_zeros_inside_a_member_reach_the_decoder_and_zeros_behind_it_are_padding(tmp_path: Path) -> None:
    data = make_tar([("1.jpg", JPEG), ("2.jpg", JPEG)])
    second = 512 + len(JPEG) + -len(JPEG) % 512
    assert kept(read_bytes(tmp_path, "a.tar", data[:second] + bytes(len(data) - second))) == ["1.jpg"]
    inside = second + 512 + 300
    entries = read_bytes(tmp_path, "b.tar", data[:inside] + bytes(len(data) - inside))
    assert [entry.data for entry in entries] == [JPEG, JPEG[:300] + bytes(len(JPEG) - 300)]
    at_once = second + 512
    entries = read_bytes(tmp_path, "c.tar", data[:at_once] + bytes(len(data) - at_once))
    assert refused(entries) == [("2.jpg", "not_an_image")]


def test_a_long_name_without_its_member_is_noticed(tmp_path: Path) -> None:
    for tar_format in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = make_tar([("a" * 300 + ".jpg", JPEG)], tar_format)
        extended = 512 + 512
        entries = read_bytes(tmp_path, "a.tar", data[:extended] + bytes(len(data) - extended))
        assert refused(entries) == [("", "broken_shard")]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_tar_never_does_more_than_end_early(data: st.DataObject) -> None:
    raw = bytearray(make_tar([("a.jpg", JPEG), ("b.txt", b"x"), ("c.jpg", JPEG)], data.draw(st.sampled_from([1, 2]))))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, min(len(raw) - 1, 6000)))] = data.draw(st.integers(0, 255))
    try:
        entries = list(archives.read_tar(io.BytesIO(raw), "tar", size=len(raw), max_file_bytes=LIMIT))
    except ImageError as error:
        assert error.reason in (Reason.BROKEN_SHARD, Reason.TOO_LARGE)  # noqa: PT017
    else:
        assert len(entries) <= 4


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_packed_tar_never_does_more_than_end_early(data: st.DataObject) -> None:
    packing, pack = data.draw(st.sampled_from([("gz", gzip.compress), ("zst", zstandard.compress)]))
    raw = bytearray(pack(make_tar([("a.jpg", JPEG), ("b.txt", b"x"), ("c.jpg", JPEG)])))
    for _ in range(data.draw(st.integers(0, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        entries = list(archives.read_tar(io.BytesIO(raw), packing, size=len(raw), max_file_bytes=LIMIT))
    except ImageError as error:
        assert error.reason in (Reason.BROKEN_SHARD, Reason.TOO_LARGE)  # noqa: PT017
    else:
        assert len(entries) <= 4


def with_size_field(field: bytes) -> bytes:
    data = bytearray(make_tar([("a.jpg", JPEG)]))
    data[124:136] = field
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize(
    "field", [b"\x80" + b"\xff" * 11, b"77777777777\0", b"-0000000001\0", b"zzzzzzzzzzz\0", b"\xff" * 12]
)
def test_absurd_sizes_in_a_header_break_the_shard_and_nothing_else(tmp_path: Path, field: bytes) -> None:
    assert refused(read_bytes(tmp_path, "a.tar", with_size_field(field))) == [("", "broken_shard")]


def test_members_over_the_limit_are_passed_over(tmp_path: Path) -> None:
    data = make_tar([("big.jpg", JPEG + bytes(5000)), ("big.bin", bytes(5000)), ("small.jpg", JPEG)])
    entries = read_bytes(tmp_path, "a.tar", data, max_file_bytes=3000)
    assert refused(entries) == [("big.jpg", "too_large")]
    assert kept(entries) == ["small.jpg"]


def test_links_directories_and_devices_are_named_and_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("folder", tarfile.DIRTYPE), ("link.jpg", tarfile.SYMTYPE), ("null", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    entries = read_bytes(tmp_path, "a.tar", buffer.getvalue())
    assert refused(entries) == [("link.jpg", "unsupported")]
    assert [entry.key for entry in entries] == ["link.jpg", "null"]


def test_two_members_of_one_name_are_two_locations(tmp_path: Path) -> None:
    entries = read_bytes(tmp_path, "a.tar", make_tar([("a.jpg", JPEG), ("a.jpg", make_jpeg(1))]))
    assert [(entry.key, entry.ordinal) for entry in entries] == [("a.jpg", 0), ("a.jpg", 1)]
    assert entries[0].data != entries[1].data


def test_names_that_are_not_utf8_stay_readable(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as archive:
        info = tarfile.TarInfo("caf\xe9.jpg")
        info.size = len(JPEG)
        archive.addfile(info, io.BytesIO(JPEG))
    assert kept(read_bytes(tmp_path, "a.tar", buffer.getvalue())) == ["caf\\xe9.jpg"]


def test_packed_tars_are_told_by_their_bytes_and_hold_the_same(tmp_path: Path) -> None:
    data = make_tar([(name, make_jpeg(i)) for i, name in enumerate(NASTY)])
    plain = read_bytes(tmp_path, "a.tar", data)
    packed = {"b.tar.gz": gzip.compress(data), "c.tar.zst": zstandard.compress(data), "d.tar": gzip.compress(data)}
    for name, body in packed.items():
        found = read_bytes(tmp_path, name, body)
        assert [(e.key, e.data, e.ordinal, e.offset) for e in found] == [(e.key, e.data, e.ordinal, -1) for e in plain]


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_packed_tar_cut_at_any_byte_is_noticed(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    rng = np.random.default_rng(0)
    data = pack(make_tar([(f"{i}.jpg", b"\xff\xd8\xff" + rng.bytes(400)) for i in range(5)]))
    for cut in range(20, len(data) - 40, 41):
        entries = read_bytes(tmp_path, "a.tar.gz", data[:cut])
        assert refused(entries)[-1] == ("", "broken_shard")


def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SPARE_BYTES", 1 << 20)
    data = make_tar([("a.jpg", JPEG), ("zeros.bin", bytes(8 << 20)), ("b.jpg", make_jpeg(1))])
    for name, body in (("a.tar.gz", gzip.compress(data)), ("b.tar.zst", zstandard.compress(data))):
        entries = read_bytes(tmp_path, name, body)
        assert refused(entries) == [("", "too_large")]
        assert kept(entries) == ["a.jpg"]


def test_sidecars_become_metadata_of_their_images(tmp_path: Path) -> None:
    label = json.dumps({"place": "Ulm", "id": 7}).encode()
    members = [("d/1.jpg", JPEG), ("d/1.json", label), ("d/1.cls", b"3"), ("d/2.txt", b"zwei <b>")]
    members += [("d/2.seg.png", JPEG), ("d/2.jpg", JPEG), ("3.json", b"{"), ("3.jpg", JPEG), ("4.jpg", JPEG)]
    entries = read_bytes(tmp_path, "a.tar", make_tar(members))
    metadata = {entry.key: json.loads(entry.metadata) if entry.metadata else None for entry in entries if entry.data}
    assert metadata == {
        "d/1.jpg": {"place": "Ulm", "id": 7, "cls": 3},
        "d/2.seg.png": {"txt": "zwei <b>"},
        "d/2.jpg": {"txt": "zwei <b>"},
        "3.jpg": {"json": "{"},
        "4.jpg": None,
    }
    assert [entry.note for entry in entries if entry.data is None] == ["sidecar"] * 4
    assert [entry.ordinal for entry in entries] == list(range(9))


APPLE = b"\0\5\x16\7" + bytes(100)


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_what_macos_keeps_beside_files_parts_no_sample(tmp_path: Path, suffix: str) -> None:
    members = [("._1.jpg", APPLE), ("1.jpg", JPEG), ("._1.json", APPLE), ("1.json", b'{"a": 1}'), ("2.jpg", JPEG)]
    entries = read_bytes(tmp_path, f"a.{suffix}", (make_tar if suffix == "tar" else make_zip)(members))
    assert {entry.key: entry.metadata for entry in entries if entry.data} == {"1.jpg": '{"a": 1}', "2.jpg": None}
    assert refused(entries) == []
    assert [entry.ordinal for entry in entries] == list(range(5))
    (entry,) = read_bytes(tmp_path, "._loose.jpg", APPLE)
    assert (entry.reason, entry.note) == (None, "AppleDouble, which macOS keeps beside a file")
    assert refused(read_bytes(tmp_path, "._is-an-own-name.jpg", b"junk")) == [("", "not_an_image")]


def test_a_frames_sidecar_is_its_own(tmp_path: Path) -> None:
    frames = [m for i in range(200) for m in ((f"cam.{i:04}.jpg", JPEG), (f"cam.{i:04}.json", b'{"n": %d}' % i))]
    entries = read_bytes(tmp_path, "a.tar", make_tar([("first.jpg", JPEG), *frames, ("cam.0900.json", b'{"n": 9}')]))
    found = [json.loads(entry.metadata or "{}") for entry in entries if entry.data]
    assert found == [{}, *({"n": i} for i in range(200))]
    members = [("b.jpg", JPEG), ("b.seg.png", JPEG), ("b.seg.cls", b"7"), ("b.meta.json", b'{"m": 1}'), ("b.txt", b"x")]
    entries = read_bytes(tmp_path, "b.tar", make_tar(members))
    assert {entry.key: json.loads(entry.metadata or "") for entry in entries if entry.data} == {
        "b.jpg": {"m": 1, "txt": "x"},
        "b.seg.png": {"cls": 7, "txt": "x"},
    }


def test_what_frames_lack_they_get_from_no_other_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However early large images are given out, and whatever macOS put between the members."""
    monkeypatch.setattr(samples, "MOST_BYTES", 3 * len(JPEG))
    members = [m for i in range(9) for m in ((f"cam.{i}.jpg", JPEG), (f"cam.{i}.json", b'{"n": %d}' % i))][:-12]
    members += [(f"cam.{i}.jpg", JPEG) for i in range(3, 9)]
    entries = read_bytes(tmp_path, "a.tar", make_tar(members))
    assert [entry.metadata for entry in entries if entry.data] == [*(f'{{"n": {i}}}' for i in range(3)), *[None] * 6]
    monkeypatch.undo()
    suffixes = {"jpg": JPEG, "json": b'{"a": 1}', "cls": b"3"}
    members = [(f"cam.{i:04}.{suffix}", data) for i in range(60) for suffix, data in suffixes.items()]
    members = [m for name, data in members for m in ((f"._{name}", APPLE), (name, data))]
    entries = read_bytes(tmp_path, "b.tar", make_tar(members))
    assert [entry.metadata for entry in entries if entry.data] == ['{"a": 1, "cls": 3}'] * 60
    assert [entry.ordinal for entry in entries] == list(range(360))


def test_a_cameras_raw_file_is_not_its_thumbnail(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (160, 120)).save(buffer, "TIFF")
    assert refused(read_bytes(tmp_path, "a.NEF", buffer.getvalue())) == [("", "unsupported")]
    assert kept(read_bytes(tmp_path, "a.tif", buffer.getvalue())) == [""]


def test_a_disk_that_fails_inside_a_tar_loses_no_member_before(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() >= 512 * 8:
                raise OSError(5, "Input/output error")
            return super().read(size)

    entries = archives.read_tar(Failing(make_tar([("1.jpg", JPEG[:1000])] * 4)), "tar", size=1, max_file_bytes=LIMIT)
    seen = [next(entries).ordinal for _ in range(2)]
    with pytest.raises(OSError, match="Input/output"):
        next(entries)
    assert seen == [0, 1]
