"""What the pool knows of each sample: metadata, filters, twins, near-duplicates, thumbnails, its bytes."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import make_jpeg
from tests.plain_ingest import plans_of, refresh, write_tar
from wtl_core.pool import live_pool, part_file
from wtl_core.pool.part_plan import snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import reader


def test_filters_set_samples_aside_and_can_be_undone(source: Path, tmp_path: Path) -> None:
    store, everything = refresh(source, tmp_path / "w")
    middle = float(everything.samples["brightness"].median())  # type: ignore[arg-type]
    snapshot = snapshot_rows(plans_of(source))
    filtered = live_pool.load(store, snapshot, filters=[f"brightness > {middle}"])
    assert filtered.counts.filtered == 32
    assert filtered.samples.filter("is_filtered")["brightness"].max() <= middle  # type: ignore[operator]
    assert filtered.counts.samples == everything.counts.samples
    assert live_pool.load(store, snapshot).samples.equals(everything.samples)


def test_filters_reach_into_the_metadata(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    images = {"image": [make_jpeg(seed) for seed in range(4)], "score": [0.5, None, 2.0, 3.0]}
    pl.DataFrame(images).write_parquet(tmp_path / "source" / "images.parquet")
    store, _ = refresh(tmp_path / "source", tmp_path / "w")
    filters = ["metadata.score >= 0", "metadata.score < 2.5"]
    filtered = live_pool.load(store, snapshot_rows(plans_of(tmp_path / "source")), filters=filters)
    assert filtered.counts.filtered == 2
    assert not any(name.startswith("metadata.") for name in filtered.samples.columns)


def test_twins_point_to_the_smallest_id_that_is_not_set_aside(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        (source / f"{i}.jpg").write_bytes(make_jpeg(7) + bytes(i))
    store, found = refresh(source, tmp_path / "w")
    assert found.samples["duplicate_of"].to_list() == [None] + [found.samples["sample_id"][0]] * 3
    first = found.samples.row(0, named=True)
    filtered = live_pool.load(
        store, snapshot_rows(plans_of(source)), filters=[f"byte_length != {first['byte_length']}"]
    )
    assert filtered.samples["duplicate_of"].to_list() == [None, None, *[found.samples["sample_id"][1]] * 2]


def test_an_image_beside_the_table_that_describes_it_has_its_metadata(tmp_path: Path) -> None:
    """Whichever of the two locations the alphabet puts first."""
    source = tmp_path / "source"
    source.mkdir()
    names = ["a.jpg", "k.jpg", "z.jpg"]
    for i, name in enumerate(names):
        (source / name).write_bytes(make_jpeg(i))
    pq.write_table(pa.table({"file_name": names, "label": [1, 2, 3]}), source / "metadata.parquet")
    _, found = refresh(source, tmp_path / "w")
    by_uri = {Path(uri.split("#")[0]).name: text for uri, text in found.samples.select("uri", "metadata").iter_rows()}
    assert by_uri["a.jpg"] == '{"label": 1}'
    assert sorted(found.samples["metadata"].to_list()) == [f'{{"label": {i}}}' for i in (1, 2, 3)]


def test_near_duplicates_share_a_group(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).resize(
            (96, 96), Image.Resampling.BICUBIC
        )
        for quality in (90, 95):
            coarse.save(source / f"{i}-{quality}.jpg", quality=quality)
    Image.new("RGB", (64, 64)).save(source / "flat1.png")
    Image.new("RGB", (80, 64)).save(source / "flat2.png")
    store, found = refresh(source, tmp_path / "w")
    near = live_pool.near_groups(found.samples)
    assert near["sample_id"].is_sorted()
    assert near.group_by("near_group").agg(pl.col("sample_id").min())["sample_id"].is_in(near["near_group"]).all()
    locations = live_pool.load_locations(store, snapshot_rows(plans_of(source)), columns=["sample_id", "phash"])
    assert live_pool.near_groups(pl.concat([locations[::-1], locations])).equals(near)
    samples = found.samples.join(near, on="sample_id", how="left")
    names = samples.with_columns(pl.col("uri").str.split("/").list.last().str.slice(0, 1).alias("n"))
    groups = (
        names.filter(pl.col("n") != "f")
        .group_by("n")
        .agg(pl.col("near_group").n_unique(), pl.col("near_group").null_count().alias("alone"))
    )
    assert groups.select("near_group", "alone").unique().rows() == [(1, 0)]
    assert names.filter(pl.col("n") == "f")["near_group"].null_count() == 2


def test_images_come_back_by_row_from_bytes_and_from_references(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(source / "z.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.jpg", make_jpeg(500 + i))
    pools = {}
    for kind in ("bytes", "reference"):
        params = IngestParams(store=kind)
        store, found = refresh(source, tmp_path / kind, params)
        (part,) = found.samples["part"].unique()
        rows = found.samples.select("row", "sample_id").sample(fraction=0.5, seed=1).rows()
        images = dict(live_pool.read_images(store, part, [row for row, _ in rows]))
        assert {row: hashlib.sha256(images[row] or b"").hexdigest() for row, _ in rows} == dict(rows)
        pools[kind] = found.samples.drop("part")
    assert pools["bytes"].equals(pools["reference"])
    for kind, missing in (("bytes", 0), ("reference", 68)):
        table = pq.read_table(next((tmp_path / kind / "pool").iterdir()), columns=["image"])
        assert table["image"].null_count == missing


def test_references_to_changed_or_vanished_sources_give_none(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(3):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    write_tar(source / "a.tar", [("x.jpg", make_jpeg(8)), ("y.jpg", make_jpeg(9))])
    store, found = refresh(source, tmp_path / "w", IngestParams(store="reference"))
    (source / "0.jpg").unlink()
    (source / "1.jpg").write_bytes(make_jpeg(77))
    (source / "a.tar").write_bytes((source / "a.tar").read_bytes()[:1500])
    (part,) = found.samples["part"].unique()
    images = dict(live_pool.read_images(store, part, range(5)))
    uris = {row["row"]: Path(row["uri"]).name for row in found.samples.iter_rows(named=True)}
    assert {uris[row] for row, data in images.items() if data is not None} == {"2.jpg"}


def test_metadata_and_thumbnails_are_kept_within_bounds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    big.save(buffer, "JPEG")
    write_tar(
        source / "a.tar", [("1.jpg", buffer.getvalue()), ("1.json", b'{"place": "Ulm"}'), ("2.jpg", make_jpeg(2))]
    )
    _, found = refresh(source, tmp_path / "w", IngestParams(thumbnails_per_part=1, thumbnail_bytes=20_000))
    assert json.loads(found.samples.filter(pl.col("width") == 400)["metadata"].item()) == {"place": "Ulm"}
    assert found.counts.ignored == 1
    table = pq.read_table(next((tmp_path / "w" / "pool").glob("*.parquet")))
    first, second = table["thumbnail"].to_pylist()
    assert Image.open(io.BytesIO(first)).size == (128, 96)
    assert second is None


def test_hostile_names_pass_through_as_text(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    names = [
        "<img src=x onerror=alert(1)>.jpg",
        "two\nlines.jpg",
        "\x1b[31mred.jpg",
        "right\u202eto-left.jpg",
        "=1+1.jpg",
    ]
    for i, name in enumerate(names):
        (source / name).write_bytes(make_jpeg(i))
    Path(os.fsdecode(os.fsencode(source) + b"/caf\xe9.jpg")).write_bytes(make_jpeg(99))
    write_tar(source / "a.tar", [(name, make_jpeg(10 + i)) for i, name in enumerate(names)])
    _, found = refresh(source, tmp_path / "w")
    assert found.counts.samples == 11
    assert {key for key in found.samples["key"] if key} == set(names)


def test_referenced_members_of_a_packed_archive_are_read_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with zipfile.ZipFile(source / "a.zip", "w") as archive:
        for seed in range(40):
            archive.writestr(f"{seed:02d}.jpg", make_jpeg(seed))
    monkeypatch.setattr(part_file, "ROW_GROUP_ROWS", 8)
    store, found = refresh(source, tmp_path / "w", IngestParams(store="reference"))
    passes: list[str] = []
    again = reader.read_again
    monkeypatch.setattr(
        reader, "read_again", lambda uri, *rest, **more: passes.append(uri) or again(uri, *rest, **more)
    )
    images = dict(live_pool.read_images(store, found.samples["part"][0], range(40)))
    assert sorted(images) == list(range(40))
    assert all(images.values())
    assert len(passes) == 1
