"""What labels teach: the forecast, and how many more labels a goal takes; accuracy itself is in `test_progress`."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.clustered_pool import clustered, rank
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.accuracy import LEAST, Accuracy, Estimate, forecast, labels_for, measure

pytestmark = pytest.mark.usefixtures("two_threads")


def known(value: float, taught: int = 100) -> Accuracy:
    return Accuracy(Estimate(value, value - 0.05, value + 0.05), 50, taught)


def test_a_forecast_rises_with_the_labels_and_stays_within_the_error() -> None:
    found = [forecast(0.8, 1000, more).gain for more in (100, 1000, 3000)]
    assert found[1].value == pytest.approx(0.104 * 0.2)
    assert [gain.value for gain in found] == sorted(gain.value for gain in found)
    for gain in found:
        assert gain.low < gain.value < gain.high <= 0.2
    assert forecast(0.1, 10, 100_000).gain.value <= 0.9


@pytest.mark.parametrize("left", [0, 1, 500, 3000])
def test_a_goal_takes_the_least_labels_whose_forecast_reaches_it(left: int) -> None:
    def plain(goal: float, now: Accuracy, end: Callable[[Estimate], float]) -> int | None:
        assert now.share is not None
        for more in range(left + 1):
            if end(forecast(now.share.value, now.taught, more).gain) >= goal - now.share.value - 1e-9:
                return more
        return None

    draw = np.random.default_rng(left)
    counts = []
    for _ in range(60):
        now = known(draw.uniform(0.2, 0.99), int(draw.integers(40, 2000)))
        assert now.share is not None
        goal = min(1.0, now.share.value + draw.uniform(-0.02, 0.08))
        found = labels_for(goal, now, left=left)
        counts.append(found.more)
        assert found.more == plain(goal, now, lambda gain: gain.value)
        assert found.low == plain(goal, now, lambda gain: gain.high)
        assert found.high == plain(goal, now, lambda gain: gain.low)
    assert None in counts
    assert 0 in counts
    assert left < 500 or len(set(counts)) > 10


def test_a_goal_is_told_in_a_sentence() -> None:
    assert labels_for(0.9, Accuracy(None, 3, 70), left=500).sentence() == (
        "The accuracy goal of 90 % ends no picks yet, since accuracy is not known: it takes 40 labelled images that "
        "were drawn at random, and as many others, of known classes; found 3 and 70."
    )
    assert labels_for(0.8, known(0.8), left=500).sentence() == (
        "The accuracy goal of 80 % is reached: accuracy is 80 % (75.0 to 85.0)."
    )
    assert labels_for(0.825, known(0.8, 1000), left=5000).sentence() == (
        "The accuracy goal of 82.5 % takes about 1,301 more labels (311 to more than the 5,000 images that are left), "
        "judging by other data; forecasts this far ahead were not checked; accuracy is 80 % (75.0 to 85.0)."
    )
    assert labels_for(0.9, known(0.8, 1000), left=2000).sentence() == (
        "The accuracy goal of 90 % is not within reach, judging by other data: accuracy is 80 % (75.0 to 85.0), and "
        "labels of all 2,000 images that are left would bring it to about 83.3 %."
    )


def test_accuracy_is_not_told_from_few_labels_nor_from_those_of_unknown_classes() -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(2 * LEAST, 8)).astype(np.float32)
    classes: list[list[str] | None] = [["a"] if value > 0 else [] for value in vectors[:, 0]]
    is_drawn = np.arange(2 * LEAST) < LEAST
    whole = measure(vectors, classes, is_drawn)
    assert whole.share is not None
    assert whole.share.value > 0.7
    for row, counts in ((0, (LEAST - 1, LEAST)), (LEAST, (LEAST, LEAST - 1))):
        found = measure(vectors, [*classes[:row], None, *classes[row + 1 :]], is_drawn)
        assert found == Accuracy(None, *counts)


def test_a_goal_ends_the_picks_where_the_forecast_reaches_it_and_changes_no_rank() -> None:
    vectors = clustered(200)
    whole = rank(vectors, {"budget": None})
    goal = labels_for(0.85, known(0.8), left=200)
    found = rank(vectors, {"accuracy_goal": 0.85}, accuracy=known(0.8))
    assert goal.more is not None
    assert 0 < goal.more < 200
    assert (found.picks, found.stop.reason, found.goal) == (goal.more, "accuracy_goal", goal)
    assert (found.rows == whole.rows).all()
    assert rank(vectors, {"accuracy_goal": 0.8}, accuracy=known(0.8)).picks == 0
    for share, now in ((1.0, known(0.3)), (0.85, Accuracy(None, 0, 0)), (0.85, None)):
        none = rank(vectors, {"accuracy_goal": share, "budget": "10%"}, accuracy=now)
        assert (none.picks, none.stop.reason) == (20, "budget")
        assert none.goal is not None
        assert none.goal.more is None
    assert rank(vectors, {"accuracy_goal": 0.85, "budget": 5}, accuracy=known(0.8)).stop.reason == "budget"


def test_a_goal_without_a_budget_is_not_cut_short_by_the_default() -> None:
    assert SelectionParams.model_validate({"accuracy_goal": 0.9}).budget == "100%"
