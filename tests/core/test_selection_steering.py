"""Steering: params and aliases, quotas, weights, similarity, balance, stop conditions, stability, explanations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.selection import Balance, SelectionParams, WeightBy
from wtl_core.selection import head, orders, ranking
from wtl_core.selection.problem import PickOrder
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking
from wtl_core.selection.steering import balance_weights, column_weights, similarity_weights, whole_weights

pytestmark = pytest.mark.usefixtures("two_threads")

LARGE = {"exact_up_to": 20, "neighbours": 16}


def clustered(rows: int, *, clusters: int = 6, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    drawn = draw.normal(size=(clusters, 12))[draw.integers(0, clusters, rows)] + spread * draw.normal(size=(rows, 12))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def rank(vectors: np.ndarray, params: dict[str, object] | None = None, **arrays: object) -> Ranking:
    model = SelectionParams.model_validate(params or {})
    scale = arrays.pop("scale", None)
    given = Steering(**arrays)  # type: ignore[arg-type]
    ids = [f"{row:05d}" for row in range(len(vectors))]
    return ranking.rank(vectors, model, sample_ids=ids, steering=given, scale=scale)  # type: ignore[arg-type]


def cameras(rows: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).choice(["north", "south", "west"], rows, p=[0.7, 0.2, 0.1])


# Params.


@pytest.mark.parametrize(
    ("budget", "count"), [(7, 7), ("7", 7), ("10%", 30), ("7.5%", 23), ("0.01%", 1), ("100%", 300)]
)
def test_budgets_are_counts_or_shares(budget: int | str, count: int) -> None:
    assert SelectionParams(budget=budget).budget_of(300) == count
    assert SelectionParams(budget=None).budget_of(300) is None


@pytest.mark.parametrize("budget", [0, "0%", "101%", "-3", "ten", "1e3", ""])
def test_budgets_out_of_range_are_refused(budget: int | str) -> None:
    with pytest.raises(ValidationError, match="a count above 0"):
        SelectionParams(budget=budget)


@pytest.mark.parametrize("budget", ["0.00001%", "33.3333333%", "5.0 %", ".5%"])
def test_a_share_keeps_its_digits_and_can_be_read_back(budget: str) -> None:
    model = SelectionParams(budget=budget)
    assert model.budget == budget.replace(" ", "")
    assert SelectionParams.model_validate(model.model_dump(mode="json")) == model


@pytest.mark.parametrize(
    "stop",
    [
        {"stopping_condition_minimum_distance": 0.2},
        {"strategies": [{"strategy": {"type": "DIVERSITY", "stopping_condition_minimum_distance": 0.2}}]},
        {"coverage_goal": 0.9},
        {"gain_knee": 0.1},
    ],
)
def test_a_stop_condition_without_a_budget_is_not_cut_short_by_the_default(stop: dict[str, object]) -> None:
    assert SelectionParams.model_validate(stop).budget == "100%"
    assert SelectionParams.model_validate({**stop, "n_samples": 12}).budget == 12
    assert SelectionParams.model_validate({**stop, "budget": "10%"}).budget == "10%"
    assert SelectionParams.model_validate({"minimum_distance": None}).budget == "10%"


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


# Quotas.


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(10, 60), st.data())
def test_quotas_hold_at_the_budget_and_shares_at_every_prefix(seed: int, budget: int, data: st.DataObject) -> None:
    groups = cameras(150, seed)
    sizes = {name: int((groups == name).sum()) for name in ("north", "south", "west")}
    west = data.draw(st.integers(0, min(5, sizes["west"])))
    south = data.draw(st.floats(0.0, 0.3))
    north = data.draw(st.floats(0.5, 0.9))
    quotas = [
        {"group": "west", "minimum": west},
        {"group": "south", "minimum_share": south},
        {"group": "north", "maximum_share": north},
    ]
    path = data.draw(st.sampled_from([{}, LARGE]))
    found = rank(
        clustered(150, seed=seed), {"budget": budget, "group_by": "camera", "quotas": quotas, **path}, groups=groups
    )
    picked = groups[found.rows]
    assert sorted(found.rows.tolist()) == list(range(150))
    until = found.quotas_until
    assert until == budget or sizes["south"] + sizes["west"] < (1 - north) * budget + 2
    for prefix in range(1, until + 1):
        assert (picked[:prefix] == "south").sum() >= int(south * prefix + 1e-9)
        assert (picked[:prefix] == "north").sum() <= np.ceil(north * prefix - 1e-9)
    if until == budget:
        assert (picked[:budget] == "west").sum() >= west
    assert found.quota_cost >= -0.02


def test_quotas_hold_where_no_nominee_is_of_the_group_that_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "NOMINEES", 40)
    monkeypatch.setattr(head, "FROM_PART", 10)
    monkeypatch.setattr(head, "STEP", 5)
    groups = np.where(np.arange(600) % 50 == 0, "rare", "common")
    quota = {"group": "rare", "minimum_share": 0.2}
    found = rank(clustered(600), {"budget": 50, "group_by": "c", "quotas": [quota], **LARGE}, groups=groups)
    assert found.quotas_until == 50
    assert (groups[found.rows[:50]] == "rare").sum() >= 10


def test_quotas_that_are_given_up_before_the_budget_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Given up at rank 7 by hand: what is refused beforehand leaves next to no quotas that fail on the way."""
    pick_all = orders.pick_all

    def given_up(*given: object, **named: object) -> PickOrder:
        cover = pick_all(*given, **named)  # type: ignore[arg-type]
        cover.state.cursor[1] = 7
        return cover

    params = {"budget": 30, "group_by": "c", "quotas": [{"group": "north", "maximum": 20}]}
    assert rank(clustered(150), params, groups=cameras(150)).quotas_until == 30
    assert "Quotas" not in caplog.text
    monkeypatch.setattr(orders, "pick_all", given_up)
    assert rank(clustered(150), params, groups=cameras(150)).quotas_until == 7
    assert "Quotas hold for 7 of 30 picks" in caplog.text


def test_a_group_that_is_too_small_for_its_share_is_told_of() -> None:
    groups = np.where(np.arange(100) < 2, "rare", "common")
    params = {"budget": 30, "group_by": "c", "quotas": [{"group": "rare", "minimum_share": 0.5}]}
    found = rank(clustered(100), params, groups=groups)
    assert found.quotas_until == 5
    assert "of the first 30 expected at least 15 from 'rare', found 2. Change the quota" in found.quota_advice
    rows = np.arange(1, 100)
    rest = rank(clustered(100)[1:], params, groups=groups[rows], labelled=clustered(100)[:1], labelled_groups=["rare"])
    assert (rest.quotas_until, rest.quota_advice) == (30, "")


@pytest.mark.parametrize("are_twins", [False, True])
def test_a_maximum_holds_where_the_budget_asks_for_twins_and_for_samples_without_weight(are_twins: bool) -> None:
    groups = np.array(["a", "a", *["b"] * 10])
    vectors, weights = clustered(12), np.ones(12)
    if are_twins:
        vectors[6:] = vectors[2]
    else:
        weights[6:] = 0.0
    params = {"budget": 12, "group_by": "c", "quotas": [{"group": "b", "maximum": 3}]}
    found = rank(vectors, params, groups=groups, weights=weights)
    assert sorted(groups[found.rows[: found.picks]]) == ["a", "a", "b", "b", "b"]
    assert (found.stop.reason, found.quotas_until, found.quota_advice) == ("quotas", 5, "")


def test_without_a_head_nothing_is_nominated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head, "nominate", None)
    assert sorted(rank(clustered(150), {"head": 0, **LARGE}).rows.tolist()) == list(range(150))


def test_a_quota_that_costs_nothing_changes_nothing() -> None:
    vectors, groups = clustered(150), cameras(150)
    free = rank(vectors, {"budget": 30})
    held = rank(vectors, {"budget": 30, "group_by": "c", "quotas": [{"group": "north", "maximum": 30}]}, groups=groups)
    assert (free.rows == held.rows).all()
    assert held.quota_cost == 0.0


def test_a_quota_that_bites_states_the_coverage_it_costs() -> None:
    vectors, groups = clustered(150), cameras(150)
    free = rank(vectors, {"budget": 30})
    quota = {"group": "north", "maximum": 2}
    held = rank(vectors, {"budget": 30, "group_by": "c", "quotas": [quota]}, groups=groups)
    assert (groups[held.rows[:30]] == "north").sum() == 2
    assert held.quota_cost == pytest.approx(free.coverage[29] - held.coverage[29])
    assert held.quota_cost > 0


def frozen_of(name: str, count: int) -> np.ndarray:
    return np.flatnonzero(cameras(150) == name)[:count]


@pytest.mark.parametrize("path", [{}, LARGE])
def test_frozen_picks_count_towards_quotas_and_what_they_break_is_said(
    path: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    def held(quota: dict[str, object], frozen: np.ndarray) -> tuple[list[str], Ranking]:
        params = {"budget": 30, "group_by": "c", "quotas": [quota], **path}
        found = rank(clustered(150), params, groups=cameras(150), frozen=frozen)
        assert (found.rows[: len(frozen)] == frozen).all()
        return cameras(150)[found.rows[:30]].tolist(), found

    picked, found = held({"group": "north", "maximum": 2}, frozen_of("north", 20))
    assert (picked.count("north"), found.quotas_until) == (20, 2)
    assert "of the first 30 expected at most 2 from 'north', found 20. 20 earlier picks" in found.quota_advice
    picked, found = held({"group": "west", "minimum": 5}, frozen_of("north", 29))
    assert (picked.count("west"), found.quotas_until) == (1, 29)
    assert "at least 5 from 'west', found 1" in found.quota_advice
    assert found.quota_advice in caplog.text
    picked, found = held({"group": "west", "minimum": 5}, frozen_of("north", 25))
    assert (picked.count("west"), found.quotas_until, found.quota_advice) == (5, 30, "")
    picked, found = held({"group": "north", "maximum_share": 0.5}, frozen_of("north", 10))
    assert (picked.count("north"), found.quotas_until) == (15, 1)
    assert "of the first 18 expected at most 9 from 'north', found 10" in found.quota_advice
    picked, found = held({"group": "north", "maximum": 2}, frozen_of("north", 40))
    assert (picked.count("north"), found.quotas_until) == (30, 2)


def test_labelled_images_count_towards_a_minimum_and_not_against_a_maximum() -> None:
    groups = cameras(150)
    west, north = (np.flatnonzero(groups == name) for name in ("west", "north"))
    assert len(west) == 11

    def picked(quotas: list[dict[str, object]], labelled: np.ndarray, budget: object = 30) -> tuple[list[str], Ranking]:
        open_rows = np.setdiff1d(np.arange(150), labelled)
        params = {"budget": budget, "group_by": "c", "quotas": quotas}
        found = rank(
            clustered(150)[open_rows],
            params,
            groups=groups[open_rows],
            labelled=clustered(150)[labelled],
            labelled_groups=groups[labelled],
        )
        return groups[open_rows][found.rows[: found.picks]].tolist(), found

    names, found = picked([{"group": "west", "minimum": 8}], west[:6])  # 5 are open
    assert (names.count("west") >= 2, found.quotas_until) == (True, 30)
    names, found = picked([{"group": "west", "minimum": 11}], west[:6])
    assert (names.count("west"), found.quotas_until) == (5, 30)
    for minimum in (10, 20):
        names, found = picked([{"group": "west", "minimum": minimum}], west)  # all are labelled
        assert (len(names), found.quotas_until, found.quota_advice) == (30, 30, "")
    names, found = picked([{"group": "north", "maximum": 2}], north[:10])
    assert names.count("north") == 2
    # Nothing but two of north and two of west is left to pick: as many as maxima allow.
    few = [{"group": "north", "maximum": 2}, {"group": "south", "maximum": 0}]
    names, found = picked(few, west[:9], budget=10)
    assert (sorted(names), found.quotas_until) == (["north"] * 2 + ["west"] * 2, 4)
    assert (found.stop.reason, found.quota_advice) == ("quotas", "")
    # A minimum that fitted 10 % of the pool goes on when what is left is too small for it.
    ten = [{"group": "west", "minimum": 10}]
    names, found = picked(ten, np.setdiff1d(np.arange(150), west)[:100], budget="10%")
    assert (names, found.quotas_until) == (["west"] * 5, 4)
    assert "of the first 5 expected at least 10 from 'west', found 5. Change" in found.quota_advice
    with pytest.raises(ConfigError, match="minima that fit"):
        picked([{"group": "west", "minimum": 11}, {"group": "north", "minimum": 9}], north[:1], budget="10%")
    with pytest.raises(ConfigError, match="can fill"):
        picked([{"group": "west", "minimum": 12}], west[:10])
    with pytest.raises(ConfigError, match="one of the pool's groups"):
        picked([{"group": "east", "minimum": 1}], west)


@pytest.mark.parametrize("budget", [None, "100%", 500])
def test_of_a_whole_pool_as_many_are_picked_as_maxima_allow(budget: int | str | None) -> None:
    params = {"budget": budget, "group_by": "c", "quotas": [{"group": "north", "maximum": 2}]}
    groups = cameras(150)
    found = rank(clustered(150), params, groups=groups)
    others = int((groups != "north").sum())
    assert (found.picks, found.stop.reason, found.quotas_until) == (others + 2, "quotas", others + 2)
    assert (groups[found.rows[: found.picks]] == "north").sum() == 2
    share = {**params, "quotas": [{"group": "north", "maximum_share": 0.5}]}
    found = rank(clustered(150), share, groups=groups)
    assert (found.picks, found.quotas_until) == (2 * others + 1, 2 * others + 1)
    with pytest.raises(ConfigError, match="leave room"):
        rank(clustered(20), {**params, "quotas": [{"group": "north", "maximum": 0}]}, groups=["north"] * 20)


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        ({"group": "east"}, "one of the pool's groups"),
        ({"group": "west", "minimum": 100}, "the group can fill"),
        ({"group": "north", "minimum": 31}, "minima that fit"),
        ({"group": "north", "maximum_share": 0.0}, None),
    ],
)
def test_quotas_that_cannot_hold_are_refused(quota: dict[str, object], message: str | None) -> None:
    params = {"budget": 30, "group_by": "c", "quotas": [quota]}
    if message is None:
        assert (cameras(150)[rank(clustered(150), params, groups=cameras(150)).rows[:30]] != "north").all()
        return
    with pytest.raises(ConfigError, match=message):
        rank(clustered(150), params, groups=cameras(150))


# Weights.


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
    assert (groups[pulled.rows[:60]] == "rare").sum() > 2 * (groups[free.rows[:60]] == "rare").sum()


def test_whole_weights_never_lose_a_sample() -> None:
    assert whole_weights(np.array([1.0, 1e-9, 0.0]), np.array([2, 1, 1])).tolist() == [32768, 1, 0]


# Stop conditions: all rows are there, only the marks move.


def test_stop_conditions_mark_picks() -> None:
    vectors = clustered(200)
    whole = rank(vectors, {"budget": None})
    assert (whole.picks, whole.stop.reason) == (200, "all samples")
    covered = rank(vectors, {"budget": None, "coverage_goal": 0.7})
    assert covered.coverage[covered.picks - 1] >= 0.7 > covered.coverage[covered.picks - 2]
    apart = rank(vectors, {"budget": None, "minimum_distance": 0.5})
    assert (apart.radius[: apart.picks] >= 0.5).all()
    assert apart.radius[apart.picks] < 0.5
    knee = rank(vectors, {"budget": None, "gain_knee": 0.1})
    assert 1 < knee.picks < 200
    first = rank(vectors, {"budget": 3, "coverage_goal": 1.0})
    assert (first.picks, first.stop.reason) == (3, "budget")
    for other in (covered, apart, knee, first):
        assert (other.rows == whole.rows).all()


def test_a_distance_that_nobody_measured_ends_the_picks(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.where(np.arange(100) < 50, 1.0, 0.0)
    found = rank(clustered(100), {"minimum_distance": 0.01}, weights=weights)
    assert (found.picks, found.stop.reason) == (50, "minimum_distance")
    monkeypatch.setattr(orders, "TRACED_PAIRS", 100 * 20)  # behind it farthest-first ends in a shuffle
    found = rank(clustered(100), {"objective": "k-center", "minimum_distance": 0.01})
    assert (found.picks, found.stop.reason) == (20, "minimum_distance")


@pytest.mark.parametrize("stop", [{"coverage_goal": 0.5}, {"minimum_distance": 1.0}, {"gain_knee": 0.9}])
def test_no_stop_condition_ends_the_picks_before_minima_are_met(stop: dict[str, object]) -> None:
    quota = {"group": "west", "minimum": 10}
    vectors, groups = clustered(150), cameras(150)
    params = {"budget": 30, "group_by": "c", "quotas": [quota]}
    whole, found = rank(vectors, params, groups=groups), rank(vectors, {**params, **stop}, groups=groups)
    assert rank(vectors, {"budget": 30, **stop}).picks < 10
    assert (found.rows == whole.rows).all()
    assert (groups[found.rows[: found.picks]] == "west").sum() == 10
    assert groups[found.rows[found.picks - 1]] == "west"  # and no later than that
    assert found.stop.reason == next(iter(stop))
    few = rank(vectors, {**params, **stop}, groups=groups, frozen=frozen_of("north", 25))
    assert few.picks == 30


@pytest.mark.parametrize("stop", [{"coverage_goal": 0.5}, {"gain_knee": 0.1}])
def test_where_labelled_images_leave_nothing_to_gain_nothing_is_picked(stop: dict[str, object]) -> None:
    vectors = clustered(150)
    found = rank(vectors, {"budget": "100%", **stop}, labelled=vectors)
    assert (found.picks, found.stop.reason) == (0, next(iter(stop)))
    assert sorted(found.rows.tolist()) == list(range(150))
    kept = rank(vectors, {"budget": "100%", "gain_knee": 0.1}, labelled=vectors, frozen=[3, 7])
    assert kept.picks == 2
    assert rank(vectors, {"coverage_goal": 0.001}).picks == 1


# Stability and explanations.


def test_a_refresh_keeps_what_was_exported_and_ranks_arrivals_in() -> None:
    vectors = clustered(260)
    old = rank(vectors[:200])
    exported = old.rows[:20]
    new = rank(vectors, frozen=exported, scale=old.scale)
    assert (new.rows[:20] == exported).all()
    assert sorted(new.rows.tolist()) == list(range(260))
    assert set(new.rows[20:80]) - set(range(200))
    assert (np.diff(new.gain[20 : new.tail_from]) <= 0).all()


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
