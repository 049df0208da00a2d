"""The events of arrivals: what their ids and resources tell apart."""

from pathlib import Path

from tasks.arrivals import event_id, lists_all_of, look_for_arrivals
from tasks.prefect_side.event_resources import workspace_resource
from tasks.refresh import plan_refresh
from tests.conftest import make_jpeg
from wtl_core import pipeline
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import build_recipe
from wtl_core.refresh import arrivals
from wtl_core.workspace import storage


def test_a_listing_that_comes_back_after_a_refresh_is_announced_again(source: Path, tmp_path: Path) -> None:
    store = storage.open_store(str(tmp_path / "workspace"))
    recipe = build_recipe({"encoder": {"name": "pixels"}}, name="test")
    first = arrivals.look(store, [str(source)])
    pipeline.refresh_workspace(store, [str(source)], recipe, Machine())
    (source / "x.jpg").write_bytes(make_jpeg(900))
    pipeline.refresh_workspace(store, [str(source)], recipe, Machine())
    (source / "x.jpg").unlink()
    again = arrivals.look(store, [str(source)])
    assert again.gone == 1
    assert again.listing == first.listing
    assert event_id(store, again, 0) != event_id(store, first, 0)
    assert event_id(store, again, 0) == event_id(store, arrivals.look(store, []), 0)


def test_workspaces_have_resources_of_their_own() -> None:
    roots = ["/data/a-b", "/data/a/b", "s3://data/a/b"]
    assert len({workspace_resource(root) for root in roots}) == len(roots)
    assert workspace_resource(roots[0]).startswith("wtl.workspace.data-a-b.")


def test_a_run_makes_those_of_its_sources_and_its_workspace_needless_alone(source: Path, tmp_path: Path) -> None:
    """A backfill by hand lists one folder; a queued run that an event started for others has still to list these."""
    store = storage.open_store(str(tmp_path / "workspace"))
    known = [source / "loose", source / "a-0.tar"]
    recipe = build_recipe({"encoder": {"name": "pixels"}}, name="test")
    pipeline.refresh_workspace(store, [*map(str, known)], recipe, Machine())
    mine, elsewhere = {"workspace": f"{store.root}/"}, str(tmp_path / "elsewhere")
    one, both, other = [str(known[0])], [f"{path}/" for path in known], str(source / "b-0.parquet")
    assert lists_all_of(store, [], {**mine, "sources": both})
    assert lists_all_of(store, both, mine)
    assert lists_all_of(store, one, {**mine, "sources": one})
    assert not lists_all_of(store, one, {**mine, "sources": both})
    assert not lists_all_of(store, one, {**mine, "sources": None})
    assert not lists_all_of(store, [], {**mine, "sources": [other]})
    assert not lists_all_of(store, [], {"workspace": elsewhere, "sources": one})


def test_what_a_backfill_has_added_is_looked_at_by_runs_that_name_others(source: Path, tmp_path: Path) -> None:
    """As watch and nightly run do, whose deployments name the site's sources."""
    store = storage.open_store(str(tmp_path / "workspace"))
    recipe = build_recipe({"encoder": {"name": "pixels"}}, name="test")
    site, backfill = str(source / "a-0.tar"), str(source / "loose")
    pipeline.refresh_workspace(store, [site], recipe, Machine())
    pipeline.refresh_workspace(store, [backfill], recipe, Machine())
    (source / "loose" / "late.jpg").write_bytes(make_jpeg(901))
    assert look_for_arrivals.fn(store, [site]).new == 0
    assert look_for_arrivals.fn(store, [site], include_known=True).new == 1
    run = plan_refresh.fn(store, [site], None, allow_removal=False, include_known=True)
    assert (run.changes.new, run.sources) == (1, [site, backfill])
    run = plan_refresh.fn(store, [site], None, allow_removal=False, forget=[backfill], include_known=True)
    assert run.sources == [site]
    assert lists_all_of(store, [site, backfill], {"workspace": store.root, "sources": [site], "known_too": True})
    assert not lists_all_of(store, [site], {"workspace": store.root, "sources": [site], "known_too": True})
