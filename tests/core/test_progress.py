"""What labels so far show: accuracy on controls, picks against controls, and the classes."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import TINTS, build_source, make_jpeg, make_tinted, write_pictures
from tests.plain_refresh import SSL, ranking, refresh
from wtl_core.embedding import vectors
from wtl_core.errors import ConfigError, InputError
from wtl_core.labelling import batches, labels, progress, skips, split_state, splits
from wtl_core.labelling.batches import Asked
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe
from wtl_core.selection import accuracy
from wtl_core.selection.control_draw import control_ids
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.storage import Store, open_store

pytestmark = pytest.mark.usefixtures("two_threads")


def blobs(rows: int, seed: int) -> tuple[np.ndarray, list[list[str]]]:
    """Vectors in three clusters that overlap, and their classes."""
    draw = np.random.default_rng(seed)
    codes = draw.integers(0, 3, rows)
    drawn = np.random.default_rng(5).normal(size=(3, 16))[codes] + 1.5 * draw.normal(size=(rows, 16))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32), [[f"c{code}"] for code in codes]


def test_accuracy_is_that_on_images_which_taught_nothing() -> None:
    unit, classes = blobs(1200, seed=0)
    is_control = np.arange(1200) % 3 == 0
    picks = np.flatnonzero(~is_control)
    found = accuracy.measure(unit, classes, is_control)
    others, theirs = blobs(4000, seed=1)
    truth = accuracy.measure(
        np.concatenate([unit[~is_control], others]),
        [*np.array(classes, object)[~is_control], *theirs],
        np.arange(800 + 4000) >= 800,
    )
    assert found.share is not None
    assert truth.share is not None
    assert (found.drawn, found.taught) == (400, 800)
    assert found.share.low < truth.share.value < found.share.high
    assert found.share.high - found.share.low < 0.1
    compared = progress.compare(unit, classes, is_control, picks)
    assert compared is not None
    assert compared.labels == 320
    assert compared.difference.low <= 0 <= compared.difference.high  # the picks are random ones here
    assert compared.difference.value == pytest.approx(compared.by_picks - compared.by_controls)


def test_nothing_that_is_judged_on_teaches() -> None:
    """Labels at random and more dimensions than rows: a probe knows what it was taught by heart, and nothing else."""
    draw = np.random.default_rng(0)
    unit = draw.normal(size=(600, 1024)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    classes = [[f"c{code}"] for code in draw.integers(0, 4, 600)]
    is_control = np.arange(600) % 2 == 0
    share_found = accuracy.measure(unit, classes, is_control).share
    compared = progress.compare(unit, classes, is_control, np.flatnonzero(~is_control))
    assert share_found is not None
    assert compared is not None
    for share in (share_found.value, compared.by_picks, compared.by_controls):
        assert share == pytest.approx(0.25, abs=0.1)  # four standard errors of 300 images


def test_picks_that_show_one_class_alone_teach_less_than_controls() -> None:
    unit, classes = blobs(900, seed=0)
    is_control = np.arange(900) % 3 == 0
    of_one_class = np.array([row for row in range(900) if not is_control[row] and classes[row] == ["c1"]])
    compared = progress.compare(unit, classes, is_control, of_one_class)
    assert compared is None  # fewer picks than controls
    others = np.setdiff1d(np.flatnonzero(~is_control), of_one_class)
    compared = progress.compare(unit, classes, is_control, np.concatenate([of_one_class, others]))
    assert compared is not None
    assert compared.difference.high < 0


def test_as_many_picks_as_controls_teach_in_every_part() -> None:
    unit, classes = blobs(300, seed=0)
    is_control = np.arange(300) < 101  # parts of 21 and 20
    compared = progress.compare(unit, classes, is_control, np.arange(101, 181))
    assert compared is not None
    assert compared.labels == 80
    compared = progress.compare(unit, classes, is_control, np.arange(101, 180))
    assert compared is None


def test_progress_of_a_workspace(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "w"))
    with pytest.raises(ConfigError, match="expected a ranking, found none yet"):
        progress.run(store)
    refresh(tmp_path / "w", build_source(tmp_path / "source", count=200))
    assert progress.run(store).classes.is_empty()
    batch = batches.hand_out(store, Asked(new=150, control="60"))
    ids = batch.table["sample_id"].to_list()
    classes = [["even"] if int(sample_id[1], 16) % 2 else ["odd"] for sample_id in ids]
    ledger.append(store, "labelled", ids[:20], classes=classes[:20])
    few = progress.run(store)
    assert (few.labelled, few.known, few.accuracy, few.forecast) == (20, 20, None, None)
    ledger.append(store, "labelled", ids[20:], classes=classes[20:])
    ledger.append(store, "labelled", ids[:1], classes=[None])
    found = progress.run(store, more=50)
    drawn = set(control_ids(ledger.read(store), ids))
    assert (found.labelled, found.known) == (len(ids), len(ids) - 1)
    assert found.controls == len(drawn.difference(ids[:1]).intersection(ids))
    assert found.accuracy is not None
    assert found.accuracy.low < 0.5 < found.accuracy.high  # classes that no vector shows
    assert found.forecast is not None
    assert found.forecast == accuracy.forecast(found.accuracy, found.known - found.controls, 50)
    assert sorted(found.classes["class"]) == ["even", "odd"]
    assert found.classes["labels"].sum() == len(ids) - 1
    assert found.classes["pool_low"].null_count() == 0
    assert found.short == []
    assert found.to_json()["classes"][0]["class"] in ("even", "odd")


@pytest.fixture(scope="module")
def of_200(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace of 200 images."""
    folder = tmp_path_factory.mktemp("progress")
    refresh(folder / "w", write_pictures(folder / "source", count=200))
    return folder / "w"


@pytest.fixture
def store(of_200: Path, tmp_path: Path) -> Store:
    shutil.copytree(of_200, tmp_path / "w")
    return Store(str(tmp_path / "w"))


def classes_of(ids: Sequence[str]) -> list[list[str]]:
    """Classes that no vector shows."""
    return [["even"] if int(sample_id[1], 16) % 2 else ["odd"] for sample_id in ids]


def label(store: Store, ids: Sequence[str]) -> None:
    ledger.append(store, "labelled", ids, classes=classes_of(ids))


def test_the_first_picks_of_batches_are_compared_and_no_other_labels(store: Store) -> None:
    ranked = ranking(Path(store.root))["sample_id"].to_list()
    label(store, ranked[100:180])  # of the user's own choice, or listed by `wtl cut`
    label(store, batches.hand_out(store, Asked(new=40, control="40")).table["sample_id"].to_list())
    alone = progress.run(store)
    assert alone.accuracy is not None
    assert (alone.picks, alone.comparison) == (0, None)
    assert alone.taught >= 40
    picks = batches.hand_out(store, Asked(new=80)).table["sample_id"].to_list()
    label(store, picks[40:])
    label(store, picks[:40])  # back later
    found = progress.run(store)
    assert (found.known, found.picks, found.controls + found.taught) == (200, 80, 200)
    last = commits.latest(store)
    assert last is not None
    ids = sorted(ranked)
    draw = set(control_ids(ledger.read(store), ids))
    unit, is_drawn = vectors.load(store, last.encoder, ids), np.array([sample_id in draw for sample_id in ids])
    in_order = np.array([ids.index(sample_id) for sample_id in picks])
    assert found.accuracy == accuracy.measure(unit, classes_of(ids), is_drawn).share
    assert found.comparison == progress.compare(unit, classes_of(ids), is_drawn, in_order)
    assert found.comparison is not None
    assert found.comparison.labels == found.compared


def test_the_forecast_starts_from_the_labels_that_taught(store: Store) -> None:
    label(store, batches.hand_out(store, Asked(new=140, control="70")).table["sample_id"].to_list())
    found = progress.run(store, more=50)
    assert found.accuracy is not None
    assert (found.known, found.controls, found.taught) == (140, 70, 70)
    assert found.forecast == accuracy.forecast(found.accuracy, 70, 50)
    rest = progress.run(store, more=1000).forecast
    assert rest is not None
    assert rest.more == 60  # all that are left
    label(store, ranking(Path(store.root))["sample_id"].to_list())
    assert progress.run(store).forecast is None


def test_the_draw_ends_before_an_image_that_is_not_labelled_and_passes_one_of_no_known_class(store: Store) -> None:
    ids = batches.hand_out(store, Asked(new=60, control="60")).table["sample_id"].to_list()
    label(store, [*ids[:20], *ids[21:]])
    found = progress.run(store)
    assert (found.controls, found.missing, found.missing_out, found.behind, found.unknown) == (20, 1, 1, 39, 0)
    ledger.append(store, "labelled", [ids[20]])
    found = progress.run(store)
    assert (found.controls, found.missing, found.missing_out, found.behind, found.unknown) == (59, 0, 0, 0, 1)


def test_what_came_to_the_pool_later_is_drawn_before_older_controls_count_again(tmp_path: Path) -> None:
    root, folder = tmp_path / "w", write_pictures(tmp_path / "photos", count=60)
    refresh(root, folder)
    store = Store(str(root))
    label(store, batches.hand_out(store, Asked(new=30, control="30")).table["sample_id"].to_list())
    for seed in range(100, 160):
        (folder / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    refresh(root)
    label(store, batches.hand_out(store, Asked(new=20)).table["sample_id"].to_list())
    found = progress.run(store)
    assert (found.labelled, found.controls + found.behind <= 50) == (50, True)
    assert found.behind > 0
    assert (found.missing > 0, found.missing_out) == (True, 0)
    rest = Asked(new=found.missing, control=str(found.missing))
    label(store, batches.hand_out(store, rest).table["sample_id"].to_list())
    whole = progress.run(store)
    assert (whole.missing, whole.behind) == (0, 0)
    assert whole.controls == found.controls + found.behind + found.missing


def test_images_that_left_the_pool_are_no_part_of_the_draw(tmp_path: Path) -> None:
    root, folder = tmp_path / "w", write_pictures(tmp_path / "photos", count=60)
    refresh(root, folder)
    store = Store(str(root))
    batch = batches.hand_out(store, Asked(new=40, control="40"))
    label(store, batch.table["sample_id"].to_list())
    assert progress.run(store).controls == 40
    for uri in batch.table["uri"][:10]:
        Path(uri).unlink()
    refresh(root)
    found = progress.run(store)
    assert (found.labelled, found.known, found.controls) == (40, 40, 30)


def test_images_that_filters_exclude_are_no_part_of_the_draw(tmp_path: Path) -> None:
    root, folder = tmp_path / "w", write_pictures(tmp_path / "photos", count=60)
    first = refresh(root, folder)
    store = Store(str(root))
    ids = batches.hand_out(store, Asked(new=40, control="40")).table["sample_id"].to_list()
    label(store, ids)
    samples = live_pool.load(store, snapshots.read_snapshot(store, first.listing)).samples
    middle = samples["brightness"].median()
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"filters": [f"brightness > {middle}"]}})
    refresh(root, recipe=recipe)
    bright = samples.filter(pl.col("brightness") > middle, pl.col("sample_id").is_in(ids)).height
    found = progress.run(store)
    assert (found.labelled, found.known, found.controls) == (40, 40, bright)
    assert 0 < bright < 40


def test_what_was_handed_out_for_a_side_of_the_split_is_no_pick(tmp_path: Path) -> None:
    root = tmp_path / "w"
    refresh(root, write_pictures(tmp_path / "photos", count=120))
    store = Store(str(root))
    splits.make(store, split_state.Asked(50.0, 0.0, 50.0))
    label(store, batches.hand_out(store, Asked(new=40, split="test")).table["sample_id"].to_list())
    split_state.undo(store)
    label(store, batches.hand_out(store, Asked(new=10)).table["sample_id"].to_list())
    found = progress.run(store)
    assert (found.known, found.picks) == (50, 10)


def test_the_next_picks_are_counted_by_class_without_those_labelled_since(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    colour_of = {}
    for number, colour in enumerate(TINTS):
        for seed in range(20):
            file = tmp_path / "photos" / f"{colour}-{seed}.png"
            file.write_bytes(make_tinted(100 * number + seed, TINTS[colour]))
            colour_of[str(file)] = f"{colour} and so on"
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "selection": {"budget": 12, "labels": "use"}})
    refresh(tmp_path / "w", tmp_path / "photos", recipe=recipe)
    store = Store(str(tmp_path / "w"))
    first = ranking(tmp_path / "w").head(24)
    classes = [[colour_of[uri]] for uri in first["uri"]]
    ledger.append(store, "labelled", first["sample_id"].to_list(), classes=classes)
    refresh(tmp_path / "w", recipe=recipe)
    ranked = ranking(tmp_path / "w")
    assert set(ranked["why"].head(12)) <= {f"like {colour} and so on" for colour in TINTS}
    now, later = (ranked["why"].slice(start, 12).str.strip_prefix("like ") for start in (0, 12))
    assert next_of(progress.run(store)) == Counter(now.to_list())
    assert Counter(now.to_list()) != Counter(later.to_list())
    label(store, ranked["sample_id"].head(8).to_list())
    skips.skip(store, ranked["sample_id"].slice(8, 4).to_list(), "redundant")
    assert next_of(progress.run(store)) == Counter(later.to_list())


def next_of(found: progress.Progress) -> dict[str, float]:
    return {name: count for name, count in found.classes.select("class", "next").iter_rows() if count}


def test_classes_of_images_that_the_encoder_has_no_vectors_of_are_counted(tmp_path: Path) -> None:
    root, folder = tmp_path / "w", write_pictures(tmp_path / "photos", count=20)
    refresh(root, folder)
    store = Store(str(root))
    ids = ranking(root)["sample_id"].to_list()
    ledger.append(store, "labelled", ids[:5], classes=[["a"]] * 5)
    for uri in ranking(root)["uri"][:3]:
        Path(uri).unlink()
    refresh(root, recipe=Recipe.model_validate(SSL))
    last = commits.latest(store)
    assert last is not None
    assert not set(vectors.existing_ids(store, last.encoder)).intersection(ids[:3])
    found = progress.run(store)
    assert (found.labelled, found.known, found.taught) == (5, 5, 2)
    assert found.classes.select("class", "labels").rows() == [("a", 5)]
    labels.as_text(labels.listed(store)).write_csv(tmp_path / "listed.csv")
    assert labels.add(store, tmp_path / "listed.csv").found == 5
    assert labels.undo(store, ids[:1]).samples == 1
    (tmp_path / "unknown.txt").write_text("0" * 64)
    with pytest.raises(InputError, match="names no sample"):
        labels.add(store, tmp_path / "unknown.txt")


def test_the_labels_to_a_goal_are_those_of_the_forecast(store: Store) -> None:
    label(store, batches.hand_out(store, Asked(new=100, control="50")).table["sample_id"].to_list())
    assert progress.run(store).goal is None
    found = progress.run(store, goal=0.97)
    assert found.accuracy is not None
    known = accuracy.Accuracy(found.accuracy, found.controls, found.taught)
    assert found.goal == accuracy.labels_for(0.97, known, left=100)
    assert found.to_json()["goal"]["left"] == 100
