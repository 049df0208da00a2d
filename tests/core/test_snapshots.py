"""Listing snapshots: whole ones, and those of large listings as their difference to a whole one."""

import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tests.conftest import write_pictures
from tests.plain_refresh import ranking, refresh
from wtl_core.shards.discover import SNAPSHOT_SCHEMA
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits, snapshots
from wtl_core.workspace.storage import Store


def listing(sizes: dict[int, int]) -> pl.DataFrame:
    rows = [("/s", f"/s/{n:06d}.jpg", "loose", size, 1, "", f"{n // 100:064d}") for n, size in sizes.items()]
    return pl.DataFrame(rows, schema=SNAPSHOT_SCHEMA, orient="row").sort("uri")


def rows_in(root: Path, key: str) -> int:
    return pl.read_parquet(root / key).height


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences from 40 objects on."""
    monkeypatch.setattr(snapshots, "WHOLE_UP_TO", 40)


@pytest.mark.usefixtures("small")
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.dictionaries(st.integers(0, 120), st.none() | st.integers(1, 3), max_size=12), max_size=6),
)
def test_any_row_of_changes_is_read_back(tmp_path_factory: pytest.TempPathFactory, steps: list[dict]) -> None:  # type: ignore[type-arg]
    store, sizes, key = Store(str(tmp_path_factory.mktemp("w"))), dict.fromkeys(range(100), 9), None
    for changes in [{}, *steps]:
        sizes = {n: size for n, size in {**sizes, **changes}.items() if size is not None}
        rows = listing(sizes)
        key = snapshots.write_snapshot(store, rows, before=key)
        assert_frame_equal(snapshots.read_snapshot(store, key), rows)
        assert snapshots.write_snapshot(store, rows, before=key) == key or commits.DIFFERENCE not in key
        assert all(store.exists(file) for file in snapshots.files_of([key]))


@pytest.mark.usefixtures("small")
def test_little_change_of_a_large_listing_is_written_alone(tmp_path: Path) -> None:
    store, sizes = Store(str(tmp_path)), dict.fromkeys(range(1000), 9)
    first = snapshots.write_snapshot(store, listing(sizes))
    del sizes[5]
    second = snapshots.write_snapshot(store, listing({**sizes, 7: 10, 1001: 9}), before=first)
    third = snapshots.write_snapshot(store, listing({**sizes, 7: 10, 1001: 9, 1002: 9}), before=second)
    assert [rows_in(tmp_path, key) for key in (first, second, third)] == [1000, 3, 4]
    assert snapshots.files_of([third]) == {first, third}  # never a difference to a difference
    fourth = snapshots.write_snapshot(store, listing(dict.fromkeys(range(300, 1300), 9)), before=third)
    assert (rows_in(tmp_path, fourth), commits.DIFFERENCE in fourth) == (1000, False)


def test_a_small_listing_is_always_whole(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    first = snapshots.write_snapshot(store, listing(dict.fromkeys(range(50), 9)))
    second = snapshots.write_snapshot(store, listing(dict.fromkeys(range(51), 9)), before=first)
    assert rows_in(tmp_path, second) == 51


@pytest.mark.usefixtures("small")
def test_refreshes_by_differences_rank_as_before_and_survive_house_keeping(tmp_path: Path) -> None:
    photos, root = write_pictures(tmp_path / "photos", count=48), tmp_path / "w"
    refresh(root, photos)
    first = min(photos.iterdir())
    for name in ("x.jpg", "y.jpg"):
        (photos / name).write_bytes(first.read_bytes() + name.encode())
        last = refresh(root, photos)
    assert commits.DIFFERENCE in last.listing
    record = json.loads((root / "refreshes" / "000003.json").read_text())
    assert (record["format"], json.loads((root / "wtl.json").read_text())) == (2, {"format": 1})
    fresh = refresh(tmp_path / "at-once", photos)
    assert ranking(root).equals(ranking(tmp_path / "at-once"))
    assert last.counts == fresh.counts.model_copy(update={"new_samples": 1})
    maintenance.run(Store(str(root)), keep=1)
    assert {f"listings/{path.name}" for path in (root / "listings").iterdir()} == snapshots.files_of([last.listing])
    (photos / "x.jpg").unlink()
    assert refresh(root, photos).counts.samples == 49
