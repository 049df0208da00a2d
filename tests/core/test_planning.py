"""Sources are listed once for each run: a plan that is made already is followed, unless the workspace has moved on."""

from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import make_jpeg
from tests.plain_refresh import ranking, refresh
from wtl_core import pipeline
from wtl_core.labelling import keeps, skips
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import planning
from wtl_core.shards import discover
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

PIXELS = Recipe.model_validate({"encoder": {"name": "pixels"}})


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each source has been listed."""
    counted: Counter[str] = Counter()
    original = discover.list_source

    def list_source(source: str, **more: list[str]) -> object:
        counted[source] += 1
        return original(source, **more)

    monkeypatch.setattr(discover, "list_source", list_source)
    return counted


def test_a_plan_that_is_handed_over_is_followed_and_nothing_is_listed_again(
    source: Path, tmp_path: Path, listings: Counter[str]
) -> None:
    store, sources = Store(str(tmp_path / "w")), [str(source)]
    planned = planning.plan(store, sources, PIXELS)
    with planning.handed_over(planned):
        first = pipeline.refresh_workspace(store, sources, PIXELS, Machine())
    assert listings == {str(source): 1}
    assert (first.number, first.counts.samples) == (1, 64)
    assert first.seconds["plan"] >= round(planned.seconds, 3)
    assert pipeline.refresh_workspace(store, sources, PIXELS, Machine()) == first
    assert listings == {str(source): 2}  # behind the block every run lists for itself


def test_what_is_kept_asks_for_no_new_ranking_and_what_is_skipped_does(source: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "w"))
    first = refresh(tmp_path / "w", source)
    ids = ranking(tmp_path / "w")["sample_id"].to_list()
    keeps.keep(store, ids[:3])
    assert refresh(tmp_path / "w", source) == first
    keeps.undo(store, ids[:1])
    assert refresh(tmp_path / "w", source) == first
    skips.skip(store, ids[1:2], "redundant")
    second = refresh(tmp_path / "w", source)
    assert (second.number, second.ledger_length) == (2, 3)
    assert ledger.kept_ids(ledger.read(store)) == [ids[2]]


def test_a_plan_is_made_anew_when_another_process_has_committed_meanwhile(
    source: Path, tmp_path: Path, listings: Counter[str]
) -> None:
    store, more = Store(str(tmp_path / "w")), tmp_path / "more"
    more.mkdir()
    (more / "x.jpg").write_bytes(make_jpeg(77_777))
    planned = planning.plan(store, [str(source)], PIXELS)
    pipeline.refresh_workspace(store, [str(more)], PIXELS, Machine())
    with planning.handed_over(planned):
        second = pipeline.refresh_workspace(store, [str(source)], PIXELS, Machine())
    assert (second.number, second.counts.samples) == (2, 65)
    assert second.sources == [str(more), str(source)]
    assert listings == {str(source): 2, str(more): 1}


def test_a_plan_of_another_workspace_is_not_followed(source: Path, tmp_path: Path, listings: Counter[str]) -> None:
    planned = planning.plan(Store(str(tmp_path / "other")), [str(source)], PIXELS)
    with planning.handed_over(planned):
        pipeline.refresh_workspace(Store(str(tmp_path / "w")), [str(source)], PIXELS, Machine())
    assert listings == {str(source): 2}


def test_labels_that_arrive_after_the_plan_are_respected(source: Path, tmp_path: Path) -> None:
    from wtl_core.workspace import ledger, selections

    store = Store(str(tmp_path / "w"))
    first = pipeline.refresh_workspace(store, [str(source)], PIXELS, Machine())
    ranked = selections.read_ranking(store, first.selection)["sample_id"].to_list()
    (source / "new.jpg").write_bytes(make_jpeg(900))
    planned = planning.plan(store, [], PIXELS)
    ledger.append(store, "labelled", ranked[:4])
    with planning.handed_over(planned):
        second = pipeline.refresh_workspace(store, [], PIXELS, Machine())
    assert (second.counts.samples, second.counts.ranked) == (65, 61)


def test_a_pool_whose_parts_are_remade_counts_once_and_keeps_its_vectors(source: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "w"))
    refresh(tmp_path / "w", source)
    other = PIXELS.model_copy(update={"ingest": PIXELS.ingest.model_copy(update={"thumbnail_px": 64})})
    work = planning.plan(store, [], other).work
    assert (work.pool, work.to_embed) == (64, 0)
    assert work.images == pytest.approx(66, abs=8)  # with a copy and a broken one; shards are told by their bytes
    trained = planning.plan(store, [], other.changed(budget=None, encoder="auto", name="test")).work
    assert (trained.pool, trained.to_embed) == (64, 64)


def test_changed_objects_and_forgotten_sources_leave_the_pool_that_is_foretold(tmp_path: Path) -> None:
    store, kept, other = Store(str(tmp_path / "w")), tmp_path / "kept", tmp_path / "other"
    for folder, first in ((kept, 0), (other, 100)):
        folder.mkdir()
        for seed in range(first, first + 20):
            (folder / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    refresh(tmp_path / "w", kept, other)
    for seed in range(5):
        (kept / f"{seed}.jpg").write_bytes(make_jpeg(1000 + seed))
    changed = planning.plan(store, [str(kept)], None).work
    assert (changed.images, changed.to_embed, changed.pool) == (5, 5, 40)
    forgotten = planning.plan(store, [], None, forget=[str(other)]).work
    assert (forgotten.images, forgotten.pool) == (5, 20)


def test_the_recipe_says_whether_the_pool_keeps_images(source: Path, tmp_path: Path) -> None:
    refers = PIXELS.model_copy(update={"ingest": PIXELS.ingest.model_copy(update={"store": "reference"})})
    plans = [planning.plan(Store(str(tmp_path / "w")), [str(source)], recipe) for recipe in (PIXELS, refers)]
    assert [planned.work.keeps_bytes for planned in plans] == [True, False]
