"""The selection stage: what its folder says of the ranking and of its measurement."""

import hashlib
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pytest

from wtl_core.embedding import staging, vectors
from wtl_core.engines.local import LocalEngine
from wtl_core.errors import ConfigError, InputError
from wtl_core.recipe.base import digest_of
from wtl_core.recipe.recipe import Recipe
from wtl_core.recipe.selection import SelectionParams
from wtl_core.selection import columns, stage
from wtl_core.selection.by_regions.files import Files
from wtl_core.selection.by_regions.ranking import rank_by_regions
from wtl_core.selection.stage_inputs import StageInputs, digest_of_columns, read_inputs
from wtl_core.workspace import ledger, selections, storage
from wtl_core.workspace.selections import SelectionRef
from wtl_core.workspace.storage import Store, open_store

pytestmark = pytest.mark.usefixtures("two_threads")

ENCODER = "a" * 64
ROWS = 120


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A workspace with vectors of some samples."""
    store = open_store(str(tmp_path / "workspace"))
    drawn = np.random.default_rng(0).normal(size=(ROWS, 12))
    unit = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)
    staging.stage(store, ENCODER, "part", samples()["sample_id"].to_list(), unit)
    vectors.commit_staged(store, ENCODER, ["part"], 12)
    return store


def samples() -> pl.DataFrame:
    ids = [f"{row:064x}" for row in range(ROWS)]
    camera = ['{"camera": "north"}' if row % 3 else '{"camera": "south"}' for row in range(ROWS)]
    empty = pl.Series([None] * ROWS, dtype=pl.String)
    columns = {"sample_id": ids, "uri": ids, "pixel_digest": ids, "duplicate_of": empty, "metadata": camera}
    return pl.DataFrame({**columns, "is_filtered": [False] * ROWS})


def run(
    store: Store,
    selection: dict[str, object],
    *,
    entries: int = 0,
    given: pl.DataFrame | None = None,
    number: int = 1,
    **more: float,
) -> SelectionRef:
    inputs = inputs_of(store, selection, entries=entries, given=given, **more)
    return stage.run(store, inputs, number=number, device="cpu")


def inputs_of(
    store: Store,
    selection: dict[str, object],
    *,
    entries: int = 0,
    given: pl.DataFrame | None = None,
    near_copy_distance: float | None = None,
) -> StageInputs:
    return read_inputs(
        store,
        samples() if given is None else given,
        Recipe.model_validate({"selection": selection}),
        encoder=ENCODER,
        near_copy_distance=near_copy_distance,
        ledger_length=entries,
    )


def test_the_ladder_is_measured_by_the_kernel_that_the_ranking_was_made_by(store: Store) -> None:
    made = run(store, {"scale_factor": 0.25, "has_duplicate_weights": False})
    ranking, ladder = selections.read_ranking(store, made.key), selections.read_ladder(store, made.key)
    scale = selections.read_receipt(store, made.key)["scale"]
    by_rank = vectors.load(store, ENCODER, ranking["sample_id"].to_list()).astype(np.float64)
    distances = np.linalg.norm(by_rank[:, None] - by_rank[None], axis=2)
    # an image is measured without itself and its near-duplicates
    distances[distances <= min(0.25, scale * 2 / 3)] = 2.0
    expected = [np.exp(-((distances[:, :count].min(1) / (0.25 * scale)) ** 2)).mean() for count in ladder["count"]]
    assert ladder["coverage"].to_numpy() == pytest.approx(expected, abs=2e-3)


def test_the_receipt_says_how_far_quotas_hold(store: Store) -> None:
    quota = {"group": "south", "minimum_share": 0.5}
    made = run(store, {"budget": 20, "group_by": "camera", "quotas": [quota]})
    assert selections.read_receipt(store, made.key)["quotas_until"] == 20


def test_the_receipt_advises_where_exported_picks_break_a_quota(store: Store) -> None:
    ledger.append(store, "exported", samples()["sample_id"].to_list()[1:3])  # both of the north camera
    quota = {"group": "north", "maximum": 1}
    made = run(store, {"budget": 20, "group_by": "camera", "quotas": [quota]}, entries=1)
    receipt = selections.read_receipt(store, made.key)
    assert receipt["quotas_until"] == 1
    assert "Quotas hold for 1 of 20 picks" in receipt["advice"]


def test_a_goal_that_labels_have_reached_picks_nothing(store: Store) -> None:
    ledger.append(store, "labelled", samples()["sample_id"].to_list()[:60])
    made = run(store, {"coverage_goal": 0.1}, entries=1)
    receipt = selections.read_receipt(store, made.key)
    assert (made.picks, receipt["stop"]) == (0, {"picks": 0, "reason": "coverage_goal"})
    assert selections.kept_share(store, made.key, made.key, settled=[]) is None


@pytest.mark.parametrize("minimum", [20, 40])
def test_labelling_a_quotas_whole_group_does_not_end_the_refreshes(store: Store, minimum: int) -> None:
    """Also where the group's images are the only ones whose metadata has the column."""
    frame = samples()
    south = frame.filter(pl.col("metadata").str.contains("south"))["sample_id"].to_list()
    ledger.append(store, "labelled", south)
    quota = {"group": "south", "minimum": minimum}
    selection = {"budget": 20, "group_by": "camera", "quotas": [quota]}
    only = frame.with_columns(pl.when(pl.col("sample_id").is_in(south)).then("metadata"))
    for number, given in enumerate((frame, only)):
        made = run(store, selection, entries=1, given=given, number=number)
        receipt = selections.read_receipt(store, made.key)
        assert (receipt["picks"], receipt["quotas_until"]) == (20, 20)
    with pytest.raises(ConfigError, match="quota of 'north': expected one of the pool's groups"):
        run(store, {**selection, "quotas": [{"group": "north"}]}, entries=1, given=only, number=2)


def test_classes_of_labels_steer_and_are_told_and_recorded(store: Store) -> None:
    ids = samples()["sample_id"].to_list()
    held = vectors.load(store, ENCODER, ids)
    sides = [["left"] if value < 0 else ["right"] for value in held[:, 0].astype(np.float64)]
    ledger.append(store, "labelled", ids[:60], classes=sides[:60])
    ref = run(store, {"labels": "use"}, entries=1)  # `auto` would not: in such vectors hardly any are alike
    receipt = selections.read_receipt(store, ref.key)
    ranking = selections.read_ranking(store, ref.key)
    assert receipt["labels"]["is_heard"]
    assert (receipt["labels"]["labelled"], receipt["labels"]["classes"]) == (60, 2)
    assert "Labels of 60 images in 2 classes steer the picks" in receipt["advice"]
    assert set(ranking["why"]) == {
        "like left",
        "like right",
        "unsure between left and right",
        "unsure between right and left",
    }
    ledger.append(store, "labelled", ids[:1], classes=[["other"]])
    corrected = selections.read_receipt(store, run(store, {"labels": "use"}, entries=2, number=2).key)
    assert corrected["label_classes"] != receipt["label_classes"]
    plain = selections.read_ranking(store, run(store, {"labels": "ignore"}, entries=2, number=3).key)
    assert plain["why"].null_count() == 60
    assert plain["sample_id"].to_list() != ranking["sample_id"].to_list()


def test_given_images_that_the_workspace_does_not_have_are_named(store: Store) -> None:
    known, wrong = samples()["sample_id"][3], "abc"
    assert run(store, {"similar_to": [{"sample_ids": [known]}]}).key
    with pytest.raises(InputError, match=r"similar_to: expected ids of samples.*found 1 others, 'abc' for one"):
        run(store, {"similar_to": [{"sample_ids": [known, wrong]}]})


def test_near_duplicates_are_told_as_the_encoder_measured_it_unless_the_recipe_says_otherwise(store: Store) -> None:
    def distance(selection: dict[str, object], **more: float) -> float:
        return float(selections.read_receipt(store, run(store, selection, **more).key)["near_duplicate_distance"])

    assert distance({}) == 0.25
    assert distance({}, near_copy_distance=0.3) == 0.3
    assert distance({"near_duplicate_distance": 0.1}, near_copy_distance=0.3) == 0.1
    scale = selections.read_receipt(store, run(store, {}).key)["scale"]
    assert distance({}, near_copy_distance=1.9) == pytest.approx(scale * 2 / 3)


def test_days_are_groups_and_a_missing_value_is_told_how_to_filter() -> None:
    times = ["2024-05-01T08:00:00", "2024-05-01T09:30:00", None]
    told = pl.DataFrame({"uri": ["a", "b", "c"], "taken_at": times, "metadata": ['{"wanted": 1}', None, None]})
    assert columns.groups_of(told, "taken_on") == ["2024-05-01", "2024-05-01", "(none)"]
    own = told.with_columns(metadata=pl.lit('{"taken_on": "monday"}'))
    assert columns.groups_of(own, "taken_on") == ["monday"] * 3
    with pytest.raises(InputError, match=r"filter those samples out, as `metadata\.wanted >= 0`"):
        columns.numbers_of(told, "wanted")


def test_a_receipts_ranking_is_made_again_without_a_trace(store: Store) -> None:
    ledger.append(store, "labelled", samples()["sample_id"].to_list()[:7])
    made = run(store, {"budget": 20}, entries=1)
    receipt = selections.read_receipt(store, made.key)
    before = sorted(str(path) for path in Path(store.root).rglob("*"))
    inputs = inputs_of(store, {"budget": 20}, entries=1)
    again = stage.make(store, inputs, scale=receipt["scale"], device="cpu")
    described = inputs.as_receipt()
    assert {name: receipt[name] for name in described} == described
    for name, table in (("ranking.parquet", again.ranking), ("ladder.parquet", again.ladder)):
        assert hashlib.sha256(storage.to_parquet(table)).hexdigest() == receipt["sha256"][name]
    assert sorted(str(path) for path in Path(store.root).rglob("*")) == before


@pytest.mark.parametrize("rows", [0, 1, 8192, 20_000])
def test_the_digest_of_columns_is_that_of_their_lists(rows: int) -> None:
    ids = pl.Series("id", [f'{row} é " \n \U0001f600' for row in range(rows)], pl.String)
    columns = [ids, pl.Series("none", [None] * rows, pl.String), ids.head(1)]
    assert digest_of_columns(columns) == digest_of([column.to_list() for column in columns])


def test_the_digest_of_columns_never_holds_a_text_of_all_rows() -> None:
    metadata = pl.Series("metadata", ["x" * 240], pl.String).new_from_index(0, 100_000)
    tracemalloc.start()
    try:
        digest_of_columns([metadata])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20e6  # of 24 MB in all: `digest_of` takes 75 MB


def test_a_pool_is_ranked_by_regions_from_so_many_samples_on(store: Store) -> None:
    """What the workspace then holds is what the engine gives from the vectors at hand, and the regions' files go."""
    selection = {"regions_from": 100, "region_size": 100, "head": 0}
    made = run(store, selection)
    ids = samples()["sample_id"]
    matrix = vectors.load(store, ENCODER, ids.to_list())
    with TemporaryDirectory() as folder:
        ranked = rank_by_regions(
            lambda: iter([(np.arange(ROWS), matrix)]),
            SelectionParams.model_validate(selection),
            sample_ids=ids,
            files=Files(open_store(folder), "regions"),
            engine=LocalEngine(1),
        )
    table, ladder = selections.read_ranking(store, made.key), selections.read_ladder(store, made.key)
    assert table["sample_id"].to_list() == ids.gather(ranked.rows).to_list()
    assert table["gain"].to_list() == ranked.gain.tolist()
    assert not store.exists(f"{made.key}/regions")
    at_once = selections.read_ladder(store, run(store, {"head": 0}, number=2).key)
    for percent in (10, 40, 100):
        assert ladder["coverage"][percent - 1] >= 0.98 * at_once["coverage"][percent - 1]
        assert ladder["random_coverage_mean"][percent - 1] == pytest.approx(
            at_once["random_coverage_mean"][percent - 1]
        )


def test_what_a_killed_ranking_by_regions_left_goes_with_the_next_one_that_ends(store: Store) -> None:
    """Also where that one has other inputs, and so a name of its own; files of its own it takes over."""
    selection: dict[str, object] = {"regions_from": 100, "region_size": 100}
    own = run(store, selection)
    for folder in (own.key, "selections/000001-aaaaaaaaaaaa"):
        store.write_bytes(f"{folder}/regions/dealt.npz", b"of a killed run")
    run(store, selection)
    assert list(Path(store.root).rglob("regions")) == []
    store.write_bytes("selections/000001-aaaaaaaaaaaa/regions/dealt.npz", b"of a killed run")
    run(store, {**selection, "budget": 7})
    assert list(Path(store.root).rglob("regions")) == []


def test_a_receipts_ranking_by_regions_is_made_again_without_a_trace(store: Store) -> None:
    selection: dict[str, object] = {"regions_from": 100, "region_size": 100}
    made = run(store, selection)
    before = sorted(path for path in Path(store.root).rglob("*"))
    again = stage.make(
        store, inputs_of(store, selection), scale=selections.read_receipt(store, made.key)["scale"], device="cpu"
    )
    assert again.ranking.equals(selections.read_ranking(store, made.key))
    assert sorted(path for path in Path(store.root).rglob("*")) == before


def test_what_regions_cannot_do_is_refused_before_the_long_stages() -> None:
    params = SelectionParams(objective="k-center", regions_from=100)
    with pytest.raises(ConfigError, match="objective 'k-center': expected coverage or probability-coverage for 120"):
        columns.check(samples(), params, settled=[])
    columns.check(samples(), params, settled=samples()["sample_id"].to_list()[:21])
