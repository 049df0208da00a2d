"""Refreshes of a pool that is labelled bit by bit, and to its end."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import make_jpeg, write_pictures
from tests.plain_refresh import files, ranking, refresh
from wtl_core.errors import InputError
from wtl_core.labelling import batches, cut, progress, skips
from wtl_core.labelling.batches import Asked
from wtl_core.pool import live_pool
from wtl_core.recipe.ingest import IngestParams
from wtl_core.recipe.recipe import Recipe
from wtl_core.report import status
from wtl_core.workspace import commits, ledger, selections, snapshots
from wtl_core.workspace.storage import Store


def test_labelled_samples_leave_the_ranking_and_exported_ones_keep_their_rank(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    order = ranking(tmp_path / "w")["sample_id"].to_list()
    store = Store(str(tmp_path / "w"))
    ledger.append(store, "labelled", order[:4])
    ledger.append(store, "exported", order[4:9])
    assert refresh(tmp_path / "w").counts.ranked == 60
    after = ranking(tmp_path / "w")["sample_id"].to_list()
    assert after[:5] == order[4:9]
    assert not set(order[:4]) & set(after)


def test_picks_that_leave_because_they_are_labelled_are_no_churn(source: Path, tmp_path: Path) -> None:
    first = refresh(tmp_path / "w", source)
    order = ranking(tmp_path / "w")["sample_id"].to_list()
    store = Store(str(tmp_path / "w"))
    ledger.append(store, "labelled", order[: first.counts.picks - 2])
    second = refresh(tmp_path / "w")
    before, after = set(order[first.counts.picks - 2 :][:2]), set(ranking(tmp_path / "w")["sample_id"].head(2))
    assert second.picks_kept == len(before & after) / len(before | after)
    ledger.append(store, "labelled", ranking(tmp_path / "w")["sample_id"].head(second.counts.picks).to_list())
    assert second.pick_changes is not None
    assert (second.pick_changes.open, second.pick_changes.stay + second.pick_changes.new) == (2, second.counts.picks)
    third = refresh(tmp_path / "w")
    assert third.picks_kept is None
    assert third.pick_changes == commits.PickChanges(open=0, stay=0, new=third.counts.picks)
    assert third.pick_changes.in_words() == f"no pick was open, {third.counts.picks} are new"
    page = (tmp_path / "w" / second.report).read_text()
    assert f"; {second.pick_changes.in_words()}." in page
    assert "Jaccard" not in page


def test_labels_in_the_source_change_no_rank(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(folder: Path, labels: list[int]) -> Path:
        folder.mkdir()
        rows = [{"bytes": make_jpeg(i), "path": f"{i}.jpg"} for i in range(30)]
        image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        pq.write_table(pa.table({"image": image, "label": labels}), folder / "x.parquet")
        return folder

    refresh(tmp_path / "w1", write(tmp_path / "s1", [i % 3 for i in range(30)]))
    refresh(tmp_path / "w2", write(tmp_path / "s2", [(i * 7) % 5 for i in range(30)]))
    assert ranking(tmp_path / "w1")["sample_id"].to_list() == ranking(tmp_path / "w2")["sample_id"].to_list()


def test_a_pool_that_is_labelled_to_the_end_is_a_success_with_nothing_left_to_label(
    source: Path, tmp_path: Path
) -> None:
    first = refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    ranked, rungs = ranking(tmp_path / "w"), selections.read_ladder(store, first.selection)
    ledger.append(store, "labelled", ranked["sample_id"].to_list())
    last = refresh(tmp_path / "w", source)
    assert (last.number, last.counts.ranked, last.counts.picks, last.picks_kept) == (2, 0, 0, None)
    assert (last.coverage, last.random_coverage) == ({}, {})
    assert ranking(tmp_path / "w").schema == ranked.schema
    assert ranking(tmp_path / "w").is_empty()
    assert selections.read_ladder(store, last.selection).equals(rungs.clear())
    said = status.read(store).to_json()["ranking"]
    assert said["stop_reason"] == "nothing left to label"
    assert said["advice"] == "No image is left to label: 64 are labelled. Add images or sources to go on."
    page = store.read_bytes(last.report).decode()
    assert "Nothing is left to label: 64 images are labelled." in page
    assert "No image is left to label: 64 are labelled." in page
    for point in ("500", "5%"):
        picks = cut.run(store, point)
        assert (picks.rows, picks.left_out) == ([], 0)
    before = files(tmp_path / "w")
    assert refresh(tmp_path / "w", source) == last
    assert files(tmp_path / "w") == before
    (source / "another.jpg").write_bytes(make_jpeg(1000))
    more = refresh(tmp_path / "w", source)
    assert (more.counts.ranked, more.picks_kept) == (1, None)


def test_what_the_filters_exclude_is_not_left_to_label_but_filters_that_exclude_all_are_refused(
    source: Path, tmp_path: Path
) -> None:
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    none = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"filters": ["width > 1000"]}})
    with pytest.raises(InputError, match="found 64 of which all are filtered out; relax the recipe's filters"):
        refresh(tmp_path / "w", source, recipe=none)
    ledger.append(store, "labelled", ranking(tmp_path / "w")["sample_id"].to_list()[:10])
    assert refresh(tmp_path / "w", source, recipe=none).counts.ranked == 0
    assert "10 are labelled and 54 excluded by the recipe" in status.read(store).to_json()["ranking"]["advice"]


def test_an_accuracy_goal_ends_the_picks_by_the_ledger_alone_and_as_progress_tells(tmp_path: Path) -> None:
    def with_goal(goal: float) -> Recipe:
        return Recipe.model_validate({"encoder": {"name": "pixels"}, "selection": {"accuracy_goal": goal}})

    root, folder = tmp_path / "w", write_pictures(tmp_path / "photos", count=200)
    store = Store(str(root))
    first = refresh(root, folder, recipe=with_goal(0.9))
    receipt = selections.read_receipt(store, first.selection)
    assert (first.counts.picks, receipt["stop"]["reason"]) == (200, "budget")
    told = "The accuracy goal of 90 % ends no picks yet, since accuracy is not known: it takes 40 labelled images that"
    assert told in receipt["advice"]
    assert told in str(status.read(store).to_json()["ranking"])
    ids = batches.hand_out(store, Asked(new=120, control="50")).table["sample_id"].to_list()
    classes = [["even"] if int(sample_id[0], 16) % 2 else ["odd"] for sample_id in ids]
    ledger.append(store, "labelled", ids[:100], classes=classes[:100])
    ledger.append(store, "labelled", ids[100:101], classes=[None])
    skips.skip(store, ids[101:102], "redundant")
    skips.skip(store, ids[102:103], "unusable")
    now = progress.run(store).accuracy
    assert now is not None
    shutil.copytree(root, tmp_path / "copy")
    goal = now.value + 0.02
    second = refresh(root, recipe=with_goal(goal))
    receipt = selections.read_receipt(store, second.selection)
    found = progress.run(store, goal=goal).goal
    assert found is not None
    assert found.more is not None
    assert 0 < found.more < found.left == 97
    assert receipt["accuracy_goal"] == found.to_json()
    assert (second.counts.picks, receipt["stop"]) == (found.more, {"picks": found.more, "reason": "accuracy_goal"})
    assert found.sentence() in receipt["advice"]
    copied = refresh(tmp_path / "copy", recipe=with_goal(goal), workers=2, part_images=7)
    assert (copied.selection, copied.counts) == (second.selection, second.counts)
    plain = refresh(root, recipe=Recipe.model_validate({"encoder": {"name": "pixels"}}))
    kept = ranking(tmp_path / "copy")["sample_id"].to_list()
    assert selections.read_ranking(store, plain.selection)["sample_id"].to_list() == kept
    assert selections.read_receipt(store, plain.selection)["accuracy_goal"] is None
    samples = live_pool.load(store, snapshots.read_snapshot(store, first.listing)).samples
    dark = {"ingest": IngestParams(filters=(f"brightness < {samples['brightness'].quantile(0.9)}",))}
    filtered = refresh(tmp_path / "copy", recipe=with_goal(goal).model_copy(update=dark))  # excludes controls too
    copy = Store(str(tmp_path / "copy"))
    found = progress.run(copy, goal=goal)
    assert found.controls < progress.run(store).controls
    assert found.goal is not None
    assert selections.read_receipt(copy, filtered.selection)["accuracy_goal"] == found.goal.to_json()
