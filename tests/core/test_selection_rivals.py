"""The other objectives: exactness of k-center, nesting, determinism, and that each orders every row once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import farthest, orders, ranking
from wtl_core.selection.farthest import FAR, farthest_first, nearest_outside
from wtl_core.selection.identity import content_keys, draw, shuffled
from wtl_core.selection.neighbours import prepare
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking

pytestmark = pytest.mark.usefixtures("two_threads")

OBJECTIVES = ["coverage", "k-center", "probability-coverage", "typicality", "stratified-random", "random"]


def clustered(rows: int, seed: int = 0, *, dimensions: int = 12, spread: float = 0.4) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(9, dimensions))[rng.integers(0, 9, rows)] + spread * rng.normal(size=(rows, dimensions))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def rank(vectors: np.ndarray, objective: str, order: np.ndarray | None = None, **more: object) -> Ranking:
    ids = np.array([f"{row:05d}" for row in range(len(vectors))])
    order = np.arange(len(vectors)) if order is None else order
    params = SelectionParams.model_validate({"objective": objective, "clusters": 20})
    scale = more.pop("scale", None)
    given = Steering(**more)  # type: ignore[arg-type]
    return ranking.rank(
        vectors[order],
        params,
        sample_ids=ids[order].tolist(),
        steering=given,
        scale=scale,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_orders_each_row_once_whatever_the_row_order(objective: str) -> None:
    vectors = clustered(260)
    vectors[30] = vectors[31]
    order = np.random.default_rng(4).permutation(260)
    one, other = rank(vectors, objective), rank(vectors, objective, order)
    assert sorted(one.rows.tolist()) == list(range(260))
    assert (one.rows == order[other.rows]).all()
    assert (one.rows[-1], one.duplicate_of[-1]) == (31, 30)
    assert one.coverage[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_keeps_a_frozen_prefix(objective: str) -> None:
    frozen = np.array([17, 3, 99])
    found = rank(clustered(120), objective, frozen=frozen)
    assert found.rows[:3].tolist() == [17, 3, 99]
    assert sorted(found.rows.tolist()) == list(range(120))


def run_farthest(vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    none = np.zeros(0, np.int64)
    return farthest_first(prepare(vectors), count, given=none, nearest=np.full(len(vectors), FAR), first=0)


@pytest.mark.parametrize("candidates", [8, 64, 768])
def test_farthest_first_is_exact(candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farthest, "CANDIDATES", candidates)
    vectors = clustered(700, 3)
    order, distances = run_farthest(vectors, 300)
    points = prepare(vectors)
    rounded = points.right[:700, :12].double().numpy()
    nearest = np.full(700, np.inf)
    for place, row in enumerate(order):
        if place:
            assert nearest[row] >= nearest.max() - 1e-6
            assert distances[place] == pytest.approx(np.sqrt(nearest[row]), rel=1e-5)
        nearest = np.minimum(nearest, ((rounded - rounded[row]) ** 2).sum(1))
    assert len(set(order.tolist())) == 300


def test_distances_to_images_outside_are_exact_on_either_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farthest, "BLOCK_ROWS", 64)
    points, others = prepare(clustered(300, 1)), prepare(clustered(150, 2))
    rows, anchors = (some.right[: some.count, :12].double().numpy() for some in (points, others))
    expected = ((rows[:, None] - anchors[None]) ** 2).sum(2).min(1) / 2
    assert nearest_outside(points, others) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    by_floats = np.full(300, FAR)  # plain torch, which needs no card
    farthest.lower_by_floats(points, others, np.arange(150), by_floats)
    assert by_floats == pytest.approx(expected, abs=1e-5)


def test_farthest_first_sees_labelled_images_that_a_narrow_kernel_does_not_reach() -> None:
    """At this scale every kernel value between the pool and the labelled image rounds to zero."""
    vectors, labelled = clustered(200, 1), clustered(1, 7)
    found = rank(vectors, "k-center", labelled=labelled, scale=0.01)
    distances = np.linalg.norm(vectors - labelled, axis=1)
    assert distances.min() > 0.15
    assert distances[found.rows[0]] == pytest.approx(distances.max(), abs=0.01)
    rest = np.minimum(distances, np.linalg.norm(vectors - vectors[found.rows[0]], axis=1))
    assert rest[found.rows[1]] == pytest.approx(rest.max(), abs=0.01)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 11), st.integers(1, 4))
def test_the_radius_is_at_most_twice_the_optimum(seed: int, rows: int, budget: int) -> None:
    vectors = clustered(rows, seed, dimensions=4, spread=1.0)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    best = min(distances[list(picks)].min(0).max() for picks in itertools.combinations(range(rows), budget))
    order, _ = run_farthest(vectors, budget)
    assert distances[order].min(0).max() <= 2 * best + 0.01


def test_random_orders_depend_on_ids_and_seed_alone() -> None:
    keys = content_keys([f"{row}" for row in range(500)])
    assert (shuffled(keys, 1, 2) == shuffled(keys, 1, 2)).all()
    assert (shuffled(keys, 1, 2) != shuffled(keys, 2, 2)).any()
    assert (draw(keys[:5], 1, 2) == draw(keys, 1, 2)[:5]).all()
    spread = draw(keys, 0, 0).astype(np.float64) / 2.0**64
    assert 0.4 < spread.mean() < 0.6


def test_stratified_prefixes_are_proportional_to_clusters() -> None:
    rng = np.random.default_rng(0)
    which = np.repeat([0, 1, 2], [300, 60, 40])
    drawn = 5 * np.eye(12)[which] + 0.1 * rng.normal(size=(400, 12))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    found = rank(vectors, "stratified-random")
    counts = np.bincount(which[found.rows[:100]], minlength=3)
    assert np.abs(counts - [75, 15, 10]).max() <= 10


def test_typicality_begins_in_the_middle_of_the_largest_clusters() -> None:
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(8), 40)
    drawn = 4 * np.eye(12)[which] + 0.4 * rng.normal(size=(320, 12))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    found = rank(vectors, "typicality")
    assert len(set(which[found.rows[:16]])) == 8
    closeness = (vectors * np.eye(12, dtype=np.float32)[which]).sum(1)
    assert closeness[found.rows[:16]].mean() > closeness.mean()


def test_probability_coverage_covers_balls() -> None:
    found = rank(clustered(300), "probability-coverage")
    assert (found.coverage == 1.0).sum() > 100
    assert (np.diff(found.gain) <= 0).all()


@pytest.mark.parametrize("objective", ["typicality", "stratified-random"])
def test_clusters_that_hold_labelled_or_frozen_images_come_after_those_that_hold_none(objective: str) -> None:
    rng = np.random.default_rng(0)
    which = np.repeat(np.arange(8), 40)
    drawn = 4 * np.eye(12)[which] + 0.4 * rng.normal(size=(320, 12))
    vectors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    found = rank(vectors, objective, labelled=vectors[which < 3])  # a copy of each is in the pool
    assert (which[found.rows[:16]] >= 3).all()
    assert sorted(found.rows.tolist()) == list(range(320))
    frozen = np.flatnonzero(which < 3)[::4]
    found = rank(vectors, objective, frozen=frozen)
    assert (found.rows[:30] == frozen).all()
    assert (which[found.rows[30:46]] >= 3).sum() >= 15  # one of the smaller clusters may hold no frozen row
    assert sorted(found.rows.tolist()) == list(range(320))


def test_k_center_says_where_farthest_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank(clustered(200), "k-center").exact_until == 200
    monkeypatch.setattr(orders, "TRACED_PAIRS", 200 * 50)
    assert rank(clustered(200), "k-center").exact_until == 50
    assert rank(clustered(200), "random").exact_until == 200
