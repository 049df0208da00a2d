"""Parts of sources that changed, runs that were killed, objects that were away: what is read again and what is not."""

import hashlib
import os
import signal
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import build_source, make_jpeg
from tests.forked import forked
from tests.plain_ingest import PARAMS, parts_of, plans_of, refresh, write_tar
from wtl_core.machine import Machine
from wtl_core.pool import ingest, live_pool, part_rows
from wtl_core.pool.part_plan import plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.refresh import readmission
from wtl_core.shards import discover, reader
from wtl_core.shards.objects import SourceObject
from wtl_core.workspace.storage import Store, open_store


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
    ingest.run_many(plans, store, PARAMS, Machine(workers=2))
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
    ingest.run_many(plans, store, PARAMS, Machine(workers=1))
    found = live_pool.load(store, pl.concat([changes.kept, snapshot_rows(plans)]))
    assert (found.counts.samples, found.counts.quarantined) == (2, 0)
    assert set(first.samples["sample_id"]).isdisjoint(found.samples["sample_id"])


KILLED = """
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.pool.part_plan import plan_parts
from wtl_core.workspace.storage import open_store

def work(source, workspace):
    params = IngestParams(part_images=40)
    ingest.run_many(plan_parts(discover.list_source(source), params), open_store(workspace), params, Machine(workers=1))
"""


def test_a_run_killed_at_any_moment_ends_with_the_same_parts(tmp_path: Path) -> None:
    source, params = build_source(tmp_path / "source", count=240), IngestParams(part_images=40)
    whole, _ = refresh(source, tmp_path / "whole", params)
    with forked(KILLED) as processes:
        for moment in (2, 6):
            workspace = tmp_path / f"w{moment}"
            code, _ = processes.run(
                str(source),
                str(workspace),
                kill_when=lambda workspace=workspace, moment=moment: (
                    sum(len(files) for _, _, files in os.walk(workspace)) >= moment
                ),
            )
            assert code in (0, -signal.SIGKILL)
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
    ingest.run_many(plans, store, PARAMS, Machine(workers=1))
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
    ingest.run_many(plans, store, PARAMS, Machine(workers=1))
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
