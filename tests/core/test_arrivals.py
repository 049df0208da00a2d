"""The cheap look, waiting for quiet, house-keeping, and how novel arrivals are."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import build_source, make_jpeg
from wtl_core import pipeline
from wtl_core.embedding import vectors
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe, build_recipe
from wtl_core.refresh import arrivals, novelty
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits, ledger, storage
from wtl_core.workspace.storage import Store

PIXELS = build_recipe({"encoder": {"name": "pixels"}}, name="test")


@pytest.fixture
def refreshed(source: Path, tmp_path: Path) -> tuple[Store, Path]:
    store = storage.open_store(str(tmp_path / "workspace"))
    pipeline.refresh_workspace(store, [str(source)], PIXELS, Machine())
    return store, source


def test_before_the_first_refresh_all_is_new(source: Path, tmp_path: Path) -> None:
    seen = arrivals.look(storage.open_store(str(tmp_path / "workspace")), [str(source)])
    assert seen.new == seen.objects == seen.count > 0
    assert seen.bytes == sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    assert not (tmp_path / "workspace").exists()


def test_a_look_sees_what_is_new_changed_and_gone(refreshed: tuple[Store, Path]) -> None:
    store, source = refreshed
    assert not arrivals.look(store, []).is_pending
    (source / "new.jpg").write_bytes(make_jpeg(900))
    (source / "loose" / "copy.jpg").write_bytes(make_jpeg(901))
    (source / "notes.txt").unlink()
    seen = arrivals.look(store, [])
    assert (seen.new, seen.changed, seen.gone) == (1, 1, 1)
    assert seen.bytes == len(make_jpeg(900)) + len(make_jpeg(901))
    assert set(arrivals.arrived(store, [])["uri"]) == {str(source / "new.jpg"), str(source / "loose" / "copy.jpg")}


def test_the_same_listing_has_the_same_digest_and_another_has_not(refreshed: tuple[Store, Path]) -> None:
    store, source = refreshed
    before = arrivals.look(store, []).listing
    assert arrivals.look(store, [str(source)]).listing == before
    (source / "new.jpg").write_bytes(make_jpeg(900))
    assert arrivals.look(store, []).listing != before


def test_waiting_ends_when_nothing_lands_any_more(refreshed: tuple[Store, Path]) -> None:
    store, source = refreshed
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) <= 4:
            (source / f"late-{len(naps)}.jpg").write_bytes(make_jpeg(900 + len(naps)))

    assert arrivals.wait_until_quiet(store, [], quiet_seconds=5, sleep=nap).new == 0
    assert naps == []
    (source / "first.jpg").write_bytes(make_jpeg(899))
    assert arrivals.wait_until_quiet(store, [], quiet_seconds=5, sleep=nap).new == 5
    assert naps == [5] * 5


def test_a_source_that_never_rests_is_read_after_a_while(refreshed: tuple[Store, Path]) -> None:
    store, source = refreshed
    (source / "0.jpg").write_bytes(make_jpeg(899))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        (source / f"late-{len(naps)}.jpg").write_bytes(make_jpeg(900 + len(naps)))

    arrivals.wait_until_quiet(store, [], quiet_seconds=5, sleep=nap)
    assert len(naps) == 11


def test_a_look_loads_no_torch() -> None:
    script = "import sys, wtl_core.refresh.arrivals, flows.watch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_house_keeping_deletes_what_no_kept_refresh_needs(refreshed: tuple[Store, Path]) -> None:
    store, source = refreshed
    for number in range(3):
        (source / f"{number}.jpg").write_bytes(make_jpeg(900 + number))
        pipeline.refresh_workspace(store, [], None, Machine())
    for path in source.glob("[0-9].jpg"):
        path.unlink()
    (source / "last.jpg").write_bytes(make_jpeg(950))
    last = pipeline.refresh_workspace(store, [], None, Machine())
    ranking = store.read_bytes(f"{last.selection}/ranking.parquet")
    everything = maintenance.run(store, keep=10)
    assert set(everything.deleted.values()) == {0}
    done = maintenance.run(store, keep=1)
    assert done.deleted["pool"] == 3
    assert done.deleted["listings"] == 4
    assert done.vectors_dropped == 3
    assert len(vectors.existing_ids(store, last.encoder)) == last.counts.samples
    assert maintenance.run(store, keep=1).deleted == dict.fromkeys(done.deleted, 0)
    assert store.read_bytes(f"{last.selection}/ranking.parquet") == ranking
    (source / "0.jpg").write_bytes(make_jpeg(900))
    assert pipeline.refresh_workspace(store, [], None, Machine()).counts.samples == last.counts.samples + 1


def test_house_keeping_of_an_empty_workspace_does_nothing(tmp_path: Path) -> None:
    assert maintenance.run(storage.open_store(str(tmp_path / "w"))) == maintenance.Maintained()


def test_what_lies_far_from_the_labelled_is_told_from_what_does_not() -> None:
    rng = np.random.default_rng(0)
    centres = np.eye(8, 32, dtype=np.float32)

    def around(kinds: list[int], count: int) -> np.ndarray:
        rows = centres[rng.choice(kinds, count)] + 0.1 * rng.standard_normal((count, 32)).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    anchors, matrix = around([0, 1, 2], 60), around([0, 1, 2], 2000)
    assert novelty.far_share(around([0, 1, 2], 2000), anchors, matrix) == pytest.approx(0.1, abs=0.04)
    assert novelty.far_share(around([6, 7], 500), anchors, matrix) > 0.95
    assert novelty.far_share(np.empty((0, 0), np.float32), anchors, matrix) == 0.0


def test_the_nearest_is_found_block_by_block() -> None:
    rng = np.random.default_rng(0)
    rows, anchors = (rng.standard_normal((count, 8)).astype(np.float32) for count in (50, 33))
    expected = (rows @ anchors.T).max(axis=1)
    found = novelty.nearest_similarity(rows, anchors, block_rows=7, block_anchors=5)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_sample_of_the_arrivals_is_spread_over_them_and_does_not_follow_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}.jpg").write_bytes(make_jpeg(number))
    arrived = arrivals.arrived(storage.open_store(str(tmp_path / "w")), [str(tmp_path)])
    everything = [make_jpeg(number) for number in range(40)]
    assert sorted(data for _, data in novelty.sampled(arrived, max_file_bytes=1 << 20)) == sorted(everything)
    monkeypatch.setattr(novelty, "IMAGES", 10)
    few = [data for _, data in novelty.sampled(arrived, max_file_bytes=1 << 20)]
    assert len(few) == 10
    assert {everything.index(data) for data in few} != set(range(10))
    assert few == [data for _, data in novelty.sampled(arrived.reverse(), max_file_bytes=1 << 20)]


def test_an_arrival_that_was_cut_and_then_closed_gets_no_vector(refreshed: tuple[Store, Path]) -> None:
    """Only verifying refuses it, and ingest has not verified what has just arrived."""
    store, source = refreshed
    whole, cut = make_jpeg(900), make_jpeg(901, side=200)
    cut = cut[: len(cut) // 3] + b"\xff\xd9"
    (source / "cut.jpg").write_bytes(cut)
    last = commits.latest(store)
    assert last is not None
    ledger.append(store, "labelled", sorted(vectors.existing_ids(store, last.encoder)))
    assert novelty.share(store, arrivals.arrived(store, []), Machine()) == 0.0
    (source / "whole.jpg").write_bytes(whole)
    chosen = novelty.sampled(arrivals.arrived(store, []), max_file_bytes=1 << 20)
    assert [data for _, data in chosen] == [whole]


def test_of_a_large_shard_the_beginning_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [make_jpeg(number) for number in range(60)]
    with tarfile.open(tmp_path / "large.tar", "w") as tar:
        for number, data in enumerate(images):
            member = tarfile.TarInfo(f"{number}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    monkeypatch.setattr(novelty, "IMAGES", 5)
    monkeypatch.setattr(novelty, "MOST_BYTES", 20 * len(images[0]))
    arrived = arrivals.arrived(storage.open_store(str(tmp_path / "w")), [str(tmp_path)])
    found = [images.index(data) for _, data in novelty.sampled(arrived, max_file_bytes=1 << 20)]
    assert len(found) == 5
    assert max(found) < 30
    assert sorted(found) != list(range(5))


@pytest.mark.parametrize("count", [20, 80], ids=["as it is", "fitted to the pool"])
def test_vectors_of_two_networks_are_not_compared(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factory's network has another width by now: no vector of the workspace says how far its vectors are."""
    factory = (
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "def build():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), Preprocessing(16)\n"
    )
    (tmp_path / "wide_nets.py").write_text(factory)
    monkeypatch.syspath_prepend(str(tmp_path))
    build_source(tmp_path / "source", count=count)
    store = storage.open_store(str(tmp_path / "w"))
    recipe = Recipe.model_validate({"encoder": {"name": "python:wide_nets:build"}})
    last = pipeline.refresh_workspace(store, [str(tmp_path / "source")], recipe, Machine())
    ledger.append(store, "labelled", sorted(vectors.existing_ids(store, last.encoder)))
    (tmp_path / "source" / "again.jpg").write_bytes(make_jpeg(900))
    arrived = arrivals.arrived(store, [])
    assert novelty.share(store, arrived, Machine()) in (0.0, 1.0)
    monkeypatch.delitem(sys.modules, "wide_nets")
    (tmp_path / "wide_nets.py").write_text(factory.replace("AdaptiveAvgPool2d(2)", "AdaptiveAvgPool2d(3)"))
    os.utime(tmp_path / "wide_nets.py", (1, 1))
    assert novelty.share(store, arrived, Machine()) == 1.0


def test_arrivals_are_embedded_and_compared_with_the_labelled(refreshed: tuple[Store, Path]) -> None:
    store, source = refreshed
    (source / "new.jpg").write_bytes(make_jpeg(900))
    arrived = arrivals.arrived(store, [])
    assert novelty.share(store, arrived, Machine()) == 1.0
    last = commits.latest(store)
    assert last is not None
    ledger.append(store, "labelled", sorted(vectors.existing_ids(store, last.encoder)))
    assert 0.0 <= novelty.share(store, arrived, Machine()) <= 1.0
    build_source(source / "more", count=9)
    again = novelty.share(
        store,
        arrivals.arrived(store, []).filter(~(arrivals.arrived(store, [])["uri"] == str(source / "new.jpg"))),
        Machine(),
    )
    assert again == 0.0
