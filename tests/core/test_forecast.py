"""How long a refresh takes, told before it starts: rules, what earlier runs teach, and samples of sources."""

import gzip
import io
import itertools
import tarfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import make_jpeg, write_pictures
from tests.plain_ingest import write_tar
from tests.plain_refresh import refresh
from wtl_core import pipeline
from wtl_core.errors import InputError
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import forecast, planning, shard_sizes, source_forecast, source_sample, sources
from wtl_core.refresh.forecast import Rates, shipped_rates
from wtl_core.workspace import commits
from wtl_core.workspace.forecasts import Hardware, Work
from wtl_core.workspace.storage import Store

PIXELS = Recipe.model_validate({"encoder": {"name": "pixels"}})
TWO = Hardware(cores=2)


def work(images: int, **more: object) -> Work:
    values = {"objects": 10, "images": images, "megabytes": images / 10, "to_embed": images, "pool": images}
    return Work.model_validate({**values, "network": "package", **more})


def seconds(work: Work, hardware: Hardware = TWO, rates: Rates | None = None) -> dict[str, float]:
    return {one.stage: one.seconds for one in forecast.expected(work, hardware, rates or shipped_rates())}


def test_every_stage_of_a_refresh_is_foretold(tmp_path: Path) -> None:
    made = refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    assert list(made.seconds) == list(seconds(work(12)))
    assert made.forecast is not None
    assert list(made.forecast.seconds) == list(made.seconds)
    told = made.forecast.work
    known = {"objects": 12, "network": "pixels", "is_new_encoder": True, "encoder_seconds": 0.0}
    assert told == work(12, megabytes=told.megabytes, regions_from=2_000_000, **known)


def test_the_report_shows_what_was_expected_beside_what_it_took(tmp_path: Path) -> None:
    made = refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    assert made.forecast is not None
    page = (tmp_path / "w" / made.report).read_text()
    took, expected = made.seconds["ingest"], made.forecast.seconds["ingest"]
    assert f"<td>ingest</td><td>{took:.1f} s</td><td>{expected:.1f} s</td>" in page


def test_twice_the_images_take_twice_the_time_and_twice_the_cores_half_of_it() -> None:
    once, twice = seconds(work(100_000)), seconds(work(200_000))
    spread = seconds(work(200_000), Hardware(machines=2, cores=2))
    for stage in ("ingest", "embedding"):
        assert twice[stage] == pytest.approx(2 * once[stage])
        assert spread[stage] == pytest.approx(once[stage])
    assert twice["selection"] > 1.5 * once["selection"]


def test_a_curve_goes_through_what_was_measured_and_on() -> None:
    table = shipped_rates().tables["selection"]
    at = [seconds(work(rows))["selection"] for rows in table["rows"]]
    assert at == pytest.approx(table["seconds"])
    growth = (table["rows"][-1] / table["rows"][-2], table["seconds"][-1] / table["seconds"][-2])
    beyond = seconds(work(round(table["rows"][-1] * growth[0])))["selection"]
    assert beyond / at[-1] == pytest.approx(growth[1], rel=0.01)


def test_a_pool_that_is_ranked_by_regions_is_spread_over_cores() -> None:
    large, four = work(4_000_000, regions_from=2_000_000), Hardware(machines=2, cores=2)
    table = shipped_rates().tables["regions"]
    saved = seconds(large)["selection"] - seconds(large, four)["selection"]
    assert saved == pytest.approx(4_000_000 * table["core_seconds_per_image"] / 4)
    small = work(1_999_999, regions_from=2_000_000)
    assert seconds(small)["selection"] == seconds(small, four)["selection"]


def test_without_new_images_only_what_is_left_takes_time() -> None:
    left = seconds(work(0, objects=5, megabytes=0.0, pool=100_000, encoder_seconds=0.0))
    assert (left["ingest"], left["encoder"], left["embedding"]) == (0, 0, 0)
    assert left["selection"] > 1


def test_a_gpu_embeds_and_cores_decode_meanwhile() -> None:
    slow, fast = Hardware(cores=2), Hardware(cores=2, gpus=1)
    small = seconds(work(1_000_000, megabytes=2000.0), fast)["embedding"]
    assert small < seconds(work(1_000_000, megabytes=2000.0), slow)["embedding"] / 2
    large = seconds(work(1_000_000, megabytes=3e6), fast)["embedding"]  # 3 MB each: decoding is what takes long
    assert large == pytest.approx(seconds(work(1_000_000, megabytes=3e6), Hardware(cores=2, gpus=8))["embedding"])


def test_what_runs_took_corrects_the_next_forecast_on_such_a_machine_alone(tmp_path: Path) -> None:
    made = refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=4))
    asked = work(50_000)
    plain = seconds(asked)
    took = {stage: 3 * value for stage, value in plain.items()}
    before = forecast.of_run(asked, TWO, [])
    run = made.model_copy(update={"forecast": before, "seconds": took})
    learnt = forecast.of_run(asked, TWO, [run]).seconds
    assert learnt["embedding"] == pytest.approx(3 * plain["embedding"], rel=0.01)
    assert learnt["plan"] == pytest.approx(plain["plan"], abs=0.001)  # too short to learn from
    assert (
        forecast.of_run(asked, Hardware(cores=4), [run]).seconds
        == forecast.of_run(asked, Hardware(cores=4), []).seconds
    )
    small = forecast.of_run(work(50), TWO, [])
    held_up = made.model_copy(update={"forecast": small, "seconds": {"ingest": 5.0, "embedding": 5.0, "report": 5.0}})
    assert forecast.of_run(asked, TWO, [held_up]).seconds == before.seconds  # 50 images that waited for a disk
    odd = run.model_copy(update={"seconds": {stage: 100 * value for stage, value in plain.items()}})
    assert forecast.of_run(asked, TWO, [run, odd, run]).seconds == learnt  # one slow run is no rule


def make_source(folder: Path) -> Path:
    """200 images: 60 in a tar with as many notes, 60 in a table, 60 in a zip, 20 files of which 5 are broken."""
    folder.mkdir()
    images = [make_jpeg(seed) for seed in range(200)]
    write_tar(folder / "a.tar", [(f"{n}.{kind}", data) for n in range(60) for kind, data in
                                 (("jpg", images[n]), ("txt", b"a note"))])  # fmt: skip
    pq.write_table(pa.table({"image": images[60:120]}), folder / "b.parquet", compression="zstd")
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        for n in range(120, 180):
            archive.writestr(f"{n}.jpg", images[n])
    for n in range(180, 200):
        (folder / f"{n}.jpg").write_bytes(images[n] if n >= 185 else b"\xff\xd8\xff broken")
    return folder


def sampled(folder: Path) -> source_sample.Sample:
    scope = sources.Scope([str(folder)], [], [])
    return source_sample.draw(sources.list_objects(Store(str(folder.parent / "w")), scope), PIXELS.ingest)


def test_a_sample_counts_images_of_all_kinds(tmp_path: Path) -> None:
    found = sampled(make_source(tmp_path / "source"))
    assert (found.images, found.refused, found.opened) == (195, 5, 23)
    assert found.megabytes == pytest.approx(sum(f.stat().st_size for f in (tmp_path / "source").iterdir()) / 1e6)
    assert set(found.sides_px) == {40}


def test_shards_are_not_read_to_their_end(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    members = [(f"{n}.jpg", make_jpeg(n % 50) + bytes([n % 256, n // 256])) for n in range(3000)]
    for number in range(4):
        write_tar(tmp_path / "source" / f"{number}.tar", members)
    found = sampled(tmp_path / "source")
    assert found.decoded <= 400
    assert found.images == pytest.approx(12_000, rel=0.03)


def test_a_gzipped_tar_is_told_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source" / "a.tar.gz", "w:gz") as archive:
        for n in range(50):
            info = tarfile.TarInfo(f"{n}.jpg")
            info.size = len(make_jpeg(n))
            archive.addfile(info, io.BytesIO(make_jpeg(n)))
    assert sampled(tmp_path / "source").images == 50  # fewer than are sampled: all were seen


def test_one_shard_tells_what_an_image_takes_as_several_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_sample, "_SECONDS", 600.0)  # a busy machine once decoded 264 in its 15 s
    members = [(f"{n}.jpg", make_jpeg(n)) for n in range(400)]
    for name, pieces in (("one", 1), ("four", 4)):
        (tmp_path / name).mkdir()
        for number in range(pieces):
            write_tar(tmp_path / name / f"{number}.tar", members[number::pieces])
    one, four = sampled(tmp_path / "one"), sampled(tmp_path / "four")
    assert one.decoded == four.decoded == 400
    assert one.seconds_per_image < 3 * four.seconds_per_image


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which a second passes between two looks at it."""
    seconds = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(seconds)))


@pytest.mark.usefixtures("slow")
def test_a_sample_ends_within_a_shard_when_its_time_is_up(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    write_tar(tmp_path / "source" / "a.tar", [(f"{n}.jpg", make_jpeg(n)) for n in range(300)])
    found = sampled(tmp_path / "source")
    assert 1 < found.decoded < 20
    assert found.images == pytest.approx(300, rel=0.05)


@pytest.mark.usefixtures("slow")
def test_loose_images_that_there_was_no_time_for_count_all_the_same(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "source", count=50)
    write_tar(folder / "a.tar", [(f"{n}.jpg", make_jpeg(n)) for n in range(100, 130)])
    found = sampled(folder)
    assert found.opened == 1
    assert found.images == pytest.approx(80, abs=8)


def write_large(folder: Path, images: list[bytes]) -> Path:
    """A compressed tar of images, each followed by 4 MB of zeros."""
    folder.mkdir()
    write_tar(folder / "a.tar", [(f"{n}.jpg", data + bytes(4 << 20)) for n, data in enumerate(images)])
    (folder / "a.tar.gz").write_bytes(gzip.compress((folder / "a.tar").read_bytes(), 1))
    (folder / "a.tar").unlink()
    return folder


def test_files_of_a_sample_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    found = sampled(write_large(tmp_path / "source", [make_jpeg(n) for n in range(40)]))
    assert found.decoded == 40
    assert sum(map(len, found.files)) <= (128 + 5) << 20


def test_where_none_of_the_files_that_are_kept_is_an_image_the_shipped_rate_tells(tmp_path: Path) -> None:
    broken = [b"\xff\xd8\xff broken"] * 34
    folder = write_large(tmp_path / "source", [*broken, *(make_jpeg(n) for n in range(3))])
    made = source_forecast.make(Store(str(tmp_path / "w")), [str(folder)], PIXELS, Machine(), TWO)
    assert made.work.images == 3
    assert {one.stage: one.seconds for one in made.stages}["embedding"] == seconds(made.work)["embedding"]


def test_a_pool_of_references_is_foretold_without_its_images(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", count=60, side=200)
    refers = {**PIXELS.model_dump(), "ingest": {"store": "reference"}}
    for name, recipe in (("bytes", PIXELS), ("reference", Recipe.model_validate(refers))):
        made = source_forecast.make(Store(str(tmp_path / name)), [str(folder)], recipe, Machine(), TWO)
        told = {one.stage: one for one in made.stages}
        assert told["embedding"].seconds > 0
        refresh(tmp_path / name, folder, recipe=recipe)
        stored = sum(part.stat().st_size for part in (tmp_path / name / "pool").iterdir())
        assert told["ingest"].stored_bytes == pytest.approx(stored, rel=0.01)


def test_a_gpu_that_is_not_to_be_used_is_not_timed(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "photos", count=8)
    there = Machine(device="cuda", devices=2, workers=4)
    made = source_forecast.make(Store(str(tmp_path / "w")), [str(folder)], PIXELS, there, TWO)
    assert made.work.images == 8
    assert forecast.hardware_of(there) == Hardware(cores=4, gpus=2)
    assert forecast.hardware_of(Machine(workers=3)) == Hardware(cores=3)


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_a_first_refresh_counts_the_images_of_shards_by_one_of_them(kind: str, tmp_path: Path) -> None:
    source, images = tmp_path / "source", [make_jpeg(n) for n in range(60)]
    source.mkdir()
    members = [(f"{n}.jpg", image) for n, image in enumerate(images)]
    for number in range(2):
        path = source / f"{number}.{kind}"
        if kind == "tar":
            write_tar(path, members)
        elif kind == "zip":
            with zipfile.ZipFile(path, "w") as archive:
                for name, image in members:
                    archive.writestr(name, image)
        else:
            pq.write_table(pa.table({"image": images}), path)
    made = refresh(tmp_path / "w", source)
    assert made.forecast is not None
    assert made.forecast.work.images == pytest.approx(120, rel=0.15)


def test_a_shard_that_cannot_be_read_leaves_the_shipped_rate(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"no tar" * 1000)
    (tmp_path / "0.parquet").write_bytes(b"PAR1" + b"no table" * 1000)
    for file in sorted(tmp_path.iterdir()):
        listing = sources.list_objects(Store(str(tmp_path / "w")), sources.Scope([str(file)], [], []))
        assert listing.height == 1
        assert shard_sizes.megabytes_per_image(listing, Recipe().ingest) is None


def test_auto_takes_larger_sides_as_far_as_its_time_goes() -> None:
    at_96_px, auto = (seconds(work(10_000, **more))["embedding"] for more in ({}, {"auto_seconds": 300}))
    assert auto == pytest.approx(6.4 * at_96_px)
    assert seconds(work(100_000, auto_seconds=300))["embedding"] == pytest.approx(180)
    millions = work(10_000_000)
    assert seconds(millions) == seconds(millions.model_copy(update={"auto_seconds": 300}))


def test_a_packaged_network_is_foretold_at_the_side_that_it_has() -> None:
    def of(encoder: dict[str, object]) -> float:
        recipe = Recipe.model_validate({"encoder": encoder})
        made = planning.work_of(recipe, objects=1, images=5000, megabytes=100, to_embed=5000, pool=5000)
        return seconds(made)["embedding"]

    assert of({"name": "package:efficientnet-lite0"}) == pytest.approx(
        (160 / 96) ** 2 * of({"name": "package:efficientnet-lite0", "side_px": 96})
    )


def test_memory_of_embedding_grows_with_cores_and_more_so_on_a_cluster() -> None:
    def gib(hardware: Hardware) -> float:
        return {one.stage: one.gib for one in forecast.expected(work(1000), hardware, shipped_rates())}["embedding"]

    one, many = gib(TWO), gib(Hardware(cores=64))
    assert one < many < 2 * one + 4
    assert gib(Hardware(machines=2, cores=64)) > 64 * 0.6
    assert gib(Hardware(machines=2, cores=64, gpus=2)) < many + 1


def test_a_ranking_by_regions_passes_through_the_disk() -> None:
    def passing(asked: Work) -> float:
        return {one.stage: one.passing_bytes for one in forecast.expected(asked, TWO, shipped_rates())}["selection"]

    large = work(4_000_000, regions_from=2_000_000, dimensions=128)
    assert passing(work(1_999_999, regions_from=2_000_000)) == 0
    assert passing(large) > 4_000_000 * 2 * 128 * 1.5
    wider = large.model_copy(update={"dimensions": 256})
    assert passing(wider) - passing(large) == pytest.approx(4_000_000 * 2 * 128 * 1.5)


def test_a_run_on_a_cluster_tells_nothing_and_teaches_nothing(tmp_path: Path) -> None:
    sources, store = [str(write_pictures(tmp_path / "photos", count=4))], Store(str(tmp_path / "w"))
    cluster = Machine(engine="ray", ray_address="127.0.0.1:1")
    assert pipeline.plan_refresh(store, sources, PIXELS, cluster).forecast is None
    assert pipeline.plan_refresh(store, sources, PIXELS, Machine(engine="ray", workers=2)).forecast is not None


def test_an_old_commit_that_is_damaged_stops_no_refresh(tmp_path: Path) -> None:
    folder, workspace = write_pictures(tmp_path / "photos", count=8), tmp_path / "w"
    for seed in (1000, 1001, 1002):
        refresh(workspace, folder)
        (folder / f"{seed}.jpg").write_bytes(make_jpeg(seed))
    (workspace / "refreshes" / "000001.json").write_text("{}")
    (workspace / "refreshes" / "000002.json").write_text('{"format": 99}')
    made = source_forecast.make(Store(str(workspace)), [], None, Machine(), TWO)
    assert (made.work.images, made.work.pool) == (1, 11)
    assert refresh(workspace, folder).number == 4


def test_the_map_is_foretold_with_a_new_encoder_alone_and_teaches_nothing(tmp_path: Path) -> None:
    made = refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=4))
    first, later = work(10_000, is_new_encoder=True), work(10_000)
    assert seconds(first)["report"] > seconds(later)["report"] + 1
    slow = {stage: 100 * value for stage, value in seconds(first).items()}
    run = made.model_copy(update={"forecast": forecast.of_run(first, TWO, []), "seconds": slow})
    assert forecast.of_run(later, TWO, [run]) == forecast.of_run(later, TWO, [])


def test_a_source_is_planned_without_a_trace(tmp_path: Path) -> None:
    folder, workspace = make_source(tmp_path / "source"), tmp_path / "w"
    made = source_forecast.make(Store(str(workspace)), [str(folder)], PIXELS, Machine(), TWO)
    assert not workspace.exists()
    assert (made.work.images, made.work.to_embed, made.work.pool) == (195, 195, 195)
    refresh(workspace, folder)
    again = source_forecast.make(Store(str(workspace)), [], None, Machine(), TWO)
    assert (again.sample, again.work.images, again.work.pool) == (None, 0, 195)
    (folder / "new.jpg").write_bytes(make_jpeg(1000))
    third = source_forecast.make(Store(str(workspace)), [], None, Machine(), TWO)
    assert (third.work.images, third.work.to_embed, third.work.pool) == (1, 1, 196)
    assert [commit.number for commit in commits.newest(Store(str(workspace)), 9)] == [1]


def test_a_source_without_a_readable_image_is_told(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none that can be read in 1 of 1 objects; `wtl run` lists each"):
        source_forecast.make(Store(str(tmp_path / "w")), [str(tmp_path / "source")], PIXELS, Machine(), TWO)
