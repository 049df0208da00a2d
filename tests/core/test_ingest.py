"""Shards to parts to the pool: accounts, identity, order, kills, changes, retries, bytes and references."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import build_source, make_jpeg
from wtl_core.errors import CorruptArtifactError, InputError
from wtl_core.images.faults import Reason
from wtl_core.pool import ingest, live_pool, part_file, part_rows
from wtl_core.pool.part_plan import PartPlan, plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.refresh import readmission
from wtl_core.shards import discover, reader
from wtl_core.shards.objects import SourceObject
from wtl_core.workspace.storage import Store, open_store

PARAMS = IngestParams()


def plans_of(source: Path, params: IngestParams = PARAMS) -> list[PartPlan]:
    return plan_parts(discover.list_source(str(source)), params)


def refresh(
    source: Path, workspace: Path, params: IngestParams = PARAMS, workers: int = 1
) -> tuple[Store, live_pool.Pool]:
    store = open_store(str(workspace))
    plans = plans_of(source, params)
    ingest.run_many(plans, store, params, workers=workers)
    return store, live_pool.load(store, snapshot_rows(plans), filters=params.filters)


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def parts_of(workspace: Path) -> dict[str, bytes]:
    return {str(f.relative_to(workspace)): f.read_bytes() for f in sorted(workspace.rglob("*.parquet"))}


def test_every_file_and_member_is_accounted_for(source: Path, tmp_path: Path) -> None:
    _, found = refresh(source, tmp_path / "w")
    counts = found.counts
    assert counts == live_pool.PoolCounts(
        read=67, locations=66, samples=64, duplicates=1, quarantined=1, ignored=1, filtered=0
    )
    assert counts.read == counts.locations + counts.ignored
    assert counts.locations == counts.samples + counts.duplicates + counts.quarantined
    assert found.quarantine["reason"].to_list() == ["truncated"]
    assert found.ignored["uri"].to_list() == [str(source / "notes.txt")]


def test_samples_are_sorted_by_content_and_know_their_smallest_location(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_tar(source / "b.tar", [("z.jpg", make_jpeg(1)), ("a.jpg", make_jpeg(1)), ("a.jpg", make_jpeg(2))])
    (source / "c.jpg").write_bytes(make_jpeg(1))
    store, found = refresh(source, tmp_path / "w")
    assert found.samples["sample_id"].is_sorted()
    assert live_pool.sample_ids(store, snapshot_rows(plans_of(source))).equals(found.samples["sample_id"])
    row = found.samples.filter(pl.col("locations") == 3).row(0, named=True)
    assert (row["uri"], row["object_uri"], row["key"]) == (f"{source}/b.tar#a.jpg", f"{source}/b.tar", "a.jpg")


def test_the_pool_is_the_same_whatever_shards_hold_the_images(tmp_path: Path) -> None:
    columns = ["sample_id", "pixel_digest", "phash", "sharpness", "width", "duplicate_of"]
    pools = [refresh(build_source(tmp_path / f"s{i}", order_seed=i), tmp_path / f"w{i}")[1] for i in (0, 1)]
    assert pools[0].samples.select(columns).equals(pools[1].samples.select(columns))
    groups = [live_pool.near_groups(pool.samples) for pool in pools]
    assert groups[0].equals(groups[1])
    assert pools[0].counts == pools[1].counts


def test_parts_are_byte_equal_with_one_worker_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "IMAGES_WORTH_A_WORKER", 0)
    source, params = build_source(tmp_path / "source"), IngestParams(part_images=20)
    alone, _ = refresh(source, tmp_path / "alone", params, workers=1)
    progress: list[tuple[int, int]] = []
    store, plans = open_store(str(tmp_path / "many")), plans_of(source, params)
    assert len(plans) >= 3
    counts = ingest.run_many(
        plans, store, params, workers=2, on_progress=lambda done, total: progress.append((done, total))
    )
    assert [each.digest for each in counts] == [plan.digest for plan in plans]
    assert parts_of(Path(alone.root)) == parts_of(Path(store.root))
    assert progress[-1][0] == progress[-1][1]


SCRIPT = """
from wtl_core.pool import ingest
from wtl_core.pool.part_plan import plan_parts
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.workspace.storage import open_store
ingest.IMAGES_WORTH_A_WORKER = 0
params = IngestParams(part_images=20)
{guard}ingest.run_many(plan_parts(discover.list_source({source!r}), params), open_store({root!r}), params, workers=2)
"""


@pytest.mark.parametrize("guard", ["", 'if __name__ == "__main__": '])
def test_a_script_without_a_main_guard_is_told_to_have_one(tmp_path: Path, guard: str) -> None:
    source, script = build_source(tmp_path / "source"), tmp_path / "mine.py"
    script.write_text(SCRIPT.format(guard=guard, source=str(source), root=str(tmp_path / "w")))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    if guard:
        assert run.returncode == 0, run.stderr
        assert list((tmp_path / "w" / "pool").iterdir())
        return
    assert run.returncode == 1
    assert f'ConfigError: {script}: expected `if __name__ == "__main__":`' in run.stderr
    assert "bootstrapping" not in run.stderr
    assert run.stderr.count("Traceback") == 1


def test_parts_are_byte_equal_with_one_thread_or_several(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    members = []
    for i in range(40):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (160, 200, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=95)
        data = buffer.getvalue()
        members += [(f"{i}.jpg", data if i % 7 else data[:9000]), (f"{i}.small.jpg", make_jpeg(i)), (f"{i}.bin", b"x")]
    write_tar(source / "a.tar", members)
    params = IngestParams(thumbnails_per_part=11)
    for threads in (1, 3):
        refresh(source, tmp_path / f"w{threads}", params, workers=threads)
    assert parts_of(tmp_path / "w1") == parts_of(tmp_path / "w3")


def test_a_finished_part_is_not_made_again(source: Path, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "w"))
    (plan,) = plans_of(source)
    first = ingest.run(plan, store, PARAMS)
    before = parts_of(tmp_path / "w")
    for path in source.rglob("*.*"):
        path.unlink()
    assert ingest.run(plan, store, PARAMS) == first
    assert parts_of(tmp_path / "w") == before


def test_arrivals_and_removals_touch_only_their_own_objects(source: Path, tmp_path: Path) -> None:
    store, first = refresh(source, tmp_path / "w")
    snapshot = snapshot_rows(plans_of(source))
    (source / "new.jpg").write_bytes(make_jpeg(1000))
    changes = discover.diff(discover.list_source(str(source)), snapshot)
    plans = plan_parts(changes.new, PARAMS)
    assert [len(plan.objects) for plan in plans] == [1]
    ingest.run_many(plans, store, PARAMS, workers=2)
    grown = pl.concat([changes.kept, snapshot_rows(plans)])
    assert live_pool.load(store, grown).counts.samples == 65
    (source / "new.jpg").unlink()
    shrunk = discover.diff(discover.list_source(str(source)), grown)
    assert shrunk.gone["uri"].to_list() == [str(source / "new.jpg")]
    assert live_pool.load(store, shrunk.kept).samples.equals(first.samples)


def test_a_shard_written_over_is_read_again_and_a_mended_file_is_admitted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_tar(source / "a.tar", [("1.jpg", make_jpeg(1))])
    (source / "b.jpg").write_bytes(make_jpeg(2)[:100])
    store, first = refresh(source, tmp_path / "w")
    assert first.counts.quarantined == 1
    snapshot = snapshot_rows(plans_of(source))
    write_tar(source / "a.tar", [("1.jpg", make_jpeg(3))])
    os.utime(source / "a.tar", ns=(5, 5))
    (source / "b.jpg").write_bytes(make_jpeg(2))
    changes = discover.diff(discover.list_source(str(source)), snapshot)
    assert len(changes.changed) == 2
    plans = plan_parts(changes.changed, PARAMS)
    ingest.run_many(plans, store, PARAMS, workers=1)
    found = live_pool.load(store, pl.concat([changes.kept, snapshot_rows(plans)]))
    assert (found.counts.samples, found.counts.quarantined) == (2, 0)
    assert set(first.samples["sample_id"]).isdisjoint(found.samples["sample_id"])


KILLED = """
import sys
from pathlib import Path
from wtl_core.pool import ingest
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.pool.part_plan import plan_parts
from wtl_core.workspace.storage import open_store
params = IngestParams(part_images=40)
print("ready", flush=True)
ingest.run_many(plan_parts(discover.list_source(sys.argv[1]), params), open_store(sys.argv[2]), params, workers=1)
"""


def test_a_run_killed_at_any_moment_ends_with_the_same_parts(tmp_path: Path) -> None:
    source, params = build_source(tmp_path / "source", count=240), IngestParams(part_images=40)
    whole, _ = refresh(source, tmp_path / "whole", params)
    for moment in (2, 6):
        workspace = tmp_path / f"w{moment}"
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(workspace)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        while process.poll() is None and sum(len(files) for _, _, files in os.walk(workspace)) < moment:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        store, _ = refresh(source, workspace, params)
        store.sweep()
        assert parts_of(workspace) == parts_of(Path(whole.root))
        assert not [f for f in workspace.rglob("*") if f.is_file() and f.suffix != ".parquet"]


def test_a_part_that_fails_leaves_nothing_behind(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(part_rows, "decode_within", fail)
    (plan,) = plans_of(source)
    with pytest.raises(MemoryError):
        ingest.run(plan, open_store(str(tmp_path / "w")), PARAMS)
    assert not [f for f in (tmp_path / "w").rglob("*") if f.is_file()]


def test_an_object_that_changes_while_it_is_read_is_refused_and_read_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    # large enough to be decoded one by one while the rest is still to be read
    write_tar(source / "a.tar", [(f"{i}.jpg", make_jpeg(i) + bytes(20_000)) for i in range(3)])
    (source / "b.jpg").write_bytes(make_jpeg(3))
    times, original = iter(range(2)), part_rows.decode_within

    def touch(*args: object, **kwargs: object) -> object:
        if next(times, None) == 0:
            os.utime(source / "a.tar", ns=(9, 9))
        return original(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(part_rows, "decode_within", touch)
    snapshot = snapshot_rows(plans_of(source))
    store, found = refresh(source, tmp_path / "w")
    assert (found.counts.samples, found.quarantine["reason"].to_list()) == (1, ["changed_while_read"])
    counts = live_pool.load(store, take_in_again(source, store, snapshot)).counts
    assert (counts.samples, counts.quarantined) == (4, 0)


def test_a_part_never_holds_other_bytes_than_its_listing_named(tmp_path: Path) -> None:
    """A is listed, B lies there when it is read, and A is put back with its time: nothing of B counts as A."""
    source, names = tmp_path / "source", ("a.jpg", "b.tar", "noname")
    source.mkdir()

    def write(first: int) -> None:
        (source / "a.jpg").write_bytes(make_jpeg(first))
        write_tar(source / "b.tar", [("1.jpg", make_jpeg(first + 1)), ("2.jpg", make_jpeg(first + 2))])
        (source / "noname").write_bytes(make_jpeg(first + 3))
        for name in names:
            os.utime(source / name, ns=(first, first))

    write(10)
    (source / "same.jpg").write_bytes(make_jpeg(99))
    plans = plans_of(source)
    store, snapshot = open_store(str(tmp_path / "w")), snapshot_rows(plans)
    write(20)
    ingest.run_many(plans, store, PARAMS, workers=1)
    found = live_pool.load(store, snapshot)
    assert found.quarantine["reason"].to_list() == ["changed_while_read"] * 3
    assert found.samples["uri"].to_list() == [str(source / "same.jpg")]
    write(10)
    assert discover.diff(discover.list_source(str(source)), snapshot).changed.is_empty()
    again = readmission.readable_again(store, snapshot)
    assert again["uri"].to_list() == [str(source / name) for name in names]
    after = take_in_again(source, store, snapshot)
    found = live_pool.load(store, after)
    expected = {hashlib.sha256(make_jpeg(seed)).hexdigest() for seed in (10, 11, 12, 13, 99)}
    assert (set(found.samples["sample_id"]), found.counts.quarantined) == (expected, 0)
    assert readmission.readable_again(store, after).is_empty()
    assert discover.diff(discover.list_source(str(source)), after).changed.is_empty()


def test_a_folder_written_over_after_its_listing_costs_one_reading(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(40):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    (plan,) = plans_of(source)
    for i in range(30):
        os.utime(source / f"{i}.jpg", ns=(7, 7))
    sizes: list[int] = []
    counts = ingest.run(plan, open_store(str(tmp_path / "w")), PARAMS, on_progress=lambda done, _: sizes.append(done))
    assert (counts.images, counts.reasons) == (10, {"changed_while_read": 30})
    assert len(sizes) == 40


def test_a_file_without_permission_is_read_once_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jpg").write_bytes(make_jpeg(1))
    original = reader.open_object

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(reader, "open_object", refuse)
    store, found = refresh(source, tmp_path / "w")
    assert found.quarantine["reason"].to_list() == ["access_denied"]
    assert readmission.readable_again(store, snapshot_rows(plans_of(source))).is_empty()
    monkeypatch.setattr(reader, "open_object", original)
    assert len(readmission.readable_again(store, snapshot_rows(plans_of(source)))) == 1


def take_in_again(source: Path, store: Store, snapshot: pl.DataFrame) -> pl.DataFrame:
    """What the next refresh makes of a source: its snapshot."""
    again = readmission.readable_again(store, snapshot)
    changes = discover.diff(discover.list_source(str(source)), snapshot, again=again)
    plans = plan_parts(pl.concat([changes.new, changes.changed]), PARAMS)
    ingest.run_many(plans, store, PARAMS, workers=1)
    return pl.concat([changes.kept, snapshot_rows(plans)])


@pytest.mark.parametrize("form", ["uri", "struct"])
def test_images_that_rows_name_are_taken_in_once_they_are_there(tmp_path: Path, form: str) -> None:
    source, images = tmp_path / "source", tmp_path / "images"
    source.mkdir()
    images.mkdir()
    names = [f"{images}/{i}.jpg" for i in range(8)]
    rows = names if form == "uri" else [{"bytes": None, "path": name} for name in names]
    kind = pa.string() if form == "uri" else pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(rows, kind)}), source / "a.parquet", row_group_size=3)
    for i in range(3):
        (images / f"{i}.jpg").write_bytes(make_jpeg(i))
    store, found = refresh(source, tmp_path / "w")
    assert (found.counts.samples, found.quarantine["reason"].to_list()) == (3, ["missing"] * 5)
    snapshot = snapshot_rows(plans_of(source))
    assert readmission.readable_again(store, snapshot).is_empty()
    for i in range(3, 7):
        (images / f"{i}.jpg").write_bytes(make_jpeg(i))
    snapshot = take_in_again(source, store, snapshot)
    counts = live_pool.load(store, snapshot).counts
    assert (counts.samples, counts.quarantined) == (7, 1)
    assert readmission.readable_again(store, snapshot).is_empty()
    (images / "7.jpg").write_bytes(make_jpeg(7))
    snapshot = take_in_again(source, store, snapshot)
    assert live_pool.load(store, snapshot).counts.quarantined == 0


def test_of_many_missing_targets_a_spread_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.mkdir()
    pl.DataFrame({"uri": [f"{tmp_path}/{i}.jpg" for i in range(1000)]}).write_parquet(source / "a.parquet")
    store, found = refresh(source, tmp_path / "w")
    assert found.counts.quarantined == 1000
    tried: list[str] = []
    monkeypatch.setattr(readmission, "is_readable", lambda uri, **_: bool(tried.append(uri)))
    assert readmission.readable_again(store, snapshot_rows(plans_of(source))).is_empty()
    assert len(set(tried)) == len(tried) == 256
    assert {f"{tmp_path}/0.jpg", f"{tmp_path}/999.jpg"} <= set(tried)


def test_what_a_killed_attempt_refused_does_not_count(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("loose/broken.jpg", "notes.txt")
    for name in names:
        (source / name).write_bytes(make_jpeg(1))
    store, (plan,) = open_store(str(tmp_path / "w")), plans_of(source)
    original = reader.open_object

    def fail(obj: SourceObject) -> object:
        if obj.uri.endswith(names):
            raise OSError(5, "Input/output error")
        return original(obj)

    with monkeypatch.context() as patch:  # one is refused, one ignored; the next attempt reads both without fault
        patch.setattr(reader, "open_object", fail)
        whole = ingest.run(plan, store, PARAMS)
    (tmp_path / "w" / "pool" / f"{plan.digest}.parquet").unlink()
    counts = ingest.run(plan, store, PARAMS)
    assert (whole.quarantined, whole.ignored) == (1, 1)
    assert (counts.quarantined, counts.ignored) == (0, 0)
    found = live_pool.load(store, snapshot_rows([plan])).counts
    assert (found.read, found.quarantined, found.ignored) == (counts.read, 0, 0)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_the_quarantine_budget_refuses_above_its_share(share: float) -> None:
    quarantine = pl.DataFrame({"reason": ["truncated", "empty"]})
    by_source = {"/a": {"locations": 60, "quarantined": 0}, "/b": {"locations": 40, "quarantined": 2}}
    params = IngestParams(quarantine_budget=share)
    if share >= 0.02:
        ingest.check_quarantine_budget(quarantine, by_source, params)
    else:
        with pytest.raises(InputError, match=r"2 of 100 images \(2.0%\).*truncated 1; 2 of them in /b"):
            ingest.check_quarantine_budget(quarantine, by_source, params)
    ingest.check_quarantine_budget(quarantine.clear(), {}, params)


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


def test_only_what_claims_to_be_an_image_is_quarantined(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    contents = {
        "a.jpg": b"",
        "b.png": b"text",
        "c.dat": b"\xff\xd8\xffjunk",
        "d.txt": b"text",
        "e": b"",
        "f.svg": b"<svg/>",
    }
    for name, data in contents.items():
        (source / name).write_bytes(data)
    (source / "g.tar").write_bytes(b"junk")
    _, found = refresh(source, tmp_path / "w")
    reasons = {Path(row["uri"]).name: row["reason"] for row in found.quarantine.iter_rows(named=True)}
    assert reasons == {
        "a.jpg": "empty",
        "b.png": "not_an_image",
        "c.dat": "truncated",
        "f.svg": "unsupported",
        "g.tar": "broken_shard",
    }
    assert {Path(uri).name for uri in found.ignored["uri"]} == {"d.txt", "e"}
    assert found.counts.read == 7


def test_an_empty_or_wholly_broken_source_still_makes_its_part(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"junk")
    store, found = refresh(source, tmp_path / "w")
    assert found.samples.is_empty()
    assert (found.counts.quarantined, found.counts.samples) == (1, 0)
    nothing = pl.DataFrame(schema=discover.SNAPSHOT_SCHEMA)
    assert live_pool.load(store, nothing).counts.read == 0
    assert live_pool.sample_ids(store, nothing).to_list() == []
    assert live_pool.near_groups(live_pool.load(store, nothing).samples).is_empty()


def test_a_missing_part_is_said_so(source: Path, tmp_path: Path) -> None:
    store, _ = refresh(source, tmp_path / "w")
    next((tmp_path / "w" / "pool").iterdir()).unlink()
    with pytest.raises(CorruptArtifactError, match="cannot be read"):
        live_pool.load(store, snapshot_rows(plans_of(source)))


def test_an_archive_cut_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_tar(source / "a.tar", [(f"{i}.jpg", make_jpeg(i)) for i in range(5)])
    data = (source / "a.tar").read_bytes()
    (source / "a.tar").write_bytes(data[: len(make_jpeg(0)) * 3])
    _, found = refresh(source, tmp_path / "w")
    assert found.quarantine.select("reason", "key").rows() == [("broken_shard", "")]
    assert found.counts.samples == found.counts.locations - 1 >= 1


def test_every_reason_has_a_code_and_counts_add_up(source: Path, tmp_path: Path) -> None:
    (plan,) = plans_of(source)
    counts = ingest.run(plan, open_store(str(tmp_path / "w")), PARAMS)
    assert counts.read == counts.images + counts.quarantined + counts.ignored
    assert counts.reasons == {"truncated": 1}
    assert len({str(reason) for reason in Reason}) == len(Reason)


def test_planning_imports_no_torch() -> None:
    modules = "wtl_core.recipe.recipe, wtl_core.shards.discover, " + ", ".join(
        f"wtl_core.pool.{name}" for name in ("live_pool", "part_plan", "part_file")
    )
    code = f"import {modules}, sys; assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_row_that_names_no_uri_at_all_is_one_refused_row(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jpg").write_bytes(make_jpeg(1))
    rows = [f"{source}/a.jpg", "file://[x/b.jpg", "s3://"]
    pl.DataFrame({"uri": rows}).write_parquet(source / "list.parquet")
    _, found = refresh(source, tmp_path / "w")
    assert found.counts.samples == 1
    assert found.quarantine["reason"].to_list() == ["unsupported", "unsupported"]


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
