"""Positions of the map: fitted once, kept, and new images placed between them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import make_jpeg, write_pictures
from tests.plain_refresh import files, refresh
from wtl_core.report import positions, previews
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits
from wtl_core.workspace.storage import Store


def unit(rows: int, dimensions: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(rows, dimensions)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_a_vector_is_placed_between_the_three_anchors_nearest_to_it() -> None:
    anchors, asked = unit(300, 24), unit(700, 24, seed=1)
    places = np.random.default_rng(2).normal(size=(300, 2)).astype(np.float32)
    squares = ((asked[:, None] - anchors[None]) ** 2).sum(2)
    nearest = np.argsort(squares, axis=1)[:, :3]
    weights = 1 / np.take_along_axis(squares, nearest, 1)
    expected = ((weights / weights.sum(1, keepdims=True))[:, :, None] * places[nearest]).sum(1)
    found = positions.place(asked, anchors, places)
    # distances are rounded to 0.2 %, which now and then decides which anchor is the third
    assert (np.abs(found - expected).max(1) < 0.02).mean() > 0.95


def test_an_anchor_is_placed_where_it_is_and_few_anchors_are_enough() -> None:
    anchors = unit(2, 8)
    places = np.array([[1.0, 2.0], [-3.0, 4.0]], np.float32)
    assert np.allclose(positions.place(anchors, anchors, places), places, atol=0.01)
    assert np.allclose(positions.place(anchors[:1], anchors[:1], places[:1]), places[:1])


@pytest.mark.parametrize("rows", [1, 2, 40])
def test_few_images_are_shown_by_their_main_axes(rows: int) -> None:
    vectors = unit(rows, 6)
    found = positions.fit_positions(vectors)
    centred = vectors - vectors.mean(0)
    spread = np.linalg.svd(centred, compute_uv=False)[:2]
    assert found.shape == (rows, 2)
    assert np.allclose(np.sort(np.linalg.norm(found, axis=0))[::-1], np.pad(spread, (0, 2 - len(spread))), atol=1e-3)


def test_fitted_positions_keep_neighbours_together_and_come_out_again() -> None:
    centres = unit(12, 16)
    kind = np.arange(600) % 12
    vectors = centres[kind] + 0.05 * np.random.default_rng(3).normal(size=(600, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = positions.fit_positions(vectors)
    far = ((found[:, None] - found[None]) ** 2).sum(2)
    np.fill_diagonal(far, np.inf)
    assert (kind[far.argmin(1)] == kind).mean() > 0.99
    assert np.array_equal(found, positions.fit_positions(vectors))


def table(workspace: Path) -> pl.DataFrame:
    folder = next((workspace / "encoders").glob("*/positions"))
    return pl.concat([pl.read_parquet(file) for file in sorted(folder.iterdir())])


def test_images_that_arrive_are_placed_and_move_no_other(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "source", count=30)
    refresh(tmp_path / "w", source)
    before = files(tmp_path / "w")
    first = table(tmp_path / "w")
    assert first["is_fitted"].all()
    (source / "new.jpg").write_bytes(make_jpeg(500))
    refresh(tmp_path / "w", source)
    after = files(tmp_path / "w")
    kept = [name for name in before if "positions" in name or name.startswith("previews")]
    assert len(kept) == 2
    assert all(after[name] == before[name] for name in kept)
    both = table(tmp_path / "w")
    assert both.head(30).equals(first)
    assert both["is_fitted"].to_list() == [True] * 30 + [False]


def test_a_refresh_without_new_images_neither_reads_a_vector_for_the_map_nor_writes_a_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_pictures(tmp_path / "source", count=12)
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    last = commits.latest(store)
    assert last is not None
    before, ids = files(tmp_path / "w"), table(tmp_path / "w")["sample_id"].to_list()
    monkeypatch.setattr(positions.vectors, "load", None)
    monkeypatch.setattr(positions.vectors, "existing_ids", None)
    found = positions.update(store, last.encoder, ids[::-1])
    assert found["sample_id"].to_list() == ids[::-1]
    assert found["x"].null_count() == 0
    assert files(tmp_path / "w") == before


def test_a_map_of_few_images_is_fitted_anew_when_the_pool_has_grown(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "source", count=5)
    refresh(tmp_path / "w", source)
    for seed in range(100, 125):
        (source / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    refresh(tmp_path / "w", source)
    folder = next((tmp_path / "w" / "encoders").glob("*/positions"))
    names = sorted(file.name[:4] for file in folder.iterdir())
    assert names == ["0001", "0002"]
    last = pl.read_parquet(next(folder.glob("0002-*")))
    assert last["is_fitted"].sum() == 30


def test_house_keeping_keeps_the_last_map_and_the_previews_of_kept_parts(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "source", count=5)
    refresh(tmp_path / "w", source)
    (source / "0.jpg").unlink()
    for seed in range(100, 125):
        (source / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    assert len(store.names("previews")) == len(store.names("pool"))
    maintenance.run(store, keep=1)
    assert store.names("previews") == store.names("pool")
    [fingerprint] = [name for name in store.names("encoders") if store.names(f"encoders/{name}/positions")]
    assert [name[:4] for name in store.names(f"encoders/{fingerprint}/positions")] == ["0002"]


def test_a_preview_is_sixteen_colours_of_four_bits() -> None:
    colours = np.zeros((1, 4, 4, 3), np.uint8)
    colours[0, 0, 0] = (255, 0, 136)
    colours[0, 0, 1] = (17, 34, 255)
    [found] = previews.packed(colours)
    assert found[:3].tolist() == [0xF0, 0x81, 0x2F]
    assert not found[3:].any()
    assert len(found) == previews.BYTES
