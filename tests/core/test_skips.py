"""Skipped images: what they leave out, cover and change, beside pools without them, and that undo restores all."""

import io
import shutil
from pathlib import Path

import polars as pl
import pytest
from PIL import Image, ImageFilter

from tests.conftest import make_jpeg, write_pictures
from tests.plain_refresh import ranking, refresh
from wtl_core.embedding import similar, vectors
from wtl_core.errors import ConfigError
from wtl_core.labelling import batches, cut, labels, skips, split_state, splits
from wtl_core.labelling.batches import Asked
from wtl_core.report import decision, status
from wtl_core.selection.control_draw import Draw, control_ids, random_draw
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.ledger import Reason
from wtl_core.workspace.storage import Store

ALIKE = "alike.jpg"


def write_alike(folder: Path, file: Path) -> None:
    """A softened copy of an image, near it by its vector and of other pixels."""
    with Image.open(file) as image:
        image.filter(ImageFilter.GaussianBlur(0.4)).save(folder / ALIKE, quality=95)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `photos`, of 40 images and a near-duplicate of the first pick, and `w`, refreshed twice."""
    folder = tmp_path_factory.mktemp("skips")
    photos = write_pictures(folder / "photos", count=40)
    refresh(folder / "w", photos)
    write_alike(photos, Path(ranking(folder / "w")["uri"][0]))
    refresh(folder / "w", photos)
    return folder


@pytest.fixture
def photos(refreshed: Path) -> Path:
    return refreshed / "photos"


@pytest.fixture
def store(refreshed: Path, tmp_path: Path) -> Store:
    return copy_of(refreshed, tmp_path / "w")


def copy_of(refreshed: Path, target: Path) -> Store:
    shutil.copytree(refreshed / "w", target)
    return Store(str(target))


def ranked(store: Store) -> pl.DataFrame:
    return ranking(Path(store.root))


def ids_of(store: Store) -> list[str]:
    return ranked(store)["sample_id"].to_list()


def rank_of_alike(store: Store) -> int:
    return int(ranked(store).filter(pl.col("uri").str.ends_with(ALIKE))["rank"].item())


def test_skips_of_sample_ids_read_no_names(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_given: object, **_more: object) -> pl.DataFrame:
        raise AssertionError("names are read")

    ids = ids_of(store)[:3]
    monkeypatch.setattr("wtl_core.labelling.sample_names.match_in_pool", refuse)
    assert skips.skip(store, ids, "redundant").named == 3
    assert skips.undo(store, ids[:1]).changed == 1
    with pytest.raises(AssertionError, match="names are read"):
        skips.skip(store, [*ids, "no id"], "redundant")


def test_an_unusable_image_leaves_the_ranking_of_a_pool_without_it(
    refreshed: Path, store: Store, tmp_path: Path
) -> None:
    first = ranked(store)
    done = skips.skip(store, [Path(first["uri"][0]).name, first["sample_id"][7]], "unusable")
    assert (done.named, done.copies, done.changed, done.labelled, done.entry) == (2, 0, 2, 0, 1)
    commit = refresh(Path(store.root))
    assert (commit.counts.ranked, commit.counts.samples, commit.counts.skipped) == (39, 41, 2)
    assert commit.changes is not None
    assert (commit.changes.skipped, commit.changes.labelled) == (2, 0)
    assert "2 skipped" in decision.what_changed(commit)
    shutil.copytree(refreshed / "photos", tmp_path / "photos")
    without = copy_of(refreshed, tmp_path / "without")
    for row in (0, 7):
        (tmp_path / "photos" / Path(first["uri"][row]).name).unlink()
    refresh(tmp_path / "without", tmp_path / "photos", forget=[str(refreshed / "photos")])
    assert ranked(store).drop("uri").equals(ranked(without).drop("uri"))


@pytest.mark.parametrize("reason", ["unusable", "redundant"])
def test_a_skipped_image_that_comes_back_in_other_bytes_stays_away(
    refreshed: Path, store: Store, tmp_path: Path, reason: Reason
) -> None:
    first = ranked(store)
    photos = Path(shutil.copytree(refreshed / "photos", tmp_path / "photos"))
    skips.skip(store, [first["sample_id"][0]], reason)
    with Image.open(first["uri"][0]) as image:
        image.save(photos / "again.png")
    commit = refresh(Path(store.root), photos, forget=[str(refreshed / "photos")])
    assert not ranked(store)["uri"].str.ends_with("again.png").any()
    assert (commit.counts.samples, commit.counts.ranked, commit.counts.skipped) == (42, 40, 2)
    skips.undo(store)
    assert refresh(Path(store.root)).counts.ranked == 42


def test_so_it_does_where_it_is_held_out_for_test(refreshed: Path, store: Store, tmp_path: Path) -> None:
    photos = Path(shutil.copytree(refreshed / "photos", tmp_path / "photos"))
    splits.make(store, split_state.asked_of(store, (None, None, 25), None))
    sides = split_state.listed(store).filter(split="test")
    skips.skip(store, sides["sample_id"].to_list()[:1], "unusable")
    with Image.open(sides["uri"][0]) as image:
        image.save(photos / "again.png")
    refresh(Path(store.root), photos, forget=[str(refreshed / "photos")])
    assert split_state.listed(store).filter(pl.col("uri").str.ends_with("again.png"))["split"].to_list() == ["test"]
    offered = cut.run(store, "100%", split="test").table["uri"]
    assert len(offered) == sides.height - 1
    assert not offered.str.ends_with("again.png").any()


def test_a_redundant_image_covers_as_a_labelled_one_whose_class_is_not_known(
    refreshed: Path, store: Store, tmp_path: Path
) -> None:
    reference = copy_of(refreshed, tmp_path / "reference")
    ids = ids_of(store)
    for each in (store, reference):
        classes = [("cat",), ("dog",)] * 5
        ledger.append(each, "labelled", ids[20:30], classes=classes)
    skips.skip(store, [ids[0], ids[3]], "redundant")
    ledger.append(reference, "labelled", [ids[0], ids[3]])
    ours, theirs = refresh(Path(store.root)), refresh(Path(reference.root))
    assert ranked(store).equals(ranked(reference))
    assert (ours.counts.ranked, ours.counts.skipped, theirs.counts.skipped) == (29, 2, 0)
    assert ours.changes is not None
    assert (ours.changes.labelled, ours.changes.skipped) == (10, 2)
    assert ours.coverage == theirs.coverage
    assert len(ledger.labels(ledger.read(store))) == 10
    assert "beside 10 that are there" in decision.read(store, ours.selection).sentence


def test_what_is_like_an_unusable_image_may_be_picked_and_what_is_like_a_redundant_one_is_covered(
    refreshed: Path, store: Store, tmp_path: Path
) -> None:
    first = ids_of(store)[0]
    assert rank_of_alike(store) > 30  # behind the first pick that it is a near-duplicate of
    skips.skip(store, [first], "unusable")
    refresh(Path(store.root))
    assert rank_of_alike(store) < 5
    other = copy_of(refreshed, tmp_path / "other")
    skips.skip(other, [first], "redundant")
    refresh(Path(other.root))
    assert rank_of_alike(other) > 10


def test_undo_brings_back_the_ranking_row_for_row_and_nothing_is_embedded_or_read_again(store: Store) -> None:
    before = ranked(store)
    last = commits.latest(store)
    assert last is not None
    for reason in ("unusable", "redundant"):
        skips.skip(store, before["sample_id"].to_list()[:3], reason)
        skipped = refresh(Path(store.root))
        assert skipped.counts.ranked == 38
        skips.undo(store)
        undone = refresh(Path(store.root))
        assert ranked(store).equals(before)
        assert (skipped.vector_table_version, undone.vector_table_version) == (last.vector_table_version,) * 2
        assert (undone.listing, undone.encoder, undone.counts.skipped) == (last.listing, last.encoder, 0)
    number = undone.number
    assert refresh(Path(store.root)).number == number  # nothing new: nothing is written


def test_the_next_picks_move_up_at_once(store: Store) -> None:
    ids = ids_of(store)
    skips.skip(store, [ids[0]], "unusable")
    skips.skip(store, [ids[2]], "redundant")
    picks = cut.run(store, "5")
    assert picks.table["sample_id"].to_list() == [ids[1], *ids[3:7]]
    assert picks.left_out == 2
    batch = batches.hand_out(store, Asked(new=4, control="50%"))
    assert not {ids[0], ids[2]} & set(batch.table["sample_id"])
    last = commits.latest(store)
    assert last is not None
    shown = [row["sample_id"] for row in similar.run(store, last, ids[1], count=40)]
    assert sorted([*shown, *ids[:3]]) == sorted(ids)
    assert status.read(store).to_json()["skipped"] == {"unusable": 1, "redundant": 1}
    assert status.read(store).to_json()["skipped_since"] == 2


def test_a_skipped_image_of_a_batch_is_out_no_more_and_not_in_its_file_again(store: Store) -> None:
    batch = batches.hand_out(store, Asked(new=6))
    ids = batch.table["sample_id"].to_list()
    skips.skip(store, [ids[1]], "unusable")
    ledger.append(store, "labelled", ids[3:5])
    assert batches.listed(store).select("images", "back", "skipped", "out").row(0) == (6, 2, 1, 3)
    again = batches.hand_out(store, Asked(new=6))
    assert (again.name, again.is_new) == (batch.name, False)
    assert again.table.equals(batch.table.filter(pl.col("place") != 2))
    skips.undo(store)
    assert batches.listed(store).select("skipped", "out").row(0) == (0, 4)
    assert batches.hand_out(store, Asked(new=6)).table.equals(batch.table)


def test_while_an_image_is_skipped_its_label_does_not_count_whichever_came_first(store: Store, tmp_path: Path) -> None:
    ids = ids_of(store)
    file = tmp_path / "t.csv"
    file.write_text(f"sample_id,label\n{ids[0]},cat\n{ids[1]},dog\n")
    assert labels.add(store, file).added == 2
    assert skips.skip(store, [ids[0]], "unusable").labelled == 1
    assert ledger.sample_ids(ledger.read(store), "labelled") == [ids[1]]
    assert labels.listed(store)["sample_id"].to_list() == [ids[1]]
    again = labels.add(store, file)
    assert (again.added, again.skipped, again.entry) == (0, 1, 0)
    file.write_text(f"sample_id,label\n{ids[0]},tram\n")
    assert labels.add(store, file).corrected == 1
    assert ledger.sample_ids(ledger.read(store), "labelled") == [ids[1]]
    assert refresh(Path(store.root)).counts.ranked == 39
    skips.undo(store, [ids[0]])
    assert ledger.labels(ledger.read(store)).filter(sample_id=ids[0])["classes"].to_list() == [["tram"]]


def test_the_random_draw_is_of_the_pool_without_unusable_images_and_redundant_ones_do_not_end_it(store: Store) -> None:
    pool = ids_of(store)
    batch = batches.hand_out(store, Asked(new=10, control="10"))
    order = control_ids(ledger.read(store), pool)
    assert set(order) == set(batch.table["sample_id"])
    ledger.append(store, "labelled", [*order[:3], *order[5:]])
    assert random_draw(ledger.read(store), pool).ids == order[:3]
    skips.skip(store, [order[3]], "unusable")
    skips.skip(store, [order[4]], "redundant")
    draw = random_draw(ledger.read(store), pool)
    assert draw == Draw([*order[:3], *order[4:]], [], [])
    skips.undo(store)
    assert random_draw(ledger.read(store), pool).missing == [order[4]]


def test_images_with_the_same_pixels_share_the_fate_of_the_one_that_is_named(tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", count=10)
    with Image.open(io.BytesIO(make_jpeg(100))) as image:
        for ending in ("png", "bmp", "tiff"):
            image.save(photos / f"same.{ending}")
    refresh(tmp_path / "w", photos)
    store = Store(str(tmp_path / "w"))
    done = skips.skip(store, ["same.bmp"], "unusable")
    assert (done.named, done.copies, done.changed) == (1, 2, 3)
    assert refresh(tmp_path / "w").counts.ranked == 10
    assert sorted(Path(uri).name for uri in skips.listed(store)["uri"]) == ["same.bmp", "same.png", "same.tiff"]
    back = skips.undo(store, ["same.png"])
    assert (back.named, back.copies, back.changed) == (1, 2, 3)
    assert skips.listed(store).is_empty()


def test_the_last_reason_counts_and_undo_gives_the_one_before_it(store: Store) -> None:
    ids = ids_of(store)
    skips.skip(store, ids[:3], "unusable")
    changed = skips.skip(store, ids[1:4], "redundant")
    assert (changed.changed, changed.entry) == (3, 2)
    assert dict(skips.listed(store).select("sample_id", "reason").rows()) == {
        ids[0]: "unusable",
        **dict.fromkeys(ids[1:4], "redundant"),
    }
    assert skips.skip(store, ids[1:4], "redundant") == skips.Skipped(3, 0, 0, 0, 0)
    skips.undo(store)
    assert set(skips.listed(store)["reason"]) == {"unusable"}
    assert set(skips.listed(store)["sample_id"]) == set(ids[:3])
    skips.undo(store, [ids[0]])
    skips.undo(store)
    assert skips.listed(store).is_empty()


def test_names_that_fit_no_image_or_several_enter_nothing(store: Store, photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected names of one image each, found others \('no\.jpg'\)"):
        skips.skip(store, ["1.jpg", "no.jpg"], "unusable")
    with pytest.raises(ConfigError, match="expected skipped images, found none; nothing is undone"):
        skips.undo(store)
    skips.skip(store, [str(photos / "1.jpg")], "unusable")
    with pytest.raises(ConfigError, match=r"expected names of skipped images, found others \('2\.jpg'\)"):
        skips.undo(store, ["1.jpg", "2.jpg"])
    assert ledger.length(store) == 1


def test_a_pool_that_is_skipped_to_the_end_is_a_success_with_nothing_left_to_label(store: Store) -> None:
    ids = ids_of(store)
    skips.skip(store, ids[:30], "unusable")
    skips.skip(store, ids[30:], "redundant")
    assert refresh(Path(store.root)).counts.ranked == 0
    advice = status.read(store).to_json()["ranking"]["advice"]
    assert advice == "No image is left to label: 0 are labelled and 41 skipped. Add images or sources to go on."


def test_a_redundant_image_that_left_the_pool_covers_on_and_keeps_its_vector(
    refreshed: Path, store: Store, tmp_path: Path
) -> None:
    shutil.copytree(refreshed / "photos", tmp_path / "photos")
    first = ranked(store).row(0, named=True)
    skips.skip(store, [first["sample_id"]], "redundant")
    (tmp_path / "photos" / Path(first["uri"]).name).unlink()
    last = refresh(Path(store.root), tmp_path / "photos", forget=[str(refreshed / "photos")])
    maintenance.run(store, keep=1)
    assert first["sample_id"] in set(vectors.existing_ids(store, last.encoder))
    assert rank_of_alike(store) > 10
    assert skips.listed(store)["uri"].to_list() == [None]
    assert last.counts.skipped == 0  # of the pool
