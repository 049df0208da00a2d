"""The sentence that decides, against a ladder whose figures are worked out by hand, and the one about what changed."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tests.conftest import make_jpeg
from tests.plain_refresh import ranking, refresh
from wtl_core.report import decision, status, summary
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.storage import Store

NOTHING_LEFT = "Nothing is left to label: 9 images are labelled."


def ladder(rows: int, *, coverage: np.ndarray | None = None) -> pl.DataFrame:
    """Coverage is 0.5 at once and 1 at the end of a straight line; four random images cover as much as one of ours."""
    percent = np.arange(1, 101)
    count = np.ceil(percent * rows / 100).astype(int)
    covered = 0.5 + 0.5 * count / rows if coverage is None else coverage
    return pl.DataFrame({"percent": percent, "count": count, "coverage": covered, "equivalent_random_count": 4 * count})


@pytest.mark.parametrize(
    ("picks", "labelled", "sentence"),
    [
        (
            100,
            0,
            "100 labels cover as much as 400 random ones: 55 % of what labelling everything would. 100 more: 60 %.",
        ),
        (
            105,
            0,
            "105 labels cover as much as 420 random ones: 55 % of what labelling everything would. 105 more: 60 %.",
        ),
        (
            100,
            1,
            "100 labels more, beside 1 that is there, cover as much as 400 random ones: 55 % of what labelling "
            "everything would. 100 more: 60 %.",
        ),
        (
            3,
            0,
            "Measured from 1 % on: 10 labels cover as much as 40 random ones: 50 % of what labelling everything would. "
            "10 more: 51 %.",
        ),
        (
            999,
            0,
            "999 labels cover as much as 3,996 random ones: 99 % of what labelling everything would. 1 more: 100 %.",
        ),
        (
            1000,
            0,
            "All 1,000 images are picked. 50 labels cover as much as 200 random ones: 52 % of what labelling "
            "everything would. 50 more: 55 %.",
        ),
        (0, 0, "No image is picked: the stop condition holds already."),
    ],
)
def test_the_sentence_says_what_the_ladder_measured(picks: int, labelled: int, sentence: str) -> None:
    assert decision.decide(ladder(1000), picks=picks, rows=1000, labelled=labelled).sentence == sentence


@pytest.mark.parametrize(
    ("settled", "labelled", "begins"),
    [
        (4, 0, "96 labels, with 4 that were labelled or skipped since, cover as much as 400 random ones: 55 %"),
        (1, 0, "99 labels, with 1 that was labelled or skipped since, cover"),
        (4, 2, "96 labels more, beside 2 that are there, with 4 that were labelled or skipped since, cover as much"),
    ],
)
def test_what_was_labelled_or_skipped_since_is_told_beside_the_labels_to_come(
    settled: int, labelled: int, begins: str
) -> None:
    found = decision.decide(ladder(1000), picks=100, rows=1000, labelled=labelled, settled=settled)
    assert found.sentence.startswith(begins)
    assert found.labels == 100 - settled


def test_the_figures_are_beside_the_sentence() -> None:
    found = decision.decide(ladder(1000), picks=200, rows=1000, labelled=0)
    assert (found.labels, found.random_labels, found.reached) == (200, 800, 0.6)
    assert (found.more, found.reached_with_more) == (200, 0.7)


def test_a_small_pool_in_which_several_per_cents_are_one_pick() -> None:
    found = decision.decide(ladder(3), picks=1, rows=3, labelled=0)
    assert (found.labels, found.more) == (1, 1)
    assert found.sentence.startswith("1 label covers as much as 4 random ones: 67 %")


def test_what_cannot_be_said_is_said() -> None:
    alike = decision.decide(ladder(100, coverage=np.zeros(100)), picks=5, rows=100, labelled=0)
    assert alike.sentence == "5 are picked; the pool is too small or too much alike to say what they cover."
    assert decision.decide(ladder(100).clear(), picks=0, rows=0, labelled=9).sentence == NOTHING_LEFT
    assert (alike.labels, alike.reached) == (0, 0.0)


def test_a_refresh_tells_what_came_and_went_and_who_was_refused(source: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "w"))
    first = refresh(tmp_path / "w", source)
    assert decision.what_changed(first) == ""
    assert first.changes is not None
    assert (first.changes.added, first.changes.refused, first.changes.gone) == (64, 1, 0)
    (source / "new.jpg").write_bytes(make_jpeg(1000))
    (source / "newer.jpg").write_bytes(make_jpeg(1001))
    (source / "cut off.jpg").write_bytes(make_jpeg(1002)[:300])
    (source / "loose" / "5.jpg").unlink()
    ledger.append(store, "labelled", ranking(tmp_path / "w")["sample_id"].head(3).to_list())
    assert status.read(store).labelled_since == 3
    second = refresh(tmp_path / "w", source)
    assert second.changes == commits.Changes(
        added=2, gone=1, refused=1, refused_examples=[(f"{source}/cut off.jpg", "truncated")], labelled=3
    )
    assert second.pick_changes is not None
    came = "+2 images, -1, 1 refused (cut off.jpg: truncated), 3 labelled"
    told = f"Since refresh 1: {came}; {second.pick_changes.in_words()}."
    assert decision.what_changed(second) == told
    shown = summary.summary(store, second, is_new=True)
    assert (shown.changed, shown.refresh) == (told, 2)
    page = store.read_bytes(second.report).decode()
    assert told in page
    assert shown.decision.sentence in page
    assert status.read(store).decision == shown.decision
    assert status.read(store).labelled_since == 0

    ids = ledger.sample_ids(ledger.read(store), "labelled")
    ledger.append(store, "labelled", ids[:2], classes=[["cat"], ["dog"]])
    ledger.append(store, "unlabelled", ids[2:])
    third = refresh(tmp_path / "w", source)
    assert decision.what_changed(third).startswith("Since refresh 2: 2 with other classes, labels of 1 taken back; ")

    ledger.append(store, "exported", ranking(tmp_path / "w")["sample_id"].sample(5, seed=0).to_list())
    fourth = refresh(tmp_path / "w", source)
    assert decision.what_changed(fourth).startswith("Since refresh 3: 5 handed out; ")


def test_a_commit_from_before_changes_were_counted_says_nothing_of_them(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    (source / "new.jpg").write_bytes(make_jpeg(1000))
    second = refresh(tmp_path / "w", source)
    assert decision.what_changed(second.model_copy(update={"changes": None})) == ""
