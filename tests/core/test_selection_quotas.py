"""Quotas: minima and maxima of groups hold, and say what they cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clustered_pool import LARGE, cameras, clustered, frozen_of, rank
from wtl_core.errors import ConfigError
from wtl_core.selection import head, orders
from wtl_core.selection.problem import PickOrder
from wtl_core.selection.result import Ranking

pytestmark = pytest.mark.usefixtures("two_threads")


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
