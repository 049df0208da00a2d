"""Levels, products and exact neighbours, against plain float64."""

import numpy as np
import pytest
import torch

from wtl_core.selection import neighbours
from wtl_core.selection.identity import content_keys
from wtl_core.selection.kmeans_cells import cell_graph
from wtl_core.selection.neighbours import exact_distances, exact_graph, level_distances, level_of, prepare
from wtl_core.selection.neighbours_cuda import exact_graph_on_cuda

pytestmark = pytest.mark.usefixtures("two_threads")


def unit(rows: int, dimensions: int, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, dimensions))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def plain_distances(vectors: np.ndarray) -> np.ndarray:
    rounded = torch.from_numpy(vectors).bfloat16().double().numpy()
    norms = (rounded**2).sum(1)
    squares = np.maximum(norms[:, None] + norms - 2 * rounded @ rounded.T, 0.0)
    np.fill_diagonal(squares, 0.0)
    return np.asarray(np.sqrt(squares))


def test_levels_rise_with_distance_and_find_themselves() -> None:
    distances = level_distances()
    assert distances[0] == 0.0
    assert (np.diff(distances) >= 0).all()
    assert distances[-1] == 2.0
    assert level_of(distances[700]) == 700


def test_products_give_distances_to_a_thousandth_however_close() -> None:
    vectors = unit(200, 96)
    vectors[100:] = vectors[:100] + 0.01 * unit(100, 96, 1)
    graph = exact_graph(prepare(vectors), 200, near_level=0)
    expected = np.take_along_axis(plain_distances(vectors), graph.rows.astype(np.int64), axis=1)
    found = level_distances()[graph.levels]
    far = expected > 0.02
    assert np.abs(found[far] / expected[far] - 1).max() < 3e-3


@pytest.mark.parametrize("rows", [1, 2, 300, 2200])
def test_graph_lists_the_nearest_rows_itself_first(rows: int) -> None:
    vectors = unit(rows, 24)
    graph = exact_graph(prepare(vectors), 12, near_level=level_of(0.7))
    distances = plain_distances(vectors)
    width = min(12, rows)
    assert graph.rows.shape == (rows, width)
    assert (graph.rows[:, 0] == np.arange(rows)).all()
    kept = np.take_along_axis(distances, graph.rows.astype(np.int64), axis=1)
    limit = np.sort(distances, axis=1)[:, width - 1]
    assert (kept.max(axis=1) <= limit * 1.005 + 1e-6).all()
    near = (distances <= 0.7).sum(1)
    assert (np.abs(graph.near - near) <= (np.abs(distances - 0.7) < 3e-3).sum(1)).all()


def test_near_rows_are_counted_however_many() -> None:
    vectors = np.repeat(unit(3, 16), [40, 5, 1], axis=0)
    graph = exact_graph(prepare(vectors), 4, near_level=level_of(0.1))
    assert graph.near.tolist() == [40] * 40 + [5] * 5 + [1]


def test_block_sizes_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(1500, 32)
    one = exact_graph(prepare(vectors), 9, near_level=3)
    monkeypatch.setattr(neighbours, "BLOCK_ROWS", 128)
    monkeypatch.setattr(neighbours, "BLOCK_COLUMNS", 512)
    other = exact_graph(prepare(vectors, whole=512), 9, near_level=3)
    assert (one.rows == other.rows).all()
    assert (one.levels == other.levels).all()


def test_without_bf16_the_same_neighbours_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = unit(600, 32)
    fast = exact_graph(prepare(vectors), 9, near_level=3)
    monkeypatch.setattr(neighbours, "numeric_path_of", lambda device: "cpu-fp32")
    plain = exact_graph(prepare(vectors), 9, near_level=3)
    assert (fast.rows == plain.rows).mean() > 0.995


@pytest.mark.parametrize("rows", [5, 700])
def test_the_device_algorithm_gives_the_same_lists(rows: int) -> None:
    """It runs on any device; only its speed needs a GPU."""
    points = prepare(unit(rows, 24))
    one = exact_graph(points, 12, near_level=level_of(0.7))
    other = exact_graph_on_cuda(points, 12, near_level=level_of(0.7))
    assert (one.rows == other.rows).all()
    assert (one.levels == other.levels).all()
    assert (one.near == other.near).all()


def test_exact_distances_are_those_of_numpy() -> None:
    vectors = unit(50, 8)
    rows, others = np.arange(50), np.arange(50)[::-1].copy()
    expected = np.linalg.norm(vectors[rows] - vectors[others], axis=1)
    assert exact_distances(vectors, rows, others, vectors) == pytest.approx(expected, abs=1e-6)


def test_cells_find_most_neighbours_and_all_of_them_when_all_are_probed() -> None:
    centres = unit(12, 24, 3)
    drawn = centres[np.random.default_rng(1).integers(0, 12, 1800)] + 0.1 * np.random.default_rng(2).normal(
        size=(1800, 24)
    )
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    points, keys = prepare(vectors), content_keys([f"{row}" for row in range(1800)])
    exact = exact_graph(points, 10, near_level=level_of(0.2))
    whole = cell_graph(points, keys, 10, near_level=level_of(0.2), cells=8, probes=8)
    assert (exact.rows == whole.rows).all()
    assert (exact.near == whole.near).all()
    part = cell_graph(points, keys, 10, near_level=level_of(0.2), cells=12, probes=4)
    found = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact.rows.tolist(), part.rows.tolist(), strict=True)])
    assert found > 0.95
