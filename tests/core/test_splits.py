"""The split of a pool: what is alike stays on one side, sides stay, and a ranking knows nothing of what is held out."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.clustered_pool import clustered
from tests.conftest import make_jpeg
from tests.plain_refresh import PIXELS, files, ranking, refresh
from wtl_core import pipeline
from wtl_core.errors import ConfigError, CorruptArtifactError, InputError
from wtl_core.labelling import batches, cut, labels, progress, skips, split_groups, split_state, splits
from wtl_core.labelling.batches import Asked as Batched
from wtl_core.labelling.split_draw import draw_sides
from wtl_core.labelling.split_state import Asked
from wtl_core.report import status
from wtl_core.selection.identity import content_keys
from wtl_core.workspace import commits, ledger, sides
from wtl_core.workspace.storage import Store

ASKED = Asked(70, 10, 20)


def shot(scene: int, number: int, *, form: str = "JPEG") -> bytes:
    """A frame of a burst: noise of its own, a little brighter or darker; number 0 is the scene itself."""
    with Image.open(io.BytesIO(make_jpeg(scene))) as image:
        generator = np.random.default_rng([scene, number])
        pixels = np.asarray(image).astype(float)
        if number:
            pixels = pixels * generator.uniform(0.98, 1.02) + generator.normal(0, 1.5, pixels.shape)
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, form)
    return buffer.getvalue()


def write_shard(file: Path, images: dict[str, bytes], recordings: dict[str, str]) -> None:
    """Images with their names, and the recording that some of them are of."""
    rows = [{"bytes": data, "path": name} for name, data in images.items()]
    image = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    names = pa.array([recordings.get(name) for name in images], pa.string())
    pq.write_table(pa.table({"image": image, "recording": names}), file)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder `source` and its workspace `w`: 60 single images, 12 bursts of 4, 6 pairs of copies, 5 recordings."""
    folder = tmp_path_factory.mktemp("splits")
    (folder / "source").mkdir()
    images = {f"single-{number}.jpg": make_jpeg(number) for number in range(60)}
    images |= {
        f"burst-{scene}-{number}.png": shot(100 + scene, number, form="PNG")
        for scene in range(12)
        for number in range(4)
    }
    images |= {f"copy-{scene}.{form}": shot(200 + scene, 0, form=form) for scene in range(6) for form in ("PNG", "BMP")}
    recorded = {
        f"frame-{recording}-{number}.jpg": make_jpeg(300 + 10 * recording + number)
        for recording in range(5)
        for number in range(6)
    }
    recordings = {name: name.split("-")[1] for name in recorded}
    write_shard(folder / "source" / "a.parquet", images | recorded, recordings)
    refresh(folder / "w", folder / "source")
    return folder


@pytest.fixture
def store(refreshed: Path, tmp_path: Path) -> Store:
    shutil.copytree(refreshed / "w", tmp_path / "w")
    return Store(str(tmp_path / "w"))


def sides_of(store: Store) -> dict[str, str | None]:
    """The side of each image by its name."""
    table = split_state.listed(store)
    return {uri.rsplit("#", 1)[-1].rsplit("/", 1)[-1]: side for _, uri, side in table.rows()}


def ids_on(store: Store, side: str) -> list[str]:
    return split_state.listed(store).filter(split=side)["sample_id"].to_list()


def key_of(name: str) -> str:
    """What images share that must stay together."""
    stem = name.partition(".")[0]
    return stem.rpartition("-")[0] if stem.startswith(("burst", "frame")) else stem


def together(found: dict[str, str | None]) -> dict[str, set[str | None]]:
    groups: dict[str, set[str | None]] = {}
    for name, side in found.items():
        groups.setdefault(key_of(name), set()).add(side)
    return groups


def test_bursts_copies_and_recordings_stay_on_one_side_and_the_shares_hold(store: Store) -> None:
    made = splits.make(store, Asked(70, 10, 20, ("recording",)))
    found = sides_of(store)
    assert len(found) == 150
    assert all(len(held) == 1 for held in together(found).values())
    assert list(made.images.values()) == pytest.approx([105, 15, 30], abs=1)
    assert (made.groups, made.several, made.in_several, made.largest, made.on_none) == (83, 23, 90, 6, 0)
    assert made.leaks is not None
    assert (made.leaks.cut_groups, made.leaks.naive_cut_groups > 5) == (0, True)
    assert 0 < made.leaks.naive_torn_pairs < made.leaks.near_pairs
    assert made.leaks.nearest["0"] > made.distance > made.leaks.naive_nearest["0"]
    assert status.read(store).to_json()["split"] == made.images
    assert sides.read_report(store, ledger.read(store)) == made.to_json()


def test_without_group_by_recordings_are_split_and_the_recipe_can_name_it(store: Store) -> None:
    assert split_state.asked_of(store, (None, 10, 20), None) == ASKED
    splits.make(store, ASKED)
    groups = together(sides_of(store))
    assert any(len(held) > 1 for key, held in groups.items() if key.startswith("frame"))
    assert all(len(held) == 1 for key, held in groups.items() if not key.startswith("frame"))
    split_state.undo(store)
    recipe = PIXELS.changed(budget=None, encoder=None, name="test").model_dump(mode="json")
    recipe["selection"]["group_by"] = "recording"
    refresh(Path(store.root), recipe=type(PIXELS).model_validate(recipe))
    assert split_state.asked_of(store, (None, 10, 20), None).group_by == ("recording",)
    assert split_state.asked_of(store, (None, 10, 20), []).group_by == ()


def test_sides_stay_arrivals_follow_and_others_are_drawn(refreshed: Path, store: Store, tmp_path: Path) -> None:
    asked = Asked(70, 10, 20, ("recording",))
    splits.make(store, asked)
    before = sides_of(store)
    arrivals = {f"burst-{scene}-9.png": shot(100 + scene, 9, form="PNG") for scene in range(12)}
    arrivals |= {f"copy-{scene}.tiff": shot(200 + scene, 0, form="TIFF") for scene in range(6)}
    arrivals |= {f"frame-{recording}-9.jpg": make_jpeg(400 + recording) for recording in range(5)}
    arrivals |= {f"late-{number}.jpg": make_jpeg(500 + number) for number in range(100)}
    source = tmp_path / "more"
    source.mkdir()
    write_shard(source / "b.parquet", arrivals, {name: name.split("-")[1] for name in arrivals if "frame" in name})
    commit = refresh(Path(store.root), refreshed / "source", source)
    after = sides_of(store)
    assert {name: after[name] for name in before} == before
    assert all(len(held) == 1 for held in together(after).values())
    late = [side for name, side in after.items() if name.startswith("late")]
    assert [late.count(side) for side in sides.SIDES] == pytest.approx([70, 10, 20], abs=1)
    held_out = [name for name, side in after.items() if side != "train"]
    assert (commit.counts.held_out, commit.counts.ranked) == (len(held_out), len(after) - len(held_out))
    assert commit.ledger_length == ledger.length(store) == 2
    assert refresh(Path(store.root)).number == commit.number  # nothing new: nothing is written
    assert splits.make(store, asked).images == dict.fromkeys(sides.SIDES, 0)
    assert ledger.length(store) == 2


def test_what_would_lie_on_two_sides_is_on_none_and_passes_nothing_on(tmp_path: Path) -> None:
    """A frame that is of one recording by its column and of a burst by its look; then one like it alone."""
    source, root = tmp_path / "source", tmp_path / "w"
    source.mkdir()
    images = {f"single-{number}.jpg": make_jpeg(number) for number in range(20)}
    write_shard(source / "a.parquet", images, {name: name for name in images})
    refresh(root, source)
    store = Store(str(root))
    splits.make(store, Asked(50, 0, 50, ("recording",)))
    before = sides_of(store)
    taught = next(name for name, side in before.items() if side == "train")
    tested = next(name for name, side in before.items() if side == "test")
    scene = int(tested.split("-")[1].split(".")[0])
    bridge = {"bridge.png": shot(scene, 1, form="PNG")}
    write_shard(source / "b.parquet", bridge, {"bridge.png": taught})
    commit = refresh(root, source)
    after = sides_of(store)
    assert after == {**before, "bridge.png": None}
    assert commit.counts.held_out == list(before.values()).count("test") + 1
    write_shard(source / "c.parquet", {"follower.jpg": make_jpeg(99)}, {"follower.jpg": taught})
    refresh(root, source)
    assert sides_of(store) == {**after, "follower.jpg": "train"}


def test_the_ranking_is_that_of_a_pool_without_what_is_held_out_labelled_or_not(
    refreshed: Path, store: Store, tmp_path: Path
) -> None:
    """Held against a workspace where the same images are skipped as unusable."""
    shutil.copytree(refreshed / "w", tmp_path / "reference")
    reference = Store(str(tmp_path / "reference"))
    splits.make(store, ASKED)
    held_out = [*ids_on(store, "validation"), *ids_on(store, "test")]
    taught = ids_on(store, "train")[:20]
    for each in (store, reference):
        classes = [(("cat", "dog")[row % 2],) for row in range(30)]
        ledger.append(each, "labelled", [*taught, *held_out[:10]], classes=classes)
    skips.skip(reference, held_out, "unusable")
    redundant = [ids_on(store, "test")[-1], ids_on(store, "train")[30]]
    skips.skip(store, redundant, "redundant")
    skips.skip(reference, redundant[1:], "redundant")
    ours, theirs = refresh(Path(store.root)), refresh(Path(reference.root))
    assert ranking(Path(store.root)).equals(ranking(Path(reference.root)))
    assert (ours.coverage, ours.counts.ranked) == (theirs.coverage, 150 - len(held_out) - 21)


def test_picks_and_batches_are_of_training_unless_another_side_is_asked_for(store: Store) -> None:
    with pytest.raises(ConfigError, match="expected a split to take test images from, found none"):
        cut.run(store, "3", split="test")
    assert cut.run(store, "3").table["split"].to_list() == [None] * 3
    splits.make(store, ASKED)
    by_side = {side: set(ids_on(store, side)) for side in sides.SIDES}
    picks = cut.run(store, "100%").table
    assert set(picks["sample_id"]) == by_side["train"]
    assert set(picks["split"]) == {"train"}
    first = batches.hand_out(store, Batched(new=10, control="50%"))
    assert set(first.table["sample_id"]) <= by_side["train"]
    tested = cut.run(store, "100%", split="test").table
    assert set(tested["sample_id"]) == by_side["test"]
    assert (tested["rank"].to_list(), set(tested["split"])) == (list(range(len(by_side["test"]))), {"test"})
    assert tested["uri"].null_count() == 0
    asked = Batched(new=8, split="test")
    batch = batches.hand_out(store, asked)
    assert batch.table["sample_id"].to_list() == tested["sample_id"].head(8).to_list()
    assert set(batch.table["why"]) == {"drawn at random, for test"}
    assert not batches.hand_out(store, asked).is_new
    assert batches.hand_out(store, asked).table.equals(batch.table)
    more = batches.hand_out(store, Batched(new=8, split="test", name="more"))
    assert more.table["sample_id"].to_list() == tested["sample_id"][8:16].to_list()
    with pytest.raises(ConfigError, match="expected the name of a new batch, found 'more'"):
        batches.hand_out(store, Batched(new=8, name="more"))
    ledger.append(store, "labelled", batch.table["sample_id"].to_list())
    assert cut.run(store, "100%", split="test").table["sample_id"].to_list() == tested["sample_id"][8:].to_list()
    assert set(labels.listed(store)["split"]) == {"test"}


def test_labels_of_validation_and_test_do_not_count_for_progress_and_their_images_are_no_controls(store: Store) -> None:
    batch = batches.hand_out(store, Batched(new=150, control="100%"))
    ids = batch.table["sample_id"].to_list()
    ledger.append(store, "labelled", ids, classes=[(("cat", "dog")[row % 2],) for row in range(150)])
    assert progress.run(store).controls == 150
    splits.make(store, ASKED)
    told = progress.run(store)
    assert (told.labelled, told.controls, told.missing) == (len(ids_on(store, "train")),) * 2 + (0,)
    assert told.classes["labels"].sum() == told.labelled


def test_undo_ranks_all_images_as_before_and_another_split_is_refused_without_it(store: Store) -> None:
    before = ranking(Path(store.root))
    splits.make(store, ASKED)
    refresh(Path(store.root))
    with pytest.raises(
        ConfigError, match=r"expected 70/10/20, the split that is there, found 80/10/10; an image never"
    ):
        splits.make(store, Asked(80, 10, 10))
    assert split_state.undo(store) == 150
    refresh(Path(store.root))
    assert ranking(Path(store.root)).equals(before)
    assert set(split_state.listed(store)["split"]) == {None}
    with pytest.raises(ConfigError, match="expected a split to take back, found none"):
        split_state.undo(store)
    splits.make(store, Asked(80, 10, 10))
    assert sum(status.read(store).to_json()["split"].values()) == 150


def test_a_dry_run_writes_nothing_and_the_same_pool_gives_the_same_split(refreshed: Path, store: Store) -> None:
    before = files(Path(store.root))
    dry = splits.make(store, ASKED, is_dry=True)
    assert files(Path(store.root)) == before
    assert splits.make(store, ASKED) == dry


def test_a_refresh_that_is_tried_again_gives_arrivals_their_sides_once(
    refreshed: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits.make(store, ASKED)
    source = tmp_path / "more"
    source.mkdir()
    write_shard(source / "b.parquet", {f"{n}.jpg": make_jpeg(700 + n) for n in range(10)}, {})
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "commit", lambda run, record: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(OSError, match="killed"):
            refresh(Path(store.root), refreshed / "source", source)
    assert ledger.length(store) == 2
    after = sides.read(store, ledger.read(store))
    commit = refresh(Path(store.root), refreshed / "source", source)
    assert (ledger.length(store), commit.ledger_length) == (2, 2)
    assert sides.read(store, ledger.read(store)).equals(after)
    assert commit == commits.latest(store)


def test_unusable_and_filtered_images_have_no_side_until_they_return(store: Store) -> None:
    first = ranking(Path(store.root))["sample_id"][0]
    skips.skip(store, [first], "unusable")
    made = splits.make(store, ASKED)
    assert sum(made.images.values()) == 149
    assert split_state.listed(store).filter(sample_id=first)["split"].to_list() == [None]
    skips.undo(store)
    refresh(Path(store.root))
    assert split_state.listed(store).filter(sample_id=first)["split"].null_count() == 0


def test_known_classes_are_spread_over_the_sides(store: Store) -> None:
    ids = ranking(Path(store.root))["sample_id"].to_list()
    rare = [sample_id for sample_id in ids if sample_id[0] in "01"]
    ledger.append(store, "labelled", ids, classes=[("rare",) if i in set(rare) else ("common",) for i in ids])
    splits.make(store, Asked(50, 0, 50))
    tested = set(ids_on(store, "test"))
    assert len(tested.intersection(rare)) == pytest.approx(len(rare) / 2, abs=4)


def test_a_distance_that_would_connect_the_whole_pool_is_narrowed_and_stays_so(refreshed: Path, tmp_path: Path) -> None:
    recipe = PIXELS.model_dump(mode="json")
    recipe["selection"]["near_duplicate_distance"] = 1.9
    root, source = tmp_path / "w", tmp_path / "more"
    refresh(root, refreshed / "source", recipe=type(PIXELS).model_validate(recipe))
    store = Store(str(root))
    made = splits.make(store, ASKED)
    assert (made.is_narrow, made.distance < 1.0, made.largest < 15, made.too_large) == (True, True, True, 0)
    source.mkdir()
    write_shard(source / "b.parquet", {f"late-{number}.jpg": make_jpeg(800 + number) for number in range(20)}, {})
    refresh(root, source, recipe=None)
    assert sum(side is None for side in sides_of(store).values()) == 0


def test_a_side_that_no_group_fits_into_is_refused_and_nothing_is_entered(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    images = {f"{number}.jpg": make_jpeg(number) for number in range(30)}
    write_shard(source / "a.parquet", images, {name: str(int(name.split(".")[0]) % 3) for name in images})
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    with pytest.raises(InputError, match="expected groups of images that fit into 10% for test, found 3 groups of 30"):
        splits.make(store, Asked(90, 0, 10, ("recording",)))
    with pytest.raises(InputError, match=r"column recordng: .* did you mean recording"):
        splits.make(store, Asked(90, 0, 10, ("recordng",)))
    for shares in ((80, 10, 20), (100, 0, 0), (None, 60, 40), (0, 50, 50)):
        with pytest.raises(ConfigError, match="expected shares that sum to 100"):
            split_state.asked_of(store, shares, None)
    assert ledger.length(store) == 0


def test_a_missing_file_of_the_split_is_told(store: Store) -> None:
    splits.make(store, ASKED)
    [file] = (Path(store.root) / "splits").glob("*.parquet")
    assert json.loads(file.with_suffix(".json").read_text())["groups"] > 50
    file.unlink()
    with pytest.raises(CorruptArtifactError, match="expected the files of the split, one is missing"):
        cut.run(store, "5")


def test_ten_thousand_images_with_bursts_and_copies_keep_their_shares_and_no_group_is_cut() -> None:
    """By vectors alone, held against the groups that were planted; then with arrivals, which follow."""
    generator = np.random.default_rng(0)
    scenes = clustered(8_000, clusters=500, spread=1.0)
    own = np.concatenate([np.arange(8_000), generator.choice(300, 2_000)])  # 300 scenes have bursts
    values = scenes[own] + np.where(np.arange(10_000) < 8_000, 0.0, 0.004)[:, None] * generator.normal(
        size=(10_000, 12)
    )
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    nothing = pl.Series([None] * 10_000, dtype=pl.String)
    samples = pl.DataFrame(
        {
            "sample_id": [f"{row:064x}" for row in range(10_000)],
            "split": nothing,
            "pixel_digest": nothing,
            "metadata": nothing,
            "phash": pl.Series([0] * 10_000, dtype=pl.UInt64),
        }
    )
    found = split_groups.find(samples, values, distance=0.04, group_by=[], shares=[0.8, 0.1, 0.1], device="cpu")
    sizes = np.bincount(found.of)
    keys = content_keys(samples["sample_id"].gather(np.unique(found.of, return_index=True)[1]).to_list())
    given, _ = draw_sides(sizes, np.zeros(len(sizes), np.int64), keys, shares=[0.8, 0.1, 0.1])
    of_image = given[found.of]
    for side, share in enumerate((0.8, 0.1, 0.1)):
        assert (of_image == side).mean() == pytest.approx(share, abs=0.005)
    for scene in range(300):
        assert len(set(of_image[own == scene])) == 1
    assert found.naive_torn > 0.2 * found.near_pairs
    names = np.array(sides.SIDES)[of_image]
    arrivals = scenes[:300] + 0.004 * generator.normal(size=(300, 12))
    arrivals = (arrivals / np.linalg.norm(arrivals, axis=1, keepdims=True)).astype(np.float32)
    new = samples.head(300).with_columns(pl.format("f{}", pl.col("sample_id").str.tail(63)).alias("sample_id"))
    both = pl.concat([new, samples.with_columns(split=pl.Series(names.tolist()))])
    later = split_groups.find(
        both, np.concatenate([arrivals, values]), distance=0.04, group_by=[], shares=[0.8, 0.1, 0.1], device="cpu"
    )
    follows = later.touched[later.of]
    assert (follows == 1 << of_image[:300]).mean() > 0.98  # some lie by chance near another scene, too
    assert (follows & (1 << of_image[:300])).all()
