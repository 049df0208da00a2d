import json
import os
from pathlib import Path

from tests.conftest import make_jpeg
from tests.plain_refresh import PIXELS, ranking, refresh
from wtl_core import pipeline
from wtl_core.embedding import vectors
from wtl_core.labelling import labels
from wtl_core.machine import Machine
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe
from wtl_core.report import status
from wtl_core.training import succession
from wtl_core.upkeep import maintenance
from wtl_core.workspace import commits, selections, snapshots
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
    kept = set(vectors.existing_ids(store, last.encoder))
    assert labelled in kept
    assert other not in kept
    Path(loose["uri"][2]).unlink()
    refresh(root, source)
    assert set(ranking(root)["sample_id"]) < set(before["sample_id"])
    (tmp_path / "left.txt").write_text(labelled)
    assert labels.add(store, tmp_path / "left.txt") == labels.Added(named=1, found=1, added=0, unknown=1)


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
    assert refresh(root).counts.samples == 67
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
    assert refresh(root, recipe=recipe).counts.samples == 65


def test_of_older_refreshes_the_record_stays_and_the_tables_go(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "w"
    source.mkdir()
    for number in range(20):
        (source / f"{number}.jpg").write_bytes(make_jpeg(number))
        refresh(root, source)
    store = Store(str(root))
    kept = commits.newest(store, 2)
    before = {commit.number: selections.read_ranking(store, commit.selection) for commit in kept}
    done = maintenance.run(store, keep=2)
    assert (done.deleted["selections"], done.deleted["reports"]) == (36, 18)
    assert len(store.names("selections")) == len(store.names("refreshes")) == 20
    for name in store.names("selections"):
        is_kept = f"selections/{name}" in {commit.selection for commit in kept}
        files = ["ladder.parquet", "ranking.parquet", "receipt.json"] if is_kept else ["receipt.json"]
        assert store.names(f"selections/{name}") == files
        assert selections.read_receipt(store, f"selections/{name}")["picks"] >= 1
    assert store.names("reports") == ["000019.html", "000020.html"]
    assert status.read(store).to_json()["refresh"] == 20
    for commit in kept:
        samples = live_pool.load(store, snapshots.read_snapshot(store, commit.listing)).samples
        assert vectors.load(store, commit.encoder, samples["sample_id"].to_list()).shape[0] == commit.number
        assert selections.read_ranking(store, commit.selection).equals(before[commit.number])
        assert selections.read_ladder(store, commit.selection).height == 100
    assert sum(maintenance.run(store, keep=2).deleted.values()) == 0
    (source / "late.jpg").write_bytes(make_jpeg(500))
    assert refresh(root, source).number == 21


def test_only_encoders_that_something_names_stay(source: Path, tmp_path: Path) -> None:
    root, names = tmp_path / "w", {name: name * 64 for name in "abcdef"}
    store = Store(str(root))
    recipe = Recipe.model_validate({"encoder": {"name": "pixels", "start": names["a"]}})
    refresh(root, source, recipe=recipe)
    last = commits.latest(store)
    assert last is not None
    succession.name_successor(store, names["b"], "ssl")
    for fingerprint in (*names.values(), last.encoder):
        for file in ("card.json", "weights.safetensors", "origin.json", "scale.json"):
            store.create(f"encoders/{fingerprint}/{file}", b"{}")
    for training, outcome in (("of-a", names["a"]), ("of-f", names["f"])):
        store.write_bytes(f"encoders/.training/{training}/plan.json", b"{}")
        store.write_bytes(f"encoders/.training/{training}/outcome.json", json.dumps({"fingerprint": outcome}).encode())
    for training in ("fresh", "left"):
        for file in ("plan.json", "checkpoint.safetensors"):
            store.write_bytes(f"encoders/.training/{training}/{file}", b"{}")
            if training == "left":
                os.utime(root / "encoders" / ".training" / training / file, (1, 1))
    store.write_bytes(f"staging/{names['c']}/plan-1.parquet", b"x")
    done = maintenance.run(store, keep=1)
    assert (done.deleted["encoders"], done.deleted["trainings"], done.deleted["staging"]) == (4 * 3, 4, 1)
    whole = [name for name in store.names("encoders") if store.exists(f"encoders/{name}/card.json")]
    assert whole == sorted([names["a"], names["b"], last.encoder])
    assert all(store.exists(f"encoders/{fingerprint}/scale.json") for fingerprint in names.values())
    assert store.names("encoders/.training") == ["fresh", "of-a"]
    assert store.names("staging") == []
    assert succession.successor(store) == names["b"]
