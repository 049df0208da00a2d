"""Parquet shards: images in columns, rows that name files, metadata."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.small_shards import JPEG, LIMIT, kept, make_jpeg, make_parquet, read_bytes, refused
from wtl_core.images.faults import ImageError, Reason
from wtl_core.shards import reader, tables
from wtl_core.shards.objects import SourceObject

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


def test_large_images_in_parquet_come_a_few_at_a_time() -> None:
    for image_bytes, rows in ((100, 128), (8 << 20, 7)):
        table = pa.table({"image": pa.array([bytes([row]) * image_bytes for row in range(10)], pa.binary())})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="none", use_dictionary=False)
        opened = tables.open_table(io.BytesIO(buffer.getvalue()))
        assert tables.rows_at_a_time(opened.metadata) == rows
        assert len(list(tables.read_table(io.BytesIO(buffer.getvalue()), max_file_bytes=1 << 30))) == 10
