"""Readers of tars, zips and Parquet files: what they yield, and that no damage crashes, hangs or hides anything."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_shards import JPEG, LIMIT, kept, make_parquet, make_tar, make_zip, read_bytes, refused
from wtl_core.errors import ConfigError, InputError
from wtl_core.images.faults import ImageError
from wtl_core.shards import archives, paths, reader, samples, uri_list
from wtl_core.shards.objects import Entry, SourceObject


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_noise_is_no_archive(noise: bytes) -> None:
    for packing in ("tar", "gz", "zst"):
        with pytest.raises(ImageError):
            list(archives.read_tar(io.BytesIO(b"\1" + noise), packing, size=len(noise), max_file_bytes=LIMIT))
    with pytest.raises(ImageError):
        list(archives.read_zip(io.BytesIO(noise), size=len(noise), max_file_bytes=LIMIT))


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
    monkeypatch.setattr(samples, "MOST_BYTES", 1000)
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
