from pathlib import Path

from tests.conftest import make_jpeg
from tests.plain_refresh import PIXELS, ranking, refresh
from wtl_core import pipeline
from wtl_core.embedding import vectors
from wtl_core.labelling import labels
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits
from wtl_core.workspace.storage import Store


def test_house_keeping_keeps_what_labelled_samples_that_left_still_say(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    refresh(root, source)
    store = Store(str(root))
    loose = ranking(root).filter(ranking(root)["uri"].str.contains("/loose/[0-9]"))
    labelled, other = loose["sample_id"][0], loose["sample_id"][1]
    (tmp_path / "done.txt").write_text(labelled)
    labels.add(store, tmp_path / "done.txt")
    for uri in loose["uri"].head(2):
        Path(uri).unlink()
    refresh(root, source)
    before = ranking(root)
    assert maintenance.run(store, keep=1).vectors_dropped == 1
    last = commits.latest(store)
    assert last is not None
    kept = vectors.existing_ids(store, last.encoder)
    assert labelled in kept
    assert other not in kept
    Path(loose["uri"][2]).unlink()
    refresh(root, source)
    assert set(ranking(root)["sample_id"]) < set(before["sample_id"])
    (tmp_path / "left.txt").write_text(labelled)
    assert labels.add(store, tmp_path / "left.txt") == {"named": 1, "found": 1, "added": 0}


def test_house_keeping_spares_what_a_killed_refresh_has_done(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "w"
    refresh(root, source)
    store = Store(str(root))
    for i in range(3):
        (source / f"new-{i}.jpg").write_bytes(make_jpeg(500 + i))
    run = pipeline.plan_refresh(store, [], PIXELS, Machine())
    pipeline.ingest_parts(run, 0)
    encoder = pipeline.ensure_encoder(run)
    (chunk,) = pipeline.plan_embedding(run, encoder)
    pipeline.embed_chunk(run, encoder, chunk)
    half = vectors.open_table(store, "f" * 64, 8)
    assert half is not None
    done = maintenance.run(store, keep=1)
    assert (sum(done.deleted.values()), done.vectors_dropped, done.tables_dropped) == (0, 0, 0)
    assert pipeline.plan_embedding(pipeline.plan_refresh(store, [], PIXELS, Machine()), encoder) == []
    assert refresh(root).counts["samples"] == 67
    assert maintenance.run(store, keep=1).tables_dropped == 1


def test_house_keeping_keeps_what_the_recipe_steers_by(source: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    root = tmp_path / "w"
    refresh(root, source, tmp_path / "more")
    ids = ranking(root).filter(ranking(root)["uri"].str.contains("/more/"))["sample_id"].to_list()
    steered = {"encoder": {"name": "pixels"}, "selection": {"similar_to": [{"sample_ids": ids, "strength": 1.0}]}}
    recipe = Recipe.model_validate(steered)
    refresh(root, recipe=recipe)
    refresh(root, recipe=recipe, forget=[str(tmp_path / "more")])
    maintenance.run(Store(str(root)), keep=1)
    (source / "late.jpg").write_bytes(make_jpeg(501))
    assert refresh(root, recipe=recipe).counts["samples"] == 65
