"""Listing of folders and lists, comparing with a snapshot, packing into parts."""

import csv
import json
import os
import random
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wtl_core.errors import ConfigError, InputError
from wtl_core.pool import part_plan
from wtl_core.pool.part_plan import plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover, paths, reader
from wtl_core.shards.folder import describe_uri, walk
from wtl_core.shards.objects import MISSING_SIZE, SourceObject


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.tar", "deep/er/b.parquet", "deep/c.zip", "deep/d.jpg", "e.txt", "new\nline.png"):
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "source"


def kinds_of(frame: pl.DataFrame, base: Path) -> dict[str, str]:
    rows = frame.select("uri", "kind").iter_rows()
    return {uri.removeprefix(f"{base}/"): kind for uri, kind in rows}


def test_a_folder_lists_every_file_below_it_by_kind(folder: Path) -> None:
    frame = discover.list_source(str(folder))
    assert frame.schema == discover.LISTING_SCHEMA
    assert frame["uri"].is_sorted()
    assert kinds_of(frame, folder) == {
        "a.tar": "tar",
        "deep/er/b.parquet": "parquet",
        "deep/c.zip": "zip",
        "deep/d.jpg": "loose",
        "e.txt": "loose",
        "new\nline.png": "loose",
    }


def test_one_file_is_a_source_too(folder: Path) -> None:
    frame = discover.list_source(str(folder / "a.tar"))
    assert frame.select("uri", "kind", "size").rows() == [(str(folder / "a.tar"), "tar", 5)]


def test_missing_paths_and_foreign_schemes_are_wrong_use(tmp_path: Path) -> None:
    for source in (str(tmp_path / "nowhere"), "gs://bucket/x", "s3://"):
        with pytest.raises(ConfigError):
            discover.list_source(source)


def test_an_empty_folder_lists_nothing(tmp_path: Path) -> None:
    assert discover.list_source(str(tmp_path)).is_empty()


def test_workspaces_and_excluded_folders_are_skipped(folder: Path) -> None:
    (folder / "work" / "pool").mkdir(parents=True)
    (folder / "work" / "wtl.json").write_text("{}")
    (folder / "work" / "pool" / "x.parquet").write_text("x")
    listed = kinds_of(discover.list_source(str(folder), exclude=[str(folder / "deep" / "er")]), folder)
    assert set(listed) == {"a.tar", "deep/c.zip", "deep/d.jpg", "e.txt", "new\nline.png"}


def test_links_are_followed_once_and_broken_ones_are_missing(folder: Path) -> None:
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    frame = discover.list_source(str(folder))
    assert len(frame) == 8
    assert frame.filter(pl.col("uri").str.ends_with("gone.jpg"))["size"].item() == -1
    assert frame.filter(pl.col("uri").str.ends_with("pipe"))["etag"].item() == "special"


def test_a_folder_that_cannot_be_listed_does_not_look_empty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="deep: cannot be listed"):
        discover.list_source(str(folder))


def test_names_that_are_not_utf8_can_be_opened_again(folder: Path) -> None:
    raw = os.fsencode(folder) + b"/caf\xe9 #%.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    uri = next(uri for uri in discover.list_source(str(folder))["uri"] if uri.startswith("file://"))
    assert os.fsencode(paths.path_of(uri)) == raw
    assert Path(paths.path_of(uri)).read_bytes() == b"x"


@pytest.mark.parametrize("suffix", ["txt", "csv", "jsonl", "parquet"])
def test_lists_of_uris_name_their_objects(folder: Path, suffix: str) -> None:
    uris = ["deep/d.jpg", str(folder / "a.tar"), "gone.jpg", "deep/d.jpg"]
    target = folder / f"list.{suffix}"
    if suffix == "txt":
        target.write_text("# a comment\n" + "\n".join(uris) + "\n\n")
    elif suffix == "csv":
        with target.open("w", newline="") as handle:
            csv.writer(handle).writerows([["id", "uri"], *([str(i), uri] for i, uri in enumerate(uris))])
    elif suffix == "jsonl":
        target.write_text("\n".join(json.dumps({"url": uri} if i else uri) for i, uri in enumerate(uris)))
    else:
        pq.write_table(pa.table({"path": uris}), target)
    frame = discover.list_source(str(target))
    assert kinds_of(frame, folder) == {"a.tar": "tar", "deep/d.jpg": "loose", "gone.jpg": "loose"}
    assert frame["size"].to_list() == [5, 10, -1]
    assert frame["source"].unique().to_list() == [str(target)]


def test_lists_that_make_no_sense_say_where(folder: Path) -> None:
    for name, text, message in (
        ("a.jsonl", '{"uri": "x"}\n{"name": "y"}', "line 2"),
        ("b.jsonl", "{", "line 1"),
        ("c.csv", "id,name\n1,2", "expected a column named uri"),
    ):
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=message):
            discover.list_source(str(folder / name))
    (folder / "d.txt").write_text("https://example.org/x.jpg")
    with pytest.raises(ConfigError, match="expected a path"):
        discover.list_source(str(folder / "d.txt"))


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_tables_of_spreadsheets_are_lists_too(folder: Path, delimiter: str) -> None:
    (folder / "list.csv").write_text(f"label{delimiter}path\n3{delimiter}deep/d.jpg\n")
    assert kinds_of(discover.list_source(str(folder / "list.csv")), folder) == {"deep/d.jpg": "loose"}


def test_lines_end_where_json_says_so(folder: Path) -> None:
    (folder / "list.jsonl").write_text('{"uri": "deep/d.jpg", "caption": "two\u2028lines"}\r\n')
    assert kinds_of(discover.list_source(str(folder / "list.jsonl")), folder) == {"deep/d.jpg": "loose"}


def test_a_shard_that_a_list_names_and_that_is_not_there_is_still_a_shard(folder: Path) -> None:
    (folder / "list.txt").write_text("b.tar\nc.parquet\n")
    listing = discover.list_source(str(folder / "list.txt"))
    assert listing["kind"].to_list() == ["tar", "parquet"]
    entries = [
        entry for obj in listing.iter_rows() for entry in reader.read_object(SourceObject(*obj), max_file_bytes=9)
    ]
    assert [entry.reason for entry in entries] == ["missing", "missing"]


def test_what_may_not_be_looked_at_is_denied_and_not_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("wtl_core.shards.folder.os.stat", refuse)
    obj = describe_uri("s", str(folder / "a.tar"))
    monkeypatch.undo()
    assert (obj.kind, obj.size, obj.etag) == ("tar", 0, "refused")


def test_a_folder_is_known_by_its_own_name_whatever_links_lead_there(tmp_path: Path) -> None:
    for name in ("in/run1", "in/run2", "out"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.jpg").write_bytes(b"x")
    root = tmp_path / "in"
    for name, target in (("a-latest", "run1"), ("b", "../out"), ("c", "../out")):
        (root / name).symlink_to(target)
    first = discover.list_source(str(root))
    (root / "a-latest").unlink()
    (root / "a-latest").symlink_to("run2")
    again = discover.list_source(str(root))
    assert list(kinds_of(first, root)) == list(kinds_of(again, root)) == ["b/a.jpg", "run1/a.jpg", "run2/a.jpg"]


def test_a_folder_that_goes_while_it_is_listed_has_no_files(folder: Path) -> None:
    (folder / "upload").mkdir()
    names = walk(str(folder))
    seen = [next(names)]
    (folder / "upload").rmdir()
    assert len([*seen, *names]) == len(discover.list_source(str(folder)))


def test_what_root_keeps_on_a_disk_is_passed_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lost+found").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    before = len(discover.list_source(str(folder)))
    monkeypatch.setattr(os, "scandir", refuse)
    assert len(discover.list_source(str(folder))) == before


def test_a_list_in_a_bucket_may_not_name_local_files() -> None:
    assert paths.resolve("a.jpg", "s3://bucket/lists") == "s3://bucket/lists/a.jpg"
    for uri in ("/etc/passwd", "file:///etc/passwd"):
        with pytest.raises(ConfigError):
            paths.resolve(uri, "s3://bucket/lists")


def test_changes_are_new_changed_gone_and_kept(folder: Path) -> None:
    before = discover.list_source(str(folder)).with_columns(part=pl.lit("p"))
    (folder / "a.tar").write_bytes(b"other")
    os.utime(folder / "a.tar", ns=(1, 2))
    (folder / "e.txt").unlink()
    (folder / "f.txt").write_text("f")
    changes = discover.diff(discover.list_source(str(folder)), before)
    names = {k: [Path(u).name for u in getattr(changes, k)["uri"]] for k in ("new", "changed", "gone", "kept")}
    assert names == {
        "new": ["f.txt"],
        "changed": ["a.tar"],
        "gone": ["e.txt"],
        "kept": ["c.zip", "d.jpg", "b.parquet", "new\nline.png"],
    }
    assert changes.new.schema == changes.changed.schema == discover.LISTING_SCHEMA
    assert changes.kept.schema == changes.gone.schema == discover.SNAPSHOT_SCHEMA


def test_etags_decide_where_both_listings_have_them() -> None:
    row = ("s", "s3://b/x.tar", "tar", 5, 1, "e1")
    before = pl.DataFrame([(*row, "p")], schema=discover.SNAPSHOT_SCHEMA, orient="row")
    touched = pl.DataFrame([("s", "s3://b/x.tar", "tar", 5, 99, "e1")], schema=discover.LISTING_SCHEMA, orient="row")
    assert len(discover.diff(touched, before).kept) == 1
    assert len(discover.diff(touched.with_columns(etag=pl.lit("e2")), before).changed) == 1


def test_an_object_read_again_goes_into_another_part_and_is_then_known() -> None:
    params = IngestParams()
    listing = pl.DataFrame([("s", "/x.jpg", "loose", 5, 1, "")], schema=discover.LISTING_SCHEMA, orient="row")
    first = snapshot_rows(plan_parts(listing, params))
    again = discover.diff(listing, first, again=listing.select("source", "uri")).changed
    second = snapshot_rows(plan_parts(again, params))
    assert first["part"].item() != second["part"].item()
    settled = discover.diff(listing, second)
    assert settled.changed.is_empty()
    assert settled.kept.equals(second)


def random_listing(count: int, seed: int) -> pl.DataFrame:
    rng = random.Random(seed)
    kinds = [rng.choice(("loose", "loose", "tar", "parquet", "zip")) for _ in range(count)]
    sizes = [rng.choice((-1, 0, 900, 20_000, 3_000_000, 400_000_000)) for _ in range(count)]
    rows = [("s", f"s3://b/{i:05d}", kinds[i], sizes[i], i, "") for i in range(count)]
    return pl.DataFrame(rows, schema=discover.LISTING_SCHEMA, orient="row")


def test_plans_hold_every_object_once_within_bounds_whatever_the_order() -> None:
    params = IngestParams(part_images=500, part_bytes=5_000_000)
    listing = random_listing(3000, 0)
    plans = plan_parts(listing, params)
    assert plan_parts(listing.sample(fraction=1, shuffle=True, seed=3), params) == plans
    assert [obj.uri for each in plans for obj in each.objects] == listing["uri"].to_list()
    for each in plans:
        assert len(each.objects) == 1 or each.num_images_estimate <= 500
        assert len(each.objects) == 1 or each.size <= 5_000_000
    assert len({each.digest for each in plans}) == len(plans)


def test_part_digests_follow_identity_and_params_only() -> None:
    listing = random_listing(1, 1)
    (first,) = plan_parts(listing, IngestParams())
    same = IngestParams(filters=("sharpness > 3",), quarantine_budget=0.5)
    assert plan_parts(listing, same)[0].digest == first.digest
    others = [
        plan_parts(listing, IngestParams(min_side_px=9)),
        plan_parts(listing.with_columns(mtime_ns=77), IngestParams()),
    ]
    assert len({first.digest, *(each[0].digest for each in others)}) == 3


def test_snapshot_rows_name_the_part_of_each_object() -> None:
    plans = plan_parts(random_listing(50, 2), IngestParams(part_images=10))
    rows = snapshot_rows(plans)
    assert rows.schema == discover.SNAPSHOT_SCHEMA
    assert rows["part"].n_unique() == len(plans)
    assert part_plan.VERSION >= 1


def test_a_link_to_itself_is_a_missing_file_and_no_end_of_the_listing(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to("loop")
    listing = discover.list_source(str(tmp_path))
    assert dict(zip(listing["uri"], listing["size"], strict=True)) == {
        f"{tmp_path}/a.jpg": 1,
        f"{tmp_path}/loop": MISSING_SIZE,
    }
