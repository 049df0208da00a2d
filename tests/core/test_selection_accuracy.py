"""What labels teach: the forecast, and how many more labels a goal takes; accuracy itself is in `test_progress`."""

import numpy as np
import pytest

from tests.clustered_pool import clustered, rank
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.accuracy import LEAST, Accuracy, Estimate, expected, forecast, labels_for, measure
from wtl_core.selection.class_sets import ClassSets

pytestmark = pytest.mark.usefixtures("two_threads")


def known(value: float, taught: int = 100) -> Accuracy:
    return Accuracy(Estimate(value, value - 0.05, value + 0.05), 50, taught)


def test_a_forecast_rises_with_the_labels_and_stays_within_the_error() -> None:
    now = Estimate(0.8, 0.78, 0.82)
    found = [forecast(now, 1000, more).gain for more in (100, 1000, 3000)]
    assert found[1].value == pytest.approx(0.055 * 0.2)
    assert [gain.value for gain in found] == sorted(gain.value for gain in found)
    for gain in found:
        assert gain.low < gain.value < gain.high <= 0.22
    assert forecast(Estimate(0.1, 0.05, 0.2), 10, 100_000).gain.value <= 0.9


def test_where_every_control_was_named_right_a_forecast_leaves_room_for_the_error_that_there_may_be() -> None:
    found = forecast(Estimate(1.0, 0.94, 1.0), 60, 60).gain
    assert found.value == 0
    assert 0 < found.high <= 0.06


def test_the_accuracy_that_is_expected_has_the_errors_of_now_and_of_the_forecast() -> None:
    share = Estimate(0.8, 0.77, 0.82)
    gain = forecast(share, 1000, 1000).gain
    found = expected(share, 1000, 1000)
    assert found.value == pytest.approx(0.8 + gain.value)
    assert found.value - found.low == pytest.approx(np.hypot(0.03, gain.value - gain.low))
    assert found.high - found.value == pytest.approx(np.hypot(0.02, gain.value - gain.low))
    assert expected(Estimate(0.99, 0.9, 1.0), 50, 1000).high == 1.0


@pytest.mark.parametrize("left", [0, 1, 500, 3000])
def test_a_goal_takes_the_least_labels_whose_forecast_reaches_it(left: int) -> None:
    draw = np.random.default_rng(left)
    counts: list[tuple[int | None, ...]] = []
    for _ in range(60):
        share, taught = known(draw.uniform(0.2, 0.94)).share, int(draw.integers(40, 2000))
        assert share is not None
        goal = min(1.0, share.value + draw.uniform(-0.02, 0.08))
        found = labels_for(goal, Accuracy(share, 50, taught), left=left)
        every = [expected(share, taught, more) for more in range(left + 1)]
        gains = [share.value + forecast(share, taught, more).gain.value for more in range(left + 1)]
        assert [then.value for then in every] == gains
        plain = [
            next((more for more, then in enumerate(every) if end(then) >= goal - 1e-9), None)
            for end in (lambda then: then.high, lambda then: then.value, lambda then: then.low)
        ]
        assert [found.low, found.more, found.high] == plain
        counts.append((found.low, found.more, found.high))
    low, more, high = zip(*counts, strict=True)
    assert {0, None} <= {*low, *more}
    assert None in high
    assert left < 500 or len(set(more)) > 10


def test_where_images_have_several_classes_all_of_them_count() -> None:
    """A class that every image has is no achievement: vectors of noise teach nothing."""
    draw = np.random.default_rng(0)
    has_more = draw.random(800) < 0.5
    classes = [("car", "person") if more else ("car",) for more in has_more]
    noise = draw.normal(size=(800, 16)).astype(np.float32)
    told = noise + 4.0 * has_more[:, None].astype(np.float32)
    found = []
    for vectors in (noise, told):
        share = measure(
            vectors / np.linalg.norm(vectors, axis=1, keepdims=True), classes, np.arange(800) % 2 == 0
        ).share
        assert share is not None
        found.append(share.value)
    assert found[0] < 0.6
    assert found[1] > 0.95


@pytest.mark.parametrize("is_taught", [False, True])
def test_classes_are_named_together_only_if_a_taught_image_has_them_together(is_taught: bool) -> None:
    """What is judged may not say which answers there are: of twenty classes there are a million sets."""
    car, person = np.eye(16, dtype=np.float32)[:2]
    both = (car + person) / np.float32(2**0.5)
    vectors = [both if is_taught else car, *[car, person] * 40, *[both] * 40]
    classes = [("car", "person") if is_taught else ("car",), *[("car",), ("person",)] * 40, *[("car", "person")] * 40]
    share = measure(np.array(vectors), classes, np.arange(121) >= 81).share
    assert share is not None
    assert share.value == is_taught


def test_a_class_that_every_image_has_changes_no_accuracy() -> None:
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 6, 600)
    vectors = draw.normal(size=(6, 16))[codes] + 1.2 * draw.normal(size=(600, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    shares = [
        measure(vectors, [(f"class {code}", *more) for code in codes], np.arange(600) % 2 == 0).share
        for more in ((), ("thing",))
    ]
    assert shares[0] is not None
    assert shares[1] is not None
    assert 0.5 < shares[0].value < 0.95
    assert shares[1].value == pytest.approx(shares[0].value, abs=0.03)


@pytest.mark.parametrize("several", [False, True])
def test_the_classes_that_are_named_are_those_of_the_nearest_set(several: bool) -> None:
    draw = np.random.default_rng(0)
    images = [draw.choice(5, draw.integers(1, 4) if several else 1, replace=False).tolist() for _ in range(40)]
    sets = ClassSets.of(images, 5)
    assert sets.are_single != several
    plain = sorted({tuple(sorted(codes)) for codes in images})
    for shares in draw.dirichlet(np.ones(5), 50).astype(np.float32):
        away = [sum((shares[c] - (c in codes) / len(codes)) ** 2 for c in range(5)) for codes in plain]
        assert np.flatnonzero(sets.named(shares[None])[0]).tolist() == list(plain[int(np.argmin(away))])
    counts = [[tuple(sorted(codes)) for codes in images].count(codes) for codes in plain]
    assert sets.commonest == max(counts) / 40


def test_a_goal_is_told_in_a_sentence() -> None:
    assert labels_for(0.9, Accuracy(None, 3, 70), left=500).sentence() == (
        "The accuracy goal of 90 % ends no picks yet, since accuracy is not known: it takes 40 labelled images that "
        "were drawn at random, and as many others, of known classes; found 3 and 70."
    )
    assert labels_for(0.8, known(0.8), left=500).sentence() == (
        "The accuracy goal of 80 % is reached: accuracy is 80 % (75.0 to 85.0)."
    )
    assert labels_for(0.808, known(0.8, 1000), left=5000).sentence() == (
        "The accuracy goal of 80.8 % takes about 656 more labels (0 to more than the 5,000 images that are left), "
        "judging by other data; accuracy is 80 % (75.0 to 85.0)."
    )
    sure = Accuracy(Estimate(0.8, 0.799, 0.801), 10_000, 200)
    assert labels_for(0.81, sure, left=100_000).sentence() == (
        "The accuracy goal of 81 % takes about 66 more labels (0 to 8,374), judging by other data; accuracy is 80 % "
        "(79.9 to 80.1)."
    )
    far = labels_for(0.83, sure, left=100_000).sentence()
    assert "about 266 more labels (72 to more than the 100,000 images that are left), judging by other data; " in far
    assert "; forecasts this far ahead were not checked; accuracy is" in far
    assert labels_for(0.86, known(0.8, 1000), left=2000).sentence() == (
        "The accuracy goal of 86 % is probably not within reach, judging by other data: accuracy is 80 % (75.0 to "
        "85.0), and labels of all 2,000 images that are left would bring it to about 81.7 % (76.2 to 87.3)."
    )
    assert "goal of 90 % is not within reach" in labels_for(0.9, known(0.8, 1000), left=2000).sentence()


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
