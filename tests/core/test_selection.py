"""The coverage ranking: its guarantees, its invariances, and what bad input gets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtl_core.errors import InputError
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import dense, ranking, result
from wtl_core.selection.kernels import ONE, kernel_table, median_scale
from wtl_core.selection.neighbours import level_of, prepare
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking

pytestmark = pytest.mark.usefixtures("two_threads")

LARGE = {"exact_up_to": 20, "neighbours": 16}
"""Params that send a small pool down a large pool's path."""


def clustered(rows: int, *, dimensions: int = 16, clusters: int = 8, spread: float = 0.3, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(clusters, dimensions))
    drawn = centres[draw.integers(0, clusters, rows)] + spread * draw.normal(size=(rows, dimensions))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


def ids_of(rows: int) -> list[str]:
    return [f"{row:05d}" for row in range(rows)]


def rank(vectors: np.ndarray, *, ids: list[str] | None = None, scale: float | None = None, **params: object) -> Ranking:
    steering = {
        name: params.pop(name) for name in list(params) if name in ("labelled", "frozen", "duplicate_of", "weights")
    }
    model = SelectionParams.model_validate(params)
    given = Steering(**steering)  # type: ignore[arg-type]
    return ranking.rank(vectors, model, sample_ids=ids or ids_of(len(vectors)), steering=given, scale=scale)


def kernel_of(vectors: np.ndarray, scale: float) -> np.ndarray:
    """Whole units, as the ranking sees them."""
    return dense.kernel_matrix(prepare(vectors), kernel_table("gaussian", scale)).astype(np.int64)


def coverage_of(kernel: np.ndarray, picks: list[int], weights: float | np.ndarray = 1.0) -> float:
    return float((kernel[list(picks)].max(axis=0) * weights).sum())


def naive_greedy(found: Ranking, vectors: np.ndarray, labelled: np.ndarray | None = None) -> list[int]:
    """What counts of every gain of every candidate at every step; ties by row.

    To itself a pick has no value of 1, but one that falls to what rows have to their second neighbour in the median;
    repeats come last, since of the others a sixteenth of what a repeat would cover of itself counts in any case.
    """
    everything = vectors if labelled is None else np.concatenate([vectors, labelled])
    kernel, given = kernel_of(everything, found.scale), len(everything) - len(vectors)
    near = int(kernel_table("gaussian", found.scale)[level_of(found.near_duplicate_distance)])
    beyond = np.sort(np.where(kernel < near, kernel, -1), axis=1)[:, -2]
    typical = np.sort(beyond[beyond >= 0])[(beyond >= 0).sum() // 2]
    best = kernel[len(vectors) :, : len(vectors)].max(axis=0, initial=0)
    kernel, count, picks = kernel[: len(vectors), : len(vectors)], len(vectors), []
    for step in range(count):
        itself = max(typical, ONE - 2 * (ONE - typical) * (step + given) // (count - step))
        others = np.where(np.eye(count, dtype=bool), 0, np.maximum(kernel - best, 0)).sum(axis=1)
        keys = others + np.maximum(itself - best, -(-np.minimum(ONE - best, ONE - near) // 16))
        keys[picks] = -1
        picks.append(int(keys.argmax()))
        best = np.maximum(best, kernel[picks[-1]])
    return picks


@pytest.mark.parametrize("given", [0, 25])
@pytest.mark.parametrize("seed", range(3))
def test_lazy_equals_naive(seed: int, given: int) -> None:
    vectors, labelled = clustered(90, seed=seed), clustered(25, seed=9)[:given]
    found = rank(vectors, has_duplicate_weights=False, labelled=labelled)
    assert found.rows.tolist() == naive_greedy(found, vectors, labelled)


UNEVEN = np.where(np.arange(400) < 200, 1.0, 0.5)
"""Weights for up to 400 rows. Where they differ, all of what a pick covers of itself counts."""


@pytest.mark.parametrize("path", [{}, LARGE])
def test_weights_are_followed_to_the_end(path: dict[str, int]) -> None:
    found = rank(clustered(400), weights=UNEVEN, **path)
    assert (np.diff(found.gain) <= 0).all()
    assert not (np.diff(rank(clustered(400), **path).gain) <= 0).all()


@pytest.mark.parametrize("path", [{}, LARGE])
def test_rows_that_repeat_a_pick_come_after_all_others(path: dict[str, int]) -> None:
    vectors = clustered(200)
    vectors[150:] = vectors[:50] + 0.001
    found = rank(vectors, **path)
    assert sorted(found.rows[150:] % 150) == list(range(50))


@pytest.mark.parametrize("path", [{}, LARGE])
def test_copies_of_labelled_images_go_last(path: dict[str, int]) -> None:
    vectors = clustered(300)
    found = rank(vectors, labelled=vectors[:40], **path)
    assert set(found.rows[260:].tolist()) == set(range(40))


@pytest.mark.parametrize("head", [0, 10, 60])
@pytest.mark.parametrize("given", [0, 25])
def test_a_graph_of_all_neighbours_equals_naive(given: int, head: int) -> None:
    vectors, labelled = clustered(90), clustered(25, seed=9)[:given]
    params = {"exact_up_to": 20, "neighbours": 90, "head": head}
    found = rank(vectors, has_duplicate_weights=False, labelled=labelled, **params)
    assert found.rows.tolist() == naive_greedy(found, vectors, labelled)


def test_a_hand_worked_case() -> None:
    """Three points together, two together, one alone: one pick for each, the largest group first."""
    angles = np.radians([0, 4, -5, 90, 93, 200])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = rank(vectors, scale=0.3, has_duplicate_weights=False)
    assert found.rows[0] == 0
    assert set(found.rows[1:3].tolist()) < {3, 4, 5}
    assert found.rows[2] == 5
    assert found.stands_for[0] == 3  # the others are beyond the kernel's reach


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 11), st.integers(1, 4))
def test_coverage_is_at_least_the_greedy_share_of_the_optimum(seed: int, rows: int, budget: int) -> None:
    vectors = clustered(rows, clusters=3, dimensions=4, spread=1.0, seed=seed)
    weights = np.where(np.arange(rows) < 3, 0.5, 1.0)
    found = rank(vectors, has_duplicate_weights=False, weights=weights)
    kernel = kernel_of(vectors, found.scale)
    whole = ONE * weights.sum()
    best = max(coverage_of(kernel, list(picks), weights) for picks in itertools.combinations(range(rows), budget))
    reached = coverage_of(kernel, found.rows[:budget].tolist(), weights)
    assert reached >= (1 - 1 / np.e) * best
    assert found.coverage[budget - 1] == pytest.approx(reached / whole)
    for percent in range(1, 101):
        count = max(1, int(percent * rows / 100 + 0.5))
        if count == budget:
            assert found.optimum_bound[percent - 1] >= best / whole - 1e-12


@pytest.mark.parametrize("path", [{}, LARGE])
def test_gains_rise_by_no_more_than_does_not_count_and_nothing_is_picked_twice(path: dict[str, int]) -> None:
    found = rank(clustered(400), **path)
    assert (np.diff(found.gain) <= (1 - np.exp(-1)) * found.weights[1:] / found.weights.sum()).all()
    assert sorted(found.rows.tolist()) == list(range(400))
    assert (np.diff(found.coverage) >= 0).all()
    assert found.coverage[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("path", [{}, LARGE])
def test_permuted_rows_give_the_same_ids(path: dict[str, int]) -> None:
    vectors, ids = clustered(300), ids_of(300)
    order = np.random.default_rng(5).permutation(300)
    one = rank(vectors, ids=ids, **path)
    other = rank(vectors[order], ids=[ids[row] for row in order], **path)
    assert [ids[row] for row in one.rows] == [ids[order[row]] for row in other.rows]
    assert (one.gain == other.gain).all()
    assert one.scale == other.scale


@pytest.mark.parametrize("path", [{}, LARGE])
def test_a_budget_only_marks_picks(path: dict[str, int]) -> None:
    vectors = clustered(300)
    short, whole = rank(vectors, budget=20, **path), rank(vectors, budget="100%", **path)
    assert (short.rows == whole.rows).all()
    assert (short.picks, whole.picks) == (20, 300)


@pytest.mark.parametrize("path", [{}, LARGE])
def test_threads_and_fetch_sizes_change_nothing(path: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = clustered(300)
    one = rank(vectors, **path)
    monkeypatch.setattr("torch.get_num_threads", lambda: 3)
    monkeypatch.setattr(dense, "FETCH_ROWS", 32)
    monkeypatch.setattr(dense, "BLOCK_ROWS", 64)
    other = rank(vectors, **path)
    assert (one.rows == other.rows).all()
    assert (one.gain == other.gain).all()


def test_the_large_path_covers_as_well_as_the_exact_one() -> None:
    vectors = clustered(1500, clusters=40, spread=0.5)
    exact, large = rank(vectors), rank(vectors, exact_up_to=20, neighbours=32)
    kernel = kernel_of(vectors, exact.scale)
    for budget in (5, 15, 75, 150, 600):
        share = coverage_of(kernel, large.rows[:budget].tolist()) / coverage_of(kernel, exact.rows[:budget].tolist())
        assert share > 0.995


def test_the_cell_path_covers_as_well_as_the_exact_one() -> None:
    vectors = clustered(1500, clusters=40, spread=0.5)
    exact, large = rank(vectors), rank(vectors, exact_up_to=20, neighbours=32, cells_from=1000)
    kernel = kernel_of(vectors, exact.scale)
    for budget in (5, 15, 75, 150, 600):
        share = coverage_of(kernel, large.rows[:budget].tolist()) / coverage_of(kernel, exact.rows[:budget].tolist())
        assert share > 0.98


def test_a_bound_is_only_claimed_where_no_neighbour_can_be_missed() -> None:
    vectors = clustered(400)
    assert (rank(vectors, **LARGE).optimum_bound[:50] < 1.0).any()
    assert (rank(vectors, **LARGE, cells_from=1000).optimum_bound[:50] < 1.0).any()
    far = clustered(1100)
    assert (rank(far, **LARGE, cells_from=1000).optimum_bound == 1.0).all()


@pytest.mark.parametrize("path", [{}, LARGE])
def test_bounds_are_never_below_what_is_reached(path: dict[str, int]) -> None:
    found = rank(clustered(400), **path)
    counts = np.arange(1, 101) * 4
    assert (found.optimum_bound >= found.coverage[counts - 1] - 1e-12).all()


@pytest.mark.parametrize("path", [{}, LARGE])
def test_a_frozen_prefix_is_continued_as_if_nothing_had_happened(path: dict[str, int]) -> None:
    vectors = clustered(300)
    whole = rank(vectors, **path)
    again = rank(vectors, frozen=whole.rows[:40], scale=whole.scale, **path)
    assert (again.rows[:40] == whole.rows[:40]).all()
    assert again.gain[:40] == pytest.approx(whole.gain[:40])
    if not path:
        assert (again.rows == whole.rows).all()


def test_a_warm_start_equals_continuation() -> None:
    vectors = clustered(200)
    whole = rank(vectors, has_duplicate_weights=False)
    first, rest = whole.rows[:30], np.sort(whole.rows[30:])
    warm = rank(
        vectors[rest],
        ids=[ids_of(200)[row] for row in rest],
        labelled=vectors[first],
        scale=whole.scale,
        has_duplicate_weights=False,
    )
    assert rest[warm.rows].tolist() == whole.rows[30:].tolist()
    assert (warm.nearest_earlier[0], warm.radius[0] < 2.0) == (-1, True)


def test_labelled_images_outside_the_pool_shape_the_picks() -> None:
    vectors = clustered(200, clusters=2, spread=0.1)
    free = rank(vectors)
    steered = rank(vectors, labelled=vectors[free.rows[:1]], scale=free.scale)
    side = vectors @ vectors[free.rows[0]] > 0.5
    assert side[free.rows[0]]
    assert not side[steered.rows[0]]


@pytest.mark.parametrize("circle", [[1, 0, -1], [1, 2, 0], [-1, 2, 1]])
def test_rows_that_are_each_others_twins_are_refused(circle: list[int]) -> None:
    with pytest.raises(InputError, match=r"duplicate_of, row [01]: expected rows that end at a kept one"):
        rank(clustered(3), duplicate_of=np.array(circle))
    assert rank(clustered(3), duplicate_of=np.array([1, 2, 2])).duplicate_of.tolist() == [-1, 2, 2]


def test_twins_rank_last_and_name_what_they_repeat() -> None:
    vectors = clustered(60)
    vectors[50] = vectors[3]
    vectors[51] = vectors[50]
    marks = np.full(60, -1)
    marks[20] = 51
    found = rank(vectors, duplicate_of=marks)
    behind = dict(zip(found.rows[-3:].tolist(), found.duplicate_of[-3:].tolist(), strict=True))
    assert behind == {20: 3, 50: 3, 51: 3}
    assert (found.duplicate_of[:-3] == -1).all()
    assert (found.gain[-3:] == 0).all()


def test_a_kept_sample_speaks_for_its_twins_where_it_has_no_weight_itself() -> None:
    vectors = clustered(60)
    vectors[50] = vectors[3]
    weights = np.ones(60)
    weights[3] = 0.0
    found = rank(vectors, weights=weights)
    place = int(np.flatnonzero(found.rows == 3)[0])
    assert (found.rows[-1], found.duplicate_of[-1]) == (50, 3)
    assert found.weights[place] > 0
    assert (found.rows == rank(vectors).rows).all()
    only_the_twin = np.zeros(60)
    only_the_twin[50] = 1.0
    alone = rank(vectors, weights=only_the_twin)
    assert alone.rows[0] == 3
    assert sorted(alone.rows.tolist()) == list(range(60))


def test_near_duplicates_share_the_weight_of_one() -> None:
    draw = np.random.default_rng(0)
    burst = clustered(1, seed=1) + 0.002 * draw.normal(size=(50, 16))
    others = clustered(40, clusters=40, seed=2)
    vectors = np.concatenate([burst / np.linalg.norm(burst, axis=1, keepdims=True), others]).astype(np.float32)
    shared = rank(vectors, scale=0.6)
    assert shared.weights[np.isin(shared.rows, np.arange(50))] == pytest.approx(1 / 50, rel=0.01)
    plain = rank(vectors, scale=0.6, has_duplicate_weights=False)
    assert plain.rows[0] < 50
    assert (shared.rows[:20] < 50).sum() <= 1


def test_explanations_speak_of_the_samples_they_name() -> None:
    vectors = clustered(120)
    found = rank(vectors)
    for place in (1, 5, 30, 90):
        earlier = vectors[found.rows[:place]]
        distances = np.linalg.norm(earlier - vectors[found.rows[place]], axis=1)
        assert found.radius[place] == pytest.approx(distances.min(), rel=5e-3)
    assert found.radius[0] == 2.0
    assert found.stands_for[0] == 120


@pytest.mark.parametrize("path", [{}, LARGE])
def test_picks_beyond_the_kernels_reach_still_name_the_nearest_earlier_one(
    path: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result, "FAR_ROWS", 3)
    monkeypatch.setattr(result, "EARLIER_ROWS", 5)
    vectors, outside = clustered(120, clusters=40, spread=0.05), clustered(7, seed=3)
    for labelled in (None, outside):
        found = rank(vectors, scale=0.1, labelled=labelled, **path)  # it reaches 0.33 far, no other cluster
        for place in range(1, 40):
            distances = np.linalg.norm(vectors[found.rows[:place]] - vectors[found.rows[place]], axis=1)
            given = np.inf if labelled is None else np.linalg.norm(outside - vectors[found.rows[place]], axis=1).min()
            assert found.radius[place] == pytest.approx(min(distances.min(), given), abs=1e-6)
            expected = -1 if given < distances.min() else found.rows[distances.argmin()]
            assert found.nearest_earlier[place] == expected
    assert (found.radius[:40] > 0.4).any()


def test_one_row_is_ranked() -> None:
    found = rank(clustered(1))
    assert (found.rows.tolist(), found.coverage.tolist(), found.picks) == ([0], [1.0], 1)


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_equal_rows_are_one_sample_and_its_twins(rows: int) -> None:
    found = rank(np.ones((rows, 4), np.float32))
    assert found.rows.tolist() == list(range(rows))
    assert found.duplicate_of.tolist() == [-1] + [0] * (rows - 1)
    assert (found.coverage == 1.0).all()


def test_rows_that_differ_by_less_than_rounding_keep_the_order_of_their_ids() -> None:
    vectors = np.ones((5, 4), np.float32)
    vectors[:, 0] += np.arange(5, dtype=np.float32) * 1e-6
    found = rank(vectors)
    assert sorted(found.rows.tolist()) == list(range(5))
    assert found.rows[1:].tolist() == sorted(found.rows[1:].tolist())


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((0, 4), np.float32), "at least one row"),
        (np.zeros((3, 4), np.float32), "a vector of zeros"),
        (np.array([[1.0, np.nan]], np.float32), "not finite"),
        (np.array([[1.0, np.inf]], np.float32), "not finite"),
        (np.ones(4, np.float32), r"shape \(N, D\)"),
        (np.ones((2, 4), np.int64), "floating-point"),
    ],
)
def test_bad_vectors_get_a_clear_error(vectors: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ranking.rank(vectors, SelectionParams(), sample_ids=ids_of(len(vectors)))


def test_wrong_widths_and_repeated_ids_get_a_clear_error() -> None:
    vectors = clustered(4)
    with pytest.raises(InputError, match="16 dimensions"):
        rank(vectors, labelled=np.ones((2, 5), np.float32))
    with pytest.raises(InputError, match="each sample_id once"):
        rank(vectors, ids=["a", "b", "a", "c"])
    with pytest.raises(InputError, match="one sample_id per row"):
        rank(vectors, ids=["a"])
    with pytest.raises(InputError, match="distinct rows"):
        rank(vectors, frozen=np.array([1, 1]))


def test_vectors_are_scaled_to_unit_length() -> None:
    vectors = clustered(80)
    assert (rank(vectors).rows == rank(vectors * np.linspace(1, 7, 80, dtype=np.float32)[:, None]).rows).mean() > 0.9


def test_float16_vectors_are_ranked() -> None:
    assert sorted(rank(clustered(50).astype(np.float16)).rows.tolist()) == list(range(50))


def test_the_scale_is_the_distance_to_the_fiftieth_neighbour_and_bursts_do_not_move_it() -> None:
    vectors = clustered(1200, clusters=12, spread=0.4)
    order = np.arange(1200)
    scale = median_scale(prepare(vectors), order)
    distances = np.sort(np.linalg.norm(vectors[:, None] - vectors[None], axis=2), axis=1)
    assert scale == pytest.approx(np.median(distances[:, 50]), rel=0.02)
    jitter = 0.001 * np.random.default_rng(3).normal(size=(1200, 16))
    burst = np.concatenate([vectors, *[vectors[:100] + jitter[:100] * turn for turn in range(1, 8)]]).astype(np.float32)
    burst /= np.linalg.norm(burst, axis=1, keepdims=True)
    assert median_scale(prepare(burst), np.random.default_rng(0).permutation(len(burst))) == pytest.approx(
        scale, rel=0.25
    )
