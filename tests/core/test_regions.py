"""Ranking by regions beside the ranking of the whole pool at once, on pools whose regions are forced to be small."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from clustered_pool import cameras, clustered, rank

from wtl_core.engines.engine import Engine, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.by_regions.division import divide
from wtl_core.selection.by_regions.files import Files, load_region
from wtl_core.selection.by_regions.ranking import rank_by_regions
from wtl_core.selection.by_regions.work import merge_keys
from wtl_core.selection.identity import content_keys
from wtl_core.selection.neighbours import numeric_path_of, prepare
from wtl_core.selection.ranking import Steering
from wtl_core.selection.result import Ranking
from wtl_core.workspace.storage import open_store

pytestmark = pytest.mark.usefixtures("two_threads")

SMALL: dict[str, object] = {"region_size": 120}
GRAPH: dict[str, object] = {"region_size": 120, "exact_up_to": 20, "neighbours": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def ids_of(rows: int) -> list[str]:
    return [f"{row:05d}" for row in range(rows)]


def by_regions(
    folder: Path,
    vectors: np.ndarray,
    params: dict[str, object] | None = None,
    *,
    order: np.ndarray | None = None,
    workers: int = 1,
    batch: int = 100,
    scale: float | None = None,
    engine: Engine | None = None,
    needs: Needs | None = None,
    **arrays: object,
) -> Ranking:
    """With `order` the vectors come in that order; the ranking's rows are those of `vectors` all the same."""
    order = np.arange(len(vectors)) if order is None else order

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in range(0, len(vectors), batch):
            yield order[start : start + batch], vectors[order[start : start + batch]]

    return rank_by_regions(
        batches,
        SelectionParams.model_validate(SMALL if params is None else params),
        sample_ids=pl.Series(ids_of(len(vectors))),
        files=Files(open_store(str(folder)), f"made-{workers}-{batch}"),
        engine=engine or LocalEngine(workers),
        needs=needs,
        steering=Steering(**arrays),  # type: ignore[arg-type]
        scale=scale,
    )


def covered(vectors: np.ndarray, ranked: Ranking, count: int, weights: np.ndarray | None = None) -> float:
    """Coverage by the first picks, plainly."""
    wide = vectors.astype(np.float64)
    nearest = np.sqrt(np.maximum(0, 2 - 2 * (wide @ wide[ranked.rows[:count]].T).max(1)))
    return float(np.average(np.exp(-((nearest / ranked.scale) ** 2)), weights=weights))


@pytest.mark.parametrize("params", [SMALL, GRAPH])
def test_regions_cover_as_well_as_the_whole_pool_at_once(folder: Path, params: dict[str, object]) -> None:
    vectors = clustered(1000, clusters=12, spread=0.5)
    central, found = rank(vectors, {"exact_up_to": 2000}), by_regions(folder, vectors, params)
    assert sorted(found.rows.tolist()) == list(range(1000))
    assert found.scale == central.scale
    drawn = np.random.default_rng(0).permutation(1000)
    for count in (10, 50, 100, 400):
        random = covered(vectors, replace(central, rows=drawn), count)
        assert covered(vectors, found, count) >= max(0.99 * covered(vectors, central, count), random)


@pytest.mark.parametrize("exported", [0, 60])
def test_a_pool_of_one_region_is_ranked_as_at_once(folder: Path, exported: int) -> None:
    """Id for id where it has no head of its own, and each figure with it."""
    vectors = clustered(150)
    params = {"region_size": 1000, "head": 0}
    frozen = np.random.default_rng(0).permutation(150)[:exported]
    central, found = rank(vectors, params, frozen=frozen), by_regions(folder, vectors, params, frozen=frozen)
    for name in ("rows", "stands_for", "nearest_earlier", "duplicate_of"):
        assert getattr(found, name).tolist() == getattr(central, name).tolist(), name
    for name in ("gain", "coverage", "radius", "weights"):
        assert getattr(found, name) == pytest.approx(getattr(central, name)), name
    assert found.stop == central.stop


def test_neither_the_rows_order_nor_batches_nor_workers_change_the_ranking(folder: Path) -> None:
    vectors = clustered(700, clusters=12, spread=0.5)
    expected = by_regions(folder, vectors, GRAPH)
    backwards = by_regions(folder, vectors, GRAPH, order=np.arange(700)[::-1], batch=37)
    assert backwards.rows.tolist() == expected.rows.tolist()
    assert backwards.gain.tolist() == expected.gain.tolist()


@pytest.mark.parametrize(("workers", "params"), [(2, GRAPH), (4, SMALL)])
def test_workers_change_nothing(folder: Path, workers: int, params: dict[str, object]) -> None:
    vectors = clustered(700, clusters=12, spread=0.5)
    expected, found = by_regions(folder, vectors, params), by_regions(folder, vectors, params, workers=workers)
    assert found.rows.tolist() == expected.rows.tolist()
    assert found.radius.tolist() == expected.radius.tolist()


def test_permuted_rows_give_the_same_ids(folder: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.5)
    shuffle = np.random.default_rng(1).permutation(600)
    expected = by_regions(folder, vectors)
    names = np.array(ids_of(600))

    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield np.arange(600), vectors[shuffle]

    found = rank_by_regions(
        batches,
        SelectionParams.model_validate(SMALL),
        sample_ids=pl.Series(names[shuffle].tolist()),
        files=Files(open_store(str(folder)), "shuffled"),
        engine=LocalEngine(1),
    )
    assert names[shuffle][found.rows].tolist() == names[expected.rows].tolist()


KILLED = """
import sys
import numpy as np
import polars as pl
from wtl_core.engines.local import LocalEngine
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection.by_regions import ranking
from wtl_core.selection.by_regions.files import Files, load_region
from wtl_core.workspace.storage import open_store

vectors = np.load(sys.argv[2])
ranking.rank_by_regions(
    lambda: iter([(np.arange(len(vectors)), vectors)]),
    SelectionParams(region_size=120),
    sample_ids=pl.Series([f"{row:05d}" for row in range(len(vectors))]),
    files=Files(open_store(sys.argv[1]), "made-1-100"),
    engine=LocalEngine(1),
)
"""


def test_what_another_kind_of_processor_has_begun_is_begun_anew(folder: Path) -> None:
    vectors = clustered(300)
    expected = by_regions(folder, vectors)
    files = Files(open_store(str(folder)), "made-1-100")
    files.write("ordered-000000", rows=np.zeros(0, np.int32))
    files.store.write_bytes("made-1-100/made-by", b"1 cuda-bf16")
    assert by_regions(folder, vectors).rows.tolist() == expected.rows.tolist()


def test_a_ranking_that_was_killed_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.5)
    np.save(tmp_path / "vectors.npy", vectors)
    made = folder / "made-1-100"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(folder), str(tmp_path / "vectors.npy")]) as process:
        while not list(made.glob("ordered-*.npz")):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    kept = {path: path.stat().st_mtime_ns for path in made.glob("*-*.npz")}
    found = by_regions(folder, vectors)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert found.rows.tolist() == by_regions(tmp_path / "other", vectors).rows.tolist()


def test_labelled_images_cover_in_all_regions(folder: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.4)
    labelled = clustered(600, clusters=8, spread=0.4)[:60]
    central, found = rank(vectors, SMALL, labelled=labelled), by_regions(folder, vectors, labelled=labelled)
    assert found.coverage[0] == pytest.approx(central.coverage[0], abs=2e-3)
    for count in (30, 120):
        given = [covered_beside(vectors, labelled, ranked, count) for ranked in (found, central)]
        assert given[0] >= 0.99 * given[1]


def covered_beside(vectors: np.ndarray, labelled: np.ndarray, ranked: Ranking, count: int) -> float:
    both = np.concatenate([labelled, vectors[ranked.rows[:count]]]).astype(np.float64)
    nearest = np.sqrt(np.maximum(0, 2 - 2 * (vectors.astype(np.float64) @ both.T).max(1)))
    return float(np.exp(-((nearest / ranked.scale) ** 2)).mean())


def test_frozen_picks_come_first_and_gain_what_they_gain_at_once(folder: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.4)
    frozen = np.array([411, 7, 200, 8])
    central, found = rank(vectors, SMALL, frozen=frozen), by_regions(folder, vectors, frozen=frozen)
    assert found.rows[:4].tolist() == frozen.tolist()
    assert found.gain[:4] == pytest.approx(central.gain[:4], rel=0.02)
    assert found.nearest_earlier[:4].tolist() == central.nearest_earlier[:4].tolist()
    assert found.radius[:4] == pytest.approx(central.radius[:4])
    assert sorted(found.rows.tolist()) == list(range(600))


def test_weights_are_followed_across_regions(folder: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.4)
    weights = np.random.default_rng(0).integers(0, 3, 600).astype(np.float64)
    central, found = rank(vectors, SMALL, weights=weights), by_regions(folder, vectors, weights=weights)
    unweighted = int((weights == 0).sum())
    assert found.rows[-unweighted:].tolist() == central.rows[-unweighted:].tolist()
    by_row = [np.zeros(600), np.zeros(600)]
    for ranked, row in zip((found, central), by_row, strict=True):
        row[ranked.rows] = ranked.weights
    assert by_row[0] == pytest.approx(by_row[1], rel=0.35)
    assert np.median(by_row[0] - by_row[1]) == 0.0
    for count in (30, 120):
        assert covered(vectors, found, count, weights) >= 0.99 * covered(vectors, central, count, weights)


def test_groups_are_balanced_across_regions(folder: Path) -> None:
    vectors, groups = clustered(600, clusters=8, spread=0.5), cameras(600)
    params = {**SMALL, "group_by": "camera", "balance": {"target": "uniform"}}
    central, found = rank(vectors, params, groups=groups), by_regions(folder, vectors, params, groups=groups)
    shares = [
        [float((groups[ranked.rows[:90]] == name).mean()) for name in ("north", "south", "west")]
        for ranked in (found, central)
    ]
    assert shares[0] == pytest.approx(shares[1], abs=0.06)


def test_bursts_share_the_weight_of_one_across_regions(folder: Path) -> None:
    """A border goes through no burst without the other side knowing of it."""
    draw = np.random.default_rng(3)
    scenes = clustered(120, clusters=8, spread=0.6)
    vectors = np.repeat(scenes, 8, axis=0) + 0.01 * draw.normal(size=(960, 12))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    central, found = rank(vectors, SMALL), by_regions(folder, vectors)
    assert found.weights.sum() == pytest.approx(central.weights.sum(), rel=0.02)
    scene = np.repeat(np.arange(120), 8)
    assert len(set(scene[found.rows[:60]])) >= len(set(scene[central.rows[:60]])) - 2


def test_equal_vectors_and_given_copies_rank_behind_what_they_repeat(folder: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.5)
    vectors[[5, 300, 599]] = vectors[77]
    copies = np.full(600, -1)
    copies[[10, 11, 12]] = [500, 10, 77]
    central, found = rank(vectors, SMALL, duplicate_of=copies), by_regions(folder, vectors, duplicate_of=copies)
    assert found.rows[-6:].tolist() == central.rows[-6:].tolist()
    assert found.duplicate_of[-6:].tolist() == central.duplicate_of[-6:].tolist()
    assert (found.duplicate_of[:-6] == -1).all()


def test_similarity_steers_across_regions(folder: Path) -> None:
    vectors = clustered(600, clusters=8, spread=0.4)
    similar = [(vectors[:3], 2.0)]
    central, found = rank(vectors, SMALL, similar=similar), by_regions(folder, vectors, similar=similar)
    weights = np.empty(600)
    weights[central.rows] = central.weights
    for count in (20, 60):
        to_given = [(vectors[ranked.rows[:count]] @ vectors[:3].T).max(1).mean() for ranked in (found, central)]
        assert to_given[0] == pytest.approx(to_given[1], abs=0.1)
        assert covered(vectors, found, count, weights) >= 0.99 * covered(vectors, central, count, weights)
    plain = by_regions(folder / "plain", vectors)
    assert (vectors[plain.rows[:20]] @ vectors[:3].T).max(1).mean() < 0.6


@pytest.mark.parametrize("workers", [1, 2])
def test_classes_of_labels_steer_across_regions(folder: Path, workers: int) -> None:
    """The same sentence, the same classes named, and the same weights as at once."""
    vectors = clustered(900, clusters=6, spread=0.35)
    labelled, ranked = vectors[:120], vectors[120:]
    classes = [[str(place)] for place in (labelled @ clustered(6, clusters=6, spread=0.0, seed=0).T).argmax(1) // 2]
    given = {"labelled": labelled, "labelled_classes": classes}
    params = {**SMALL, "labels": "use"}
    central, found = rank(ranked, params, **given), by_regions(folder, ranked, params, workers=workers, **given)
    assert central.labels is not None
    assert found.labels is not None
    assert found.labels.sentence() == central.labels.sentence()
    reasons, weights = [{}, {}], np.zeros((2, 780))
    for place, one in enumerate((found, central)):
        assert one.labels is not None
        reasons[place] = {row: one.labels.reason(at) for row, at in zip(one.rows, one.label_rows, strict=True)}
        weights[place][one.rows] = one.weights
    assert reasons[0] == reasons[1]
    assert np.quantile(np.abs(weights[0] / weights[1] - 1), 0.9) < 0.01
    for count in (30, 120):
        assert covered(ranked, found, count, weights[1]) >= 0.98 * covered(ranked, central, count, weights[1])


def test_labels_that_are_not_heard_are_told_all_the_same(folder: Path) -> None:
    vectors = clustered(400)
    classes = [["a"], ["b"]] * 20
    found = by_regions(folder, vectors, labelled=vectors[:40], labelled_classes=classes)
    assert found.labels is not None
    assert "do not steer the picks yet" in found.labels.sentence()
    assert (found.label_rows == -1).all()


def test_outliers_rank_where_they_do_at_once(folder: Path) -> None:
    """What a pick covers of itself counts by the ranks within its region."""
    vectors = clustered(900, clusters=6, spread=0.2)
    outliers = np.arange(0, 900, 30)
    drawn = np.random.default_rng(4).normal(size=(len(outliers), 12))
    vectors[outliers] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    central, found = rank(vectors, SMALL), by_regions(folder, vectors)
    places = [np.flatnonzero(np.isin(ranked.rows, outliers)) for ranked in (found, central)]
    assert abs(np.median(places[0]) - np.median(places[1])) < 90


def test_no_explanation_speaks_of_a_later_pick(folder: Path) -> None:
    vectors = clustered(700, clusters=12, spread=0.5)
    found = by_regions(folder, vectors, GRAPH)
    rank_of = np.empty(700, np.int64)
    rank_of[found.rows] = np.arange(700)
    has_one = np.flatnonzero(found.nearest_earlier >= 0)
    assert (rank_of[found.nearest_earlier[has_one]] < has_one).all()
    distance = np.linalg.norm(vectors[found.rows[has_one]] - vectors[found.nearest_earlier[has_one]], axis=1)
    assert found.radius[has_one] == pytest.approx(distance, abs=1e-5)


def test_gains_never_rise_behind_the_head_where_all_of_them_counts(folder: Path) -> None:
    weights = np.where(np.arange(900) == 0, 0.999, 1.0)  # where they differ, all that a pick covers of itself does
    found = by_regions(folder, clustered(900, clusters=12, spread=0.5), GRAPH, weights=weights)
    assert (np.diff(found.gain[found.exact_until :]) <= 1e-12).all()


def test_merging_keeps_a_regions_order() -> None:
    keys, rows = np.array([9, 7, 8, 7, 7, 5, 6]), np.array([4, 3, 9, 1, 6, 2, 0])
    merged, tie = merge_keys(keys, rows)
    assert merged.tolist() == [9, 7, 7, 7, 7, 5, 5]
    assert tie.tolist() == [4, 3, 9, 9, 9, 2, 2]
    assert np.lexsort((tie, -merged)).tolist() == list(range(7))


def test_regions_are_bounded_and_follow_content_alone() -> None:
    vectors = clustered(3000, clusters=30, spread=0.4)
    keys = content_keys(ids_of(3000))
    division = divide(prepare(vectors), vectors, keys, rows=3000, size=400, most_reach=0.5)
    regions, guests = division.places(vectors)
    sizes = np.bincount(regions, minlength=division.count)
    assert sizes.max() <= 400
    assert sizes.min() >= 80
    assert (guests >= 0).sum() <= 0.51 * 3000
    assert (guests != regions[:, None]).all()
    again, others = division.places(vectors[1000:1010])
    assert again.tolist() == regions[1000:1010].tolist()
    assert others.tolist() == guests[1000:1010].tolist()


def test_a_cell_larger_than_a_region_is_dealt_out_and_equal_vectors_stay_together() -> None:
    one = clustered(1)
    vectors = np.repeat(one, 1000, axis=0) + 1e-4 * np.random.default_rng(0).normal(size=(1000, 12))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    vectors[500:] = vectors[:500]
    division = divide(prepare(vectors), vectors, content_keys(ids_of(1000)), rows=1000, size=200, most_reach=0.5)
    regions, _ = division.places(vectors)
    assert np.bincount(regions).max() <= 300
    assert regions[:500].tolist() == regions[500:].tolist()


def test_objectives_other_than_coverage_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="ranked by regions; choose one of them, or raise `regions_from`"):
        by_regions(folder, clustered(100), {"objective": "k-center", "regions_from": 50})


@pytest.mark.parametrize(
    "quota",
    [
        {"group": "west", "minimum": 40},
        {"group": "north", "maximum": 20},
        {"group": "south", "minimum_share": 0.5},
        {"group": "north", "maximum_share": 0.25},
    ],
)
def test_quotas_hold_across_regions_as_they_do_at_once(folder: Path, quota: dict[str, object]) -> None:
    vectors, groups = clustered(600, clusters=8, spread=0.4), cameras(600)
    params = {**SMALL, "budget": 90, "group_by": "camera", "quotas": [quota]}
    central, found = rank(vectors, params, groups=groups), by_regions(folder, vectors, params, groups=groups)
    assert (found.quotas_until, found.quota_advice) == (central.quotas_until, central.quota_advice) == (90, "")
    picked = groups[found.rows[:90]]
    if "minimum" in quota:
        assert (picked == "west").sum() >= 40
    elif "maximum" in quota:
        assert (picked == "north").sum() <= 20
    for count in range(1, 91):
        assert (picked[:count] == "south").sum() >= int(quota.get("minimum_share", 0) * count)  # type: ignore[operator]
        assert (picked[:count] == "north").sum() <= np.ceil(float(quota.get("maximum_share", 1)) * count)  # type: ignore[arg-type]
    assert covered(vectors, found, 90) >= 0.97 * covered(vectors, central, 90)
    assert sorted(found.rows.tolist()) == list(range(600))


@pytest.mark.parametrize(
    "given", [{}, {"budget": 90, "group_by": "camera", "quotas": [{"group": "west", "minimum": 40}]}]
)
def test_a_picks_radius_reaches_no_farther_than_the_earlier_picks_of_its_region(
    folder: Path, given: dict[str, object]
) -> None:
    """Also where a guest that was nearer came later in the end."""
    vectors = clustered(900, clusters=8, spread=0.5)
    found = by_regions(folder, vectors, {**SMALL, "head": 0, **given}, groups=cameras(900))
    region = np.empty(900, np.int64)
    files = Files(open_store(str(folder)), "made-1-100")
    for number in np.flatnonzero(files.read("dealt", "sizes")[0].sum(0)):
        rows, is_own = load_region(files, number, "rows", "is_own")
        region[rows[is_own]] = number
    wide, mine = vectors[found.rows].astype(np.float64), region[found.rows]
    distances = np.sqrt(np.maximum(0, 2 - 2 * wide @ wide.T))
    is_earlier = np.tri(900, k=-1, dtype=bool) & (mine[:, None] == mine)
    nearest = np.where(is_earlier, distances, np.inf).min(1)
    picks = np.arange(1, 900)
    assert (found.radius <= nearest + 2e-3)[picks].all()  # as far as levels of distance tell apart
    earlier = found.nearest_earlier[picks]
    own = np.linalg.norm(vectors[found.rows[picks]] - vectors[earlier], axis=1)
    assert found.radius[picks][earlier >= 0] == pytest.approx(own[earlier >= 0], abs=1e-4)
    assert np.isnan(found.optimum_bound).all()


def test_what_counts_of_gains_goes_on_where_a_regions_own_head_ends(folder: Path) -> None:
    """Regions are merged by it, so a step there would put all heads before all that follows."""
    vectors = clustered(600, clusters=8, spread=0.4)
    params = {**GRAPH, "region_size": 1000, "head": 40, "quotas": [], "budget": 500}
    files = Files(open_store(str(folder)), "made-1-100")
    by_regions(folder, vectors[200:], params, labelled=vectors[:200])
    keys = files.read("ordered-000000", "key")[0].astype(np.float64)
    steps = keys[1:120] / keys[:119]
    assert steps.min() > 0.8


def test_groups_that_are_not_there_are_refused_before_a_vector_is_read(folder: Path) -> None:
    def batches() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        raise AssertionError

    for named in (
        {"quotas": [{"group": "moon", "minimum": 1}]},
        {"balance": {"target": {"moon": 1}}},
    ):
        params = SelectionParams.model_validate({**SMALL, "group_by": "camera", "budget": 9, **named})
        with pytest.raises(ConfigError, match="'moon'"):
            rank_by_regions(
                batches,
                params,
                sample_ids=pl.Series(ids_of(60)),
                files=Files(open_store(str(folder)), "made"),
                engine=LocalEngine(1),
                steering=Steering(groups=cameras(60)),
            )


def test_a_last_batch_that_is_written_at_once_leaves_nothing_to_write(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = clustered(300)
    expected = by_regions(folder / "held", vectors)
    monkeypatch.setattr("wtl_core.selection.by_regions.pool._HELD", 0)
    assert by_regions(folder / "at once", vectors).rows.tolist() == expected.rows.tolist()


def test_what_weighs_nothing_is_dealt_out_to_no_region(folder: Path) -> None:
    vectors, weights = clustered(600, clusters=8, spread=0.4), np.ones(600)
    weights[100:] = 0
    found = by_regions(folder, vectors, weights=weights)
    assert set(found.rows[:100].tolist()) == set(range(100))
    sizes = Files(open_store(str(folder)), "made-1-100").read("dealt", "sizes")[0]
    assert sizes.sum() <= 200


def test_frozen_picks_count_for_quotas_across_regions(folder: Path) -> None:
    vectors, groups = clustered(600, clusters=8, spread=0.4), cameras(600)
    frozen = np.flatnonzero(groups == "north")[:6]
    params = {**SMALL, "budget": 60, "group_by": "camera", "quotas": [{"group": "north", "maximum": 4}]}
    central = rank(vectors, params, groups=groups, frozen=frozen)
    found = by_regions(folder, vectors, params, groups=groups, frozen=frozen)
    assert (found.quotas_until, found.quota_advice) == (central.quotas_until, central.quota_advice)
    assert (groups[found.rows[6:60]] != "north").all()


def test_vectors_that_are_missing_or_not_of_unit_length_are_refused(folder: Path) -> None:
    vectors = clustered(100)
    with pytest.raises(InputError, match="expected rows of unit length"):
        by_regions(folder, vectors * 2)
    nothing = vectors.copy()
    nothing[42] = 0
    with pytest.raises(InputError, match="sample 00042: expected a finite vector that is not zero"):
        by_regions(folder, nothing)
    with pytest.raises(InputError, match="expected one for each of 100 samples, found 50"):
        by_regions(folder, vectors, order=np.arange(50))


@dataclass
class Elsewhere:
    """An engine whose workers are made on another machine, as `there` lets this one be."""

    there: Callable[[], AbstractContextManager[None]] = nullcontext
    needs: list[Needs] = field(default_factory=list)

    def run(
        self,
        make_worker: Callable[[], Callable[[Any], Any]],
        items: Sequence[Any],
        *,
        needs: Needs = Needs(),  # noqa: B008, frozen
        weights: Sequence[float] | None = None,
    ) -> Iterator[tuple[int, Any]]:
        self.needs.append(needs)
        with self.there():
            worker = make_worker()
        return ((number, worker(item)) for number, item in enumerate(items))


@pytest.mark.parametrize("has_a_folder_of_its_own", [False, True])
def test_a_worker_that_does_not_see_the_files_is_refused(folder: Path, has_a_folder_of_its_own: bool) -> None:
    @contextmanager
    def there() -> Iterator[None]:
        folder.rename(folder.parent / "elsewhere")
        if has_a_folder_of_its_own:
            folder.mkdir()
        yield

    with pytest.raises(ConfigError, match=f"expected to see {folder}.* as the machine that runs the refresh does"):
        by_regions(folder, clustered(300), engine=Elsewhere(there))


def test_a_worker_whose_processor_compares_in_another_way_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = numeric_path_of("cpu")

    @contextmanager
    def there() -> Iterator[None]:
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(f"torch.cpu.{name}", lambda: here == "cpu-fp32")
        yield

    with pytest.raises(ConfigError, match=f"expected a processor that compares vectors by {here} .*found one that"):
        by_regions(folder, clustered(300), engine=Elsewhere(there))


def test_workers_take_what_they_are_said_to_and_memory_for_the_largest_region(folder: Path) -> None:
    engine, vectors = Elsewhere(), clustered(600)
    expected = by_regions(folder / "here", vectors)
    found = by_regions(folder / "there", vectors, engine=engine, needs=Needs(cpus=3))
    assert found.rows.tolist() == expected.rows.tolist()
    sizes = Files(open_store(str(folder / "there")), "made-1-100").read("dealt", "sizes")[0].sum(0)
    assert engine.needs == [Needs(cpus=3, memory_bytes=2**30 + sizes.max() * (1536 + 6 * vectors.shape[1]))] * 3
