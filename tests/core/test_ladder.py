"""The ladder: against plain loops, its end points, and the sentences it says."""

import numpy as np
import pytest

from wtl_core.recipe.selection import LadderParams, SelectionParams
from wtl_core.selection import ladder, ranking
from wtl_core.selection.advice import NOT_MEASURABLE, advise
from wtl_core.selection.identity import Purpose, content_keys, shuffled
from wtl_core.selection.ladder import measure
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking

pytestmark = pytest.mark.usefixtures("two_threads")


def clustered(rows: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(10, 12))[rng.integers(0, 10, rows)] + 0.4 * rng.normal(size=(rows, 12))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def ids_of(rows: int) -> list[str]:
    return [f"{row:05d}" for row in range(rows)]


def ranked(vectors: np.ndarray, objective: str = "coverage") -> Ranking:
    return ranking.rank(vectors, SelectionParams(objective=objective), sample_ids=ids_of(len(vectors)))  # type: ignore[arg-type]


HELD_OUT = LadderParams(references=100, all_up_to=100)


def test_every_per_cent_is_what_plain_distances_say() -> None:
    vectors = clustered(230)
    order = ranked(vectors)
    found = measure(vectors, order, LadderParams(), sample_ids=ids_of(230))
    assert not found.is_held_out
    for percent in (1, 7, 50, 100):
        count = max(1, int(percent * 230 / 100 + 0.5))
        assert found.count[percent - 1] == count
        distances = np.linalg.norm(vectors[:, None] - vectors[order.rows[:count]][None], axis=2)
        distances = np.where(distances <= order.near_duplicate_distance, 2.0, distances).min(1)
        weights = order.weights[np.argsort(order.rows)]
        expected = (weights * np.exp(-((distances / order.scale) ** 2))).sum() / weights.sum()
        assert found.coverage[percent - 1] == pytest.approx(expected, abs=3e-3)
        assert found.radius_max[percent - 1] == pytest.approx(distances.max(), abs=0.01)
        assert found.radius_p50[percent - 1] == pytest.approx(np.sort(distances)[229 // 2], abs=0.02)


@pytest.mark.parametrize("params", [LadderParams(), HELD_OUT])
def test_with_all_picked_ranking_and_random_agree_exactly(params: LadderParams) -> None:
    vectors = clustered(300)
    found = measure(vectors, ranked(vectors), params, sample_ids=ids_of(300))
    assert found.coverage[-1] == found.random_coverage_mean[-1] == found.random_coverage_low[-1]
    assert found.random_coverage_high[-1] == found.coverage[-1]
    assert found.equivalent_random_count[-1] <= 300
    assert (np.diff(found.coverage) >= 0).all()
    assert (np.diff(found.radius_max) <= 0).all()


@pytest.mark.parametrize("params", [LadderParams(), HELD_OUT])
def test_the_ranking_covers_more_than_random(params: LadderParams) -> None:
    vectors = clustered(600)
    found = measure(vectors, ranked(vectors), params, sample_ids=ids_of(600))
    assert found.references == (600 if params.all_up_to > 600 else 100)
    for percent in (1, 5, 10):
        assert found.coverage[percent - 1] > found.random_coverage_high[percent - 1]
        assert found.equivalent_random_count[percent - 1] > found.count[percent - 1]


def test_held_out_references_are_neither_picked_nor_dependent_on_row_order() -> None:
    vectors, ids = clustered(300), ids_of(300)
    order = np.random.default_rng(3).permutation(300)
    one = measure(vectors, ranked(vectors), HELD_OUT, sample_ids=ids)
    mixed = [ids[row] for row in order]
    turned = ranking.rank(vectors[order], SelectionParams(), sample_ids=mixed)
    other = measure(vectors[order], turned, HELD_OUT, sample_ids=mixed)
    assert one.coverage == pytest.approx(other.coverage, abs=1e-12)
    assert one.random_coverage_mean == pytest.approx(other.random_coverage_mean, abs=1e-12)
    assert one.radius_p50[-1] > 0


def test_a_held_out_reference_takes_its_near_duplicates_with_it() -> None:
    """In a pool of bursts, against plain distances that pass over all that is as near as a near-duplicate."""
    rng = np.random.default_rng(7)
    vectors = np.repeat(clustered(60), 4, axis=0) + 0.01 * rng.normal(size=(240, 12)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = ranked(vectors)
    found = measure(vectors, order, HELD_OUT, sample_ids=ids_of(240))
    references, picked = ladder.split_references(content_keys(ids_of(240)), order, HELD_OUT)
    weights = order.weights[np.argsort(order.rows)][references]
    for percent in (5, 30, 100):
        picks = picked[: max(1, int(percent * len(picked) / 100 + 0.5))]
        distances = np.linalg.norm(vectors[references][:, None] - vectors[picks][None], axis=2)
        nearest = np.where(distances <= order.near_duplicate_distance, 2.0, distances).min(1)
        expected = (weights * np.exp(-((nearest / order.scale) ** 2))).sum() / weights.sum()
        assert found.coverage[percent - 1] == pytest.approx(expected, abs=3e-3)
    assert found.radius_p50[-1] > order.near_duplicate_distance


@pytest.mark.parametrize("path", [{}, {"exact_up_to": 20, "neighbours": 64}])
def test_the_tail_covers_images_held_out_better_than_greedy_to_the_end(path: dict[str, int]) -> None:
    vectors, ids = clustered(1000), ids_of(1000)
    model = SelectionParams.model_validate(path)
    uneven = Steering(
        weights=np.where(np.arange(1000) == 0, 0.999, 1.0)
    )  # then all that a pick covers of itself counts
    tail, plain = (
        measure(vectors, ranking.rank(vectors, model, sample_ids=ids, steering=steering), HELD_OUT, sample_ids=ids)
        for steering in (Steering(), uneven)
    )
    assert (tail.coverage[:10] > plain.coverage[:10] - 5e-3).all()
    assert (tail.coverage[44:64] > plain.coverage[44:64]).all()


def test_labelled_images_cover_from_the_start() -> None:
    vectors = clustered(200)
    plain = measure(vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(200))
    helped = measure(vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(200), labelled=clustered(50, 9)[:20])
    assert (helped.coverage >= plain.coverage - 1e-12).all()
    assert helped.coverage[0] > plain.coverage[0]


def test_the_proven_share_of_the_optimum_is_a_share() -> None:
    found = measure(clustered(300), ranked(clustered(300)), LadderParams(), sample_ids=ids_of(300))
    assert ((found.optimum_share > 0.5) & (found.optimum_share <= 1.0)).all()
    assert found.optimum_share[-1] == 1.0


def test_near_duplicates_and_groups_are_counted() -> None:
    vectors = clustered(200)
    vectors[100:] = vectors[:100] + 0.001
    groups = np.where(np.arange(200) % 100 < 50, "a", "b")
    found = measure(vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(200), groups=groups)
    assert found.near_duplicate_rate[4] == 0.0
    assert found.near_duplicate_rate[-1] >= 0.5
    assert found.group_balance[-1] == pytest.approx(1.0)
    assert found.random_group_balance == pytest.approx(1.0)


def test_the_interval_is_students() -> None:
    draws = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [4.0, 5.0], [5.0, 5.0]])
    mean, low, high = ladder.interval_of_draws(draws)
    assert mean.tolist() == [3.0, 5.0]
    assert (high - mean)[0] == pytest.approx(2.776 * np.sqrt(2.5) / np.sqrt(5))
    assert (low[1], high[1]) == (5.0, 5.0)


def test_the_random_budget_of_equal_coverage_is_read_between_per_cents() -> None:
    count = np.arange(1, 101) * 10
    random = np.linspace(0.01, 1.0, 100)
    found = ladder.equivalent_labels(np.minimum(random + 0.05, 1.0), random, count)
    assert found[0] == 60
    assert found[-1] == 1000
    level = np.minimum(random, 0.5)
    assert ladder.equivalent_labels(level, level, count)[[0, 98]].tolist() == [10, 500]
    assert not ladder.equivalent_labels(0 * random, 0 * random, count).any()


def test_advice_says_what_is_next_and_where_selection_does_not_help() -> None:
    coverage, high = np.linspace(0.5, 1.0, 100), np.linspace(0.4, 1.0, 100)
    count = np.arange(1, 101)
    good = advise(coverage / 2, high / 2 - 0.01, high / 2, count, picks=10)
    assert good.startswith("From 10 % on, the next 5 % adds 2.5 % of what labelling everything would give.")
    assert "more than random at every per cent" in good
    assert "does not help" in advise(coverage, coverage + 0.1, coverage + 0.2, count, picks=100)
    mixed = high.copy()
    mixed[[4, 5, 20]] = 1.0
    assert "at 5-6, 21 %" in advise(coverage, mixed - 0.9, mixed, count, picks=1)
    assert "All but the last 1 of 1000 samples" in advise(coverage, high, high, count * 10, picks=999)
    assert "All samples are picked" in advise(coverage, high, high, count, picks=100)


@pytest.mark.parametrize("vectors", [clustered(1), np.repeat(clustered(1), 6, axis=0)])
def test_where_no_image_has_another_nothing_is_claimed(vectors: np.ndarray) -> None:
    found = measure(vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(len(vectors)))
    assert found.advice == NOT_MEASURABLE
    assert not found.coverage.any()
    assert not found.random_coverage_high.any()
    helped = measure(
        vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(len(vectors)), labelled=clustered(3, 9)
    )
    assert helped.coverage[-1] > 0
    assert helped.advice != NOT_MEASURABLE


def test_a_pool_of_ten_is_told_what_the_next_pick_adds() -> None:
    vectors = clustered(10)
    found = measure(vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(10))
    added = 100 * (found.coverage[18] - found.coverage[13]) / found.coverage[-1]
    assert found.advice.startswith(f"From 14 % on, the next 5 % adds {added:.1f} % of what labelling")
    assert added > 0
    everything = advise(found.coverage, found.coverage, found.coverage, found.count, picks=10)
    assert everything.startswith("All samples are picked")


def test_randoms_interval_holds_only_what_a_coverage_can_be() -> None:
    vectors = clustered(3, seed=2)  # its interval would begin at -0.01
    found = measure(vectors, ranked(vectors), LadderParams(), sample_ids=ids_of(3))
    assert found.random_coverage_low.min() == 0.0
    assert found.random_coverage_high.max() <= 1.0


def test_at_most_half_of_a_pool_is_held_out() -> None:
    vectors = clustered(150)
    params = LadderParams(references=1000, all_up_to=100)
    found = measure(vectors, ranked(vectors), params, sample_ids=ids_of(150))
    assert (found.references, found.is_held_out) == (75, True)
    assert (np.diff(found.coverage) >= 0).all()
    assert found.coverage[-1] > found.coverage[0]


def test_random_orders_are_no_draw_of_another_purpose() -> None:
    keys = content_keys(ids_of(300))
    orders = [shuffled(keys, 0, purpose) for purpose in Purpose if purpose != Purpose.LADDER]
    random = ladder.random_order(keys, np.arange(300), 0)
    assert all((order != random).any() for order in orders)
