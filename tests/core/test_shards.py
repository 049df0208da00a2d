"""Readers of tars, zips and Parquet files: what they yield, and that no damage crashes, hangs or hides anything."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wtl_core.errors import ConfigError, InputError
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards import archives, paths, reader, samples, tables, tar, uri_list
from wtl_core.shards.objects import Entry, SourceObject


def make_jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((40, 40), Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


JPEG = make_jpeg(0)
LIMIT = 1 << 20
NASTY = [
    "two\nlines.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "\x1b[31mred.jpg",
    "ü/é.jpg",
    "a" * 300 + ".jpg",
    "=1+1.jpg",
]


def make_tar(members: list[tuple[str, bytes]], tar_format: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def read_file(path: Path, **options: int) -> list[Entry]:
    return list(reader.read_object(reader.describe_now(str(path)), max_file_bytes=options.get("max_file_bytes", LIMIT)))


def read_bytes(tmp_path: Path, name: str, data: bytes, **options: int) -> list[Entry]:
    path = tmp_path / name
    path.write_bytes(data)
    return read_file(path, **options)


def kept(entries: list[Entry]) -> list[str]:
    return [entry.key for entry in entries if entry.data is not None and entry.reason is None]


def refused(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(entry.key, str(entry.reason)) for entry in entries if entry.reason is not None]


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


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_noise_is_no_archive(noise: bytes) -> None:
    for packing in ("tar", "gz", "zst"):
        with pytest.raises(ImageError):
            list(archives.read_tar(io.BytesIO(b"\1" + noise), packing, size=len(noise), max_file_bytes=LIMIT))
    with pytest.raises(ImageError):
        list(archives.read_zip(io.BytesIO(noise), size=len(noise), max_file_bytes=LIMIT))


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
    monkeypatch.setattr(archives, "_SPARE_BYTES", 1 << 20)
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
    monkeypatch.setattr(samples, "_MOST_BYTES", 3 * len(JPEG))
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


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_no_sidecar_does_harm(data: bytes) -> None:
    for field in ("json", "cls", "txt"):
        json.dumps(samples.parse_sidecar(field, data))


def test_members_without_end_under_one_name_are_not_held_back() -> None:
    groups, out = samples.SampleGroups(), 0
    for i in range(1000):
        out += len(list(groups.add(Entry(f"same.{i}.jpg", i, -1, 1))))
        assert i + 1 - out <= 64


def test_large_members_under_one_name_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "_MOST_BYTES", 1000)
    groups, held, out = samples.SampleGroups(), 0, []
    groups.add(Entry("clip.json", 0, -1, 8), b'{"a": 1}')
    for i in range(40):
        given_out = groups.add(Entry(f"clip.{i:02d}.tif", i + 1, -1, 300, data=bytes(300)))
        held += 300 - sum(len(entry.data or b"") for entry in given_out)
        assert held <= 1000
        out += given_out
    out += groups.flush()
    assert [entry.ordinal for entry in out] == list(range(41))
    assert {entry.metadata for entry in out[1:]} == {'{"a": 1}'}


# ---- zip ----
def make_zip(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


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


# ---- Parquet ----
def make_parquet(columns: dict[str, pa.Array], **options: object) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def test_parquet_struct_and_binary_columns_are_read_with_metadata(tmp_path: Path) -> None:
    images = [make_jpeg(i) for i in range(300)]
    struct = pa.array([{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(images)], STRUCT)
    labels = pa.array(list(range(300)))
    entries = read_bytes(tmp_path, "a.parquet", make_parquet({"label": labels, "image": struct}, row_group_size=70))
    assert [entry.data for entry in entries] == images
    assert (entries[7].key, entries[7].metadata) == ("7.jpg", '{"label": 7}')
    entries = read_bytes(
        tmp_path, "b.parquet", make_parquet({"jpg": pa.array(images, pa.large_binary()), "label": labels})
    )
    assert [entry.data for entry in entries] == images
    assert (entries[7].key, entries[7].metadata) == ("7", '{"label": 7}')


def not_utf8(values: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            pa.array([0, 10**17], pa.timestamp("ms")),
            ["1970-01-01 00:00:00", "<value out of range: 100000000000000000>"],
        ),
        (pa.array([0, -62135596801], pa.timestamp("s")), ["1970-01-01 00:00:00", "0000-12-31 23:59:59.000"]),
        (pa.array([0, 1], pa.timestamp("ns")), ["1970-01-01 00:00:00", "1970-01-01 00:00:00.000000001"]),
        (pa.array([0, 0], pa.timestamp("us", tz="No/Where")), [None, None]),
        (pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32()), ["1970-01-01", "<value out of range: 2147483647>"]),
        (pa.array([0, 2**62], pa.duration("s")), ["0:00:00", str(2**62)]),
        (pa.array([0, 1], pa.time64("ns")), ["00:00:00", "00:00:00.000000001"]),
        (pa.array([None, 1], pa.duration("ns")), [None, "1"]),
        (not_utf8([b"plain", b"caf\xe9"]), ["plain", "caf\\xe9"]),
    ],
)
def test_metadata_that_python_cannot_hold_costs_no_image(
    tmp_path: Path, values: pa.Array, expected: list[str | None]
) -> None:
    data = make_parquet({"jpg": pa.array([JPEG] * 2), "n": pa.array([7, 8]), "odd": values})
    entries = read_bytes(tmp_path, "a.parquet", data)
    assert kept(entries) == ["0", "1"]
    wanted = [{"n": 7 + i} | ({"odd": value} if value is not None else {}) for i, value in enumerate(expected)]
    assert [json.loads(entry.metadata or "") for entry in entries] == wanted


def test_dictionaries_are_read_like_what_they_stand_for(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(JPEG)
    labels = pa.array(["cat", "dog", "cat"]).dictionary_encode()
    images = pa.array([JPEG, make_jpeg(1), JPEG]).dictionary_encode()
    entries = read_bytes(tmp_path, "b.parquet", make_parquet({"image": images, "label": labels}))
    assert [json.loads(entry.metadata or "") for entry in entries] == [
        {"label": name} for name in ("cat", "dog", "cat")
    ]
    assert [entry.data for entry in entries] == [JPEG, make_jpeg(1), JPEG]
    named = read_bytes(tmp_path, "c.parquet", make_parquet({"path": pa.array(["a.jpg"] * 2).dictionary_encode()}))
    assert [entry.data for entry in named] == [JPEG] * 2


def test_two_columns_of_one_name_cost_no_image(tmp_path: Path) -> None:
    buffer, numbers = io.BytesIO(), pa.array([1])
    pq.write_table(pa.Table.from_arrays([pa.array([JPEG]), numbers, numbers], ["jpg", "n", "n"]), buffer)
    assert kept(read_bytes(tmp_path, "a.parquet", buffer.getvalue())) == ["0"]


def test_parquet_paths_that_are_not_utf8_stay_readable(tmp_path: Path) -> None:
    names = not_utf8([b"1.jpg", b"caf\xe9.jpg"])
    struct = pa.StructArray.from_arrays([pa.array([JPEG, JPEG]), names], ["bytes", "path"])
    assert kept(read_bytes(tmp_path, "a.parquet", make_parquet({"image": struct}))) == ["1.jpg", "caf\\xe9.jpg"]
    (tmp_path / "1.jpg").write_bytes(JPEG)
    entries = read_bytes(tmp_path, "b.parquet", make_parquet({"path": names}))
    assert (kept(entries), refused(entries)) == (["0"], [("1", "missing")])


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"url": ["1.jpg"], "geometry": [b"\1\2"]}, ("url", "uri")),
        ({"url": ["1.jpg"], "geometry": [JPEG]}, ("geometry", "binary")),
        ({"url": ["1.jpg"], "image": [b"broken"]}, ("image", "binary")),
        ({"mask": [b"\1\2"], "scan": [JPEG]}, ("scan", "binary")),
        ({"geometry": [b"\1\2"]}, ("geometry", "binary")),
        ({"sound": [{"bytes": b"RIFF", "path": "1.wav"}], "jpg": [JPEG]}, ("jpg", "binary")),
        ({"image": [{"bytes": None, "path": "1.jpg"}], "geometry": [b"\1\2"]}, ("image", "struct")),
        ({"label": [1]}, None),
    ],
)
def test_the_image_column_is_found_by_name_and_first_bytes(
    columns: dict[str, list[object]], expected: tuple[str, str] | None
) -> None:
    kinds = {"image": STRUCT, "sound": STRUCT}
    arrays = {
        name: pa.array(values, kinds.get(name) if isinstance(values[0], dict) else None)
        for name, values in columns.items()
    }
    found = tables.find_column(tables.open_table(io.BytesIO(make_parquet(arrays))))
    assert found == (tables.ImageColumn(*expected) if expected else None)
    empty = {name: array[:0] for name, array in arrays.items()}
    assert tables.find_column(tables.open_table(io.BytesIO(make_parquet(empty)))) is not None or expected is None


def test_parquet_rows_that_are_no_images_are_refused_with_a_reason(tmp_path: Path) -> None:
    rows = [{"bytes": JPEG, "path": None}, {"bytes": b"", "path": None}, None, {"bytes": b"text", "path": "x.jpg"}]
    entries = read_bytes(tmp_path, "a.parquet", make_parquet({"image": pa.array(rows, STRUCT)}))
    assert refused(entries) == [("1", "empty"), ("2", "empty"), ("x.jpg", "not_an_image")]


def test_parquet_column_of_uris_is_followed(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "1.jpg").write_bytes(JPEG)
    uris = ["deep/1.jpg", str(tmp_path / "deep" / "1.jpg"), "gone.jpg", "https://example.org/1.jpg", None]
    entries = read_bytes(tmp_path, "a.parquet", make_parquet({"url": pa.array(uris), "n": pa.array(range(5))}))
    assert kept(entries) == ["0", "1"]
    assert refused(entries) == [("2", "missing"), ("3", "unsupported"), ("4", "empty")]


@pytest.mark.timeout(30)
def test_rows_that_name_pipes_and_folders_are_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    names = ["pipe.jpg", ".", "/dev/zero"]
    entries = read_bytes(tmp_path, "a.parquet", make_parquet({"url": pa.array(names)}))
    assert refused(entries) == [("0", "unsupported"), ("1", "unsupported"), ("2", "unsupported")]
    assert not any(reader.is_readable(str(tmp_path / name)) for name in names)


def test_a_named_file_that_is_written_to_costs_its_row_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    describe_now = reader.describe_now

    def describe_older(uri: str) -> SourceObject:
        """As if the first file had been written to between the look at it and its opening."""
        return replace(describe_now(uri), mtime_ns=1) if uri.endswith("1.jpg") else describe_now(uri)

    monkeypatch.setattr(reader, "describe_now", describe_older)
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(JPEG)
    entries = read_bytes(tmp_path, "a.parquet", make_parquet({"url": pa.array(["1.jpg", "2.jpg"])}))
    assert (refused(entries), kept(entries)) == ([("0", "changed_while_read")], ["1"])


def test_targets_of_rows_are_found_in_any_row_group(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(20)]
    rows = [{"bytes": JPEG if i % 2 else None, "path": name} for i, name in enumerate(names)]
    for column in ({"url": pa.array(names)}, {"image": pa.array(rows, STRUCT)}):
        (tmp_path / "a.parquet").write_bytes(make_parquet(column, row_group_size=3))
        found = reader.read_targets(str(tmp_path / "a.parquet"), [0, 2, 12, 18])
        assert found == [str(tmp_path / names[row]) for row in (0, 2, 12, 18)]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    assert reader.read_targets(str(tmp_path / "a.parquet"), [0]) == []


def test_parquet_without_images_is_named_and_ignored(tmp_path: Path) -> None:
    (entry,) = read_bytes(
        tmp_path, "a.parquet", make_parquet({"label": pa.array([1, 2]), "text": pa.array(["a", "b"])})
    )
    assert entry.reason is None
    assert "label, text" in entry.note


@given(st.data())
@settings(max_examples=120, deadline=None)
def test_a_damaged_parquet_file_never_does_more_than_end_early(data: st.DataObject) -> None:
    struct = pa.array([{"bytes": JPEG[:200], "path": f"{i}.jpg"} for i in range(20)], STRUCT)
    raw = bytearray(make_parquet({"image": struct}, row_group_size=5))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([0, 0, 1, 8, 100, 1000]))
    try:
        assert len(list(tables.read_table(io.BytesIO(raw[: len(raw) - cut]), max_file_bytes=LIMIT))) <= 100
    except ImageError as error:
        assert error.reason == Reason.BROKEN_SHARD  # noqa: PT017


# ---- lists of URIs ----
LISTS = {
    "txt": b"a.jpg\n# no\nb.jpg\n",
    "csv": b'uri,label\na.jpg,1\n"b,.jpg",2\n',
    "jsonl": b'"a.jpg"\n{"uri": "b.jpg", "n": [1]}\n',
    "parquet": make_parquet({"uri": pa.array([f"{i}.jpg" for i in range(9)]), "blob": pa.array([b"x"] * 9)}),
}


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_list_does_more_than_be_refused(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(sorted(LISTS)))
    raw = bytearray(data.draw(st.binary(max_size=300)) if data.draw(st.booleans()) else LISTS[suffix])
    for _ in range(data.draw(st.integers(0, 5)) if raw else 0):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw
    try:
        uris = uri_list.read_uris(f"list.{suffix}", io.BytesIO(raw))
    except InputError:
        return
    try:
        assert all(obj.uri for obj in uri_list.describe("/nowhere/list", [u for u in uris or [] if "s3://" not in u]))
    except ConfigError:
        return


@pytest.mark.parametrize("name", ["a\0.jpg", "file:///a%00.jpg", "\ud800.jpg", "s3://bucket/\ud800.jpg"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="mend the list"):
        paths.resolve(name, "/base")


def test_a_list_nested_without_end_is_refused() -> None:
    with pytest.raises(InputError, match="line 1"):
        uri_list.read_uris("list.jsonl", io.BytesIO(b"[" * 200_000))


# ---- objects ----
def test_a_shard_that_is_something_else_is_read_as_what_it_is(tmp_path: Path) -> None:
    assert kept(read_bytes(tmp_path, "a.tar", JPEG)) == [""]
    assert kept(read_bytes(tmp_path, "noname", make_tar([("1.jpg", JPEG)]))) == ["1.jpg"]
    assert refused(read_bytes(tmp_path, "b.tar", b"no tar at all")) == [("", "broken_shard")]
    assert refused(read_bytes(tmp_path, "c.parquet", b"")) == [("", "broken_shard")]
    assert refused(read_bytes(tmp_path, "d.jpg", make_zip([("1.jpg", JPEG)]))) == [("", "not_an_image")]
    assert kept(read_bytes(tmp_path, "image.dat", JPEG)) == [""]


def test_an_object_written_to_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(make_tar([("1.jpg", JPEG), ("2.jpg", JPEG)]))
    entries = reader.read_object(reader.describe_now(str(path)), max_file_bytes=LIMIT)
    next(entries)
    with path.open("ab") as handle:
        handle.write(b"more")
    with pytest.raises(reader.ObjectChangedError):
        list(entries)


def test_objects_that_cannot_be_opened_are_refused_if_they_claim_to_be_images(tmp_path: Path) -> None:
    for name, expected in (("gone.jpg", "missing"), ("gone.tar", "missing"), ("gone.txt", "None")):
        kind = reader.kinds.kind_by_name(name)
        (entry,) = reader.read_object(SourceObject("s", str(tmp_path / name), kind, 5, 0, ""), max_file_bytes=LIMIT)
        assert str(entry.reason) == expected


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


def test_large_images_in_parquet_come_a_few_at_a_time() -> None:
    for image_bytes, rows in ((100, 128), (8 << 20, 7)):
        table = pa.table({"image": pa.array([bytes([row]) * image_bytes for row in range(10)], pa.binary())})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="none", use_dictionary=False)
        opened = tables.open_table(io.BytesIO(buffer.getvalue()))
        assert tables._batch_rows(opened.metadata) == rows
        assert len(list(tables.read_table(io.BytesIO(buffer.getvalue()), max_file_bytes=1 << 30))) == 10
