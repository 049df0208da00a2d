"""Where the picks end: budgets, shares and stop conditions."""

import numpy as np
import pytest
from pydantic import ValidationError

from tests.clustered_pool import cameras, clustered, frozen_of, rank
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import orders

pytestmark = pytest.mark.usefixtures("two_threads")


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
