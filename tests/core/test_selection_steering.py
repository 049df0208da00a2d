"""Steering: params and aliases, quotas, weights, similarity, balance, stop conditions, stability, explanations."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.clustered_pool import LARGE, cameras, clustered, rank
from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.selection import Balance, SelectionParams, WeightBy
from wtl_core.selection import ranking
from wtl_core.selection.ranking import Steering
from wtl_core.selection.steering import (
    balance_weights,
    column_weights,
    numbered,
    similarity_weights,
    whole_weights,
)

pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.mark.parametrize("objective", ["k-center", "typicality", "stratified-random", "random"])
@pytest.mark.parametrize(
    "steering",
    [
        {"weights": [{"column": "sharpness"}]},
        {"similar_to": [{"sample_ids": ["a"]}]},
        {"group_by": "camera", "balance": {}},
        {"group_by": "camera", "quotas": [{"group": "north", "minimum": 1}]},
    ],
)
def test_steering_that_an_objective_cannot_follow_is_refused(objective: str, steering: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=f"expected objective coverage or .* found {objective}"):
        SelectionParams.model_validate({"objective": objective, **steering})


@pytest.mark.parametrize(
    "wrong",
    [
        {"quotas": [{"group": "a"}]},
        {"group_by": "x", "quotas": [{"group": "a"}, {"group": "a"}]},
        {"group_by": "x", "quotas": [{"group": "a", "minimum": 5, "maximum": 4}]},
        {"group_by": "x", "quotas": [{"group": "a", "minimum_share": 0.6}, {"group": "b", "minimum_share": 0.6}]},
        {"group_by": "x", "quotas": [{"group": "a"}], "objective": "k-center"},
        {"scale_factor": 0},
        {"neighbors": 3},
        {"budget": True},
    ],
)
def test_params_that_contradict_themselves_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SelectionParams.model_validate(wrong)


def test_column_weights_multiply_by_their_strength() -> None:
    columns = {"a": np.array([1.0, 2.0, 4.0]), "b": np.array([4.0, 4.0, 1.0])}
    found = column_weights((WeightBy(column="a"), WeightBy(column="b", strength=-1)), columns, 3)
    assert found == pytest.approx([0.25 * 1, 0.5 * 1, 1 * 4])
    with pytest.raises(InputError, match="a column c"):
        column_weights((WeightBy(column="c"),), columns, 3)
    with pytest.raises(InputError, match="finite"):
        column_weights((WeightBy(column="a"),), {"a": np.array([1.0, np.nan, 1.0])}, 3)


def test_heavier_samples_are_covered_first_and_weightless_ones_come_last() -> None:
    vectors = clustered(120, clusters=2, spread=0.1)
    side = vectors @ vectors[0] > 0.5
    assert side[rank(vectors, weights=np.where(side, 1.0, 0.01)).rows[0]]
    assert not side[rank(vectors, weights=np.where(side, 0.01, 1.0)).rows[0]]
    weights = np.where(side, 0.0, 1.0)
    found = rank(vectors, weights=weights)
    assert side[found.rows[-side.sum() :]].all()
    for wrong in (np.zeros(120), -np.ones(120), np.full(120, np.nan), np.ones(3)):
        with pytest.raises(InputError, match="weights"):
            rank(vectors, weights=wrong)


def test_similarity_and_dissimilarity_pull_the_first_picks() -> None:
    vectors = clustered(120, clusters=2, spread=0.1)
    side = vectors @ vectors[0] > 0.5
    like = rank(vectors, similar=[(vectors[:1], 2.0)])
    unlike = rank(vectors, similar=[(vectors[:1], -2.0)])
    assert side[like.rows[0]]
    assert not side[unlike.rows[0]]
    assert similarity_weights(np.array([0.0, 0.5, 1.0]), -1.0) == pytest.approx([1.0, 0.5, 0.001])


@pytest.mark.parametrize("objective", ["coverage", "probability-coverage"])
def test_images_of_another_kind_still_pull_the_picks_towards_what_is_nearest_to_them(objective: str) -> None:
    vectors = clustered(120, clusters=2, spread=0.1)
    middle = vectors.mean(0)
    given = -middle + 0.2 * vectors[0]  # beyond the kernel's reach of all, on the first cluster's side
    given /= np.linalg.norm(given)
    assert np.linalg.norm(vectors - given, axis=1).min() > 4 * 0.3
    nearest = np.argsort(np.linalg.norm(vectors - given, axis=1))[:60]
    for strength, is_like in ((4.0, True), (-4.0, False)):
        params = {"objective": objective, "has_duplicate_weights": False}
        found = rank(vectors, params, similar=[(given[None], strength)], scale=0.3)
        weights = found.weights[np.argsort(found.rows)]
        assert (weights[nearest].mean() > weights.mean()) == is_like
        assert len(np.unique(weights)) > 10


def test_balance_brings_group_weights_to_the_target() -> None:
    groups, weights = np.array([0, 0, 0, 1]), np.ones(4)
    uniform = balance_weights(Balance(target="uniform"), groups, ["a", "b"], weights)
    assert np.bincount(groups, weights=uniform * weights) == pytest.approx([1.0, 1.0])
    ratio = balance_weights(Balance(target={"a": 1, "b": 3}), groups, ["a", "b"], weights)
    assert ratio[3] * 1 == pytest.approx(3 * ratio[:3].sum())
    with pytest.raises(ConfigError, match="the pool's groups, a, b; found 'z'"):
        balance_weights(Balance(target={"a": 1, "z": 1}), groups, ["a", "b"], weights)
    with pytest.raises(InputError, match="above 0"):
        balance_weights(Balance(target={"a": 0}), groups, ["a", "b"], weights)
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValidationError, match="finite"):
            Balance(target={"a": wrong, "b": 1})


def test_a_balance_whose_target_groups_weigh_nothing_is_refused() -> None:
    groups = cameras(150)
    params = {"group_by": "c", "balance": {"target": {"west": 1}}}
    with pytest.raises(ConfigError, match="found none in west"):
        rank(clustered(150), params, groups=groups, weights=np.where(groups == "west", 0.0, 1.0), frozen=[1])
    some = {**params, "balance": {"target": {"west": 1, "north": 1}}}
    found = rank(clustered(150), some, groups=groups, weights=np.where(groups == "west", 0.0, 1.0))
    assert (found.weights[groups[found.rows] == "north"] > 0).all()
    assert (found.weights[groups[found.rows] == "south"] == 0).all()


@pytest.mark.parametrize("path", [{}, LARGE])
def test_a_uniform_balance_picks_rare_groups_more_often(path: dict[str, object]) -> None:
    vectors = clustered(300)
    groups = np.where(np.arange(300) % 10 == 0, "rare", "common")
    free = rank(vectors, path)
    pulled = rank(vectors, {"group_by": "g", "balance": {"target": "uniform"}, **path}, groups=groups)
    assert (groups[pulled.rows[:60]] == "rare").sum() >= 2 * (groups[free.rows[:60]] == "rare").sum()


def test_whole_weights_never_lose_a_sample() -> None:
    assert whole_weights(np.array([1.0, 1e-9, 0.0]), np.array([2, 1, 1])).tolist() == [32768, 1, 0]


def test_a_refresh_keeps_what_was_exported_and_ranks_arrivals_in() -> None:
    vectors = clustered(260)
    old = rank(vectors[:200])
    exported = old.rows[:20]
    new = rank(vectors, frozen=exported, scale=old.scale)
    assert (new.rows[:20] == exported).all()
    assert sorted(new.rows.tolist()) == list(range(260))
    assert set(new.rows[20:80]) - set(range(200))
    even = np.where(np.arange(260) == 0, 0.999, 1.0)  # where weights differ, all of a gain counts
    assert (np.diff(rank(vectors, frozen=exported, scale=old.scale, weights=even).gain[20:]) <= 0).all()


def test_what_a_removed_pick_covered_is_covered_again() -> None:
    """The other picks were exported and stay; the first new one is from where the lost one stood."""
    vectors = clustered(200, clusters=5, spread=0.1)
    old = rank(vectors, {"budget": 5})
    left = np.delete(np.arange(200), old.rows[0])
    kept = np.searchsorted(left, old.rows[1:5])
    new = ranking.rank(
        vectors[left],
        SelectionParams(budget=5),
        sample_ids=[f"{row:05d}" for row in left],
        steering=Steering(frozen=kept),
        scale=old.scale,
    )
    lost = vectors @ vectors[old.rows[0]] > 0.9
    assert not lost[old.rows[1:5]].any()
    assert lost[left[new.rows[4]]]


def test_a_near_duplicate_knows_the_pick_that_replaces_it() -> None:
    vectors = clustered(60, clusters=60)
    vectors[40] = vectors[7]
    vectors[41] = vectors[7] + 0.005
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = rank(vectors)
    behind = {int(row): int(other) for row, other in zip(found.rows, found.replaced_by, strict=True)}
    first, second = (int(row) for row in found.rows if row in (7, 41))
    assert behind[40] == 7
    assert behind[second] == first
    assert all(np.linalg.norm(vectors[row] - vectors[other]) <= 0.25 for row, other in behind.items() if other >= 0)


def test_groups_are_numbered_by_their_names() -> None:
    names, places = numbered(["b", "a\0", 3, "b", "a", "ä"])
    assert names == ["3", "a", "a\0", "b", "ä"]
    assert places.tolist() == [3, 2, 0, 3, 1, 4]
