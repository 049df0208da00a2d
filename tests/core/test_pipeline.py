"""The whole refresh as a plain script, on small real images."""

import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from tests.conftest import build_source, make_jpeg
from tests.plain_refresh import PIXELS, files, ranking, refresh
from wtl_core import pipeline
from wtl_core.engines.engine import Needs
from wtl_core.errors import ConfigError, InputError, QuarantineBudgetError
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.pool.part_plan import plan_parts
from wtl_core.recipe.recipe import Recipe
from wtl_core.recipe.selection import SelectionParams
from wtl_core.refresh import planning
from wtl_core.report import status, summary
from wtl_core.shards import discover, reader
from wtl_core.shards.objects import SourceObject
from wtl_core.workspace import commits, selections
from wtl_core.workspace.storage import Store


def test_row_accounts_hold_and_every_sample_is_ranked_once(source: Path, tmp_path: Path) -> None:
    counts = refresh(tmp_path / "w", source).counts
    assert counts.read == counts.locations + counts.ignored == 67
    assert counts.locations == counts.samples + counts.duplicates + counts.quarantined
    assert (counts.samples, counts.duplicates, counts.quarantined, counts.ignored) == (64, 1, 1, 1)
    assert counts.vectors == counts.ranked == counts.new_samples == 64
    table = ranking(tmp_path / "w")
    assert table["rank"].to_list() == list(range(64))
    assert table["sample_id"].n_unique() == 64


def test_a_second_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    first = refresh(tmp_path / "w", source)
    before = files(tmp_path / "w")
    assert refresh(tmp_path / "w", source) == first
    assert refresh(tmp_path / "w", recipe=None) == first
    assert files(tmp_path / "w") == before


def test_a_ranking_that_other_code_made_is_made_anew_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = refresh(tmp_path / "w", source)
    monkeypatch.setattr(selections, "VERSION", selections.VERSION + 1)
    second = refresh(tmp_path / "w", source)
    assert (second.number, second.encoder, second.listing) == (2, first.encoder, first.listing)
    assert second.selection != first.selection
    assert refresh(tmp_path / "w", source) == second


def test_shards_order_and_part_sizes_change_no_rank(tmp_path: Path) -> None:
    refresh(tmp_path / "w1", build_source(tmp_path / "s1"))
    refresh(tmp_path / "w2", build_source(tmp_path / "s2", order_seed=5), part_images=7)
    assert ranking(tmp_path / "w1")["sample_id"].to_list() == ranking(tmp_path / "w2")["sample_id"].to_list()


def test_workers_change_no_rank(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "IMAGES_WORTH_A_WORKER", 1)
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"part_images": 20}})
    refresh(tmp_path / "w1", source, recipe=recipe)
    assert len(list((tmp_path / "w1" / "pool").iterdir())) > 2
    refresh(tmp_path / "w2", source, recipe=recipe, workers=3)
    assert ranking(tmp_path / "w1").equals(ranking(tmp_path / "w2"))


def test_arrivals_are_ranked_in_and_removals_leave(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    before = ranking(tmp_path / "w")["sample_id"].to_list()
    for i in range(6):
        (source / f"new-{i}.jpg").write_bytes(make_jpeg(1000 + i))
    grown = refresh(tmp_path / "w", source)
    assert (grown.number, grown.counts.samples, grown.counts.new_samples) == (2, 70, 6)
    after = ranking(tmp_path / "w")["sample_id"].to_list()[:6]  # as many as the first refresh picked: 10 % of 64
    assert grown.picks_kept == len(set(before[:6]) & set(after)) / len(set(before[:6]) | set(after))
    picks = set(ranking(tmp_path / "w")["sample_id"].head(grown.counts.picks))
    stay = len(set(before[:6]) & picks)
    assert grown.pick_changes == commits.PickChanges(open=6, stay=stay, new=grown.counts.picks - stay)
    for i in range(6):
        (source / f"new-{i}.jpg").unlink()
    shrunk = refresh(tmp_path / "w", source)
    assert (shrunk.number, shrunk.counts.samples, shrunk.counts.new_samples) == (3, 64, 0)
    assert ranking(tmp_path / "w")["sample_id"].to_list() == before


def test_a_file_written_over_in_place_is_read_again(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    (source / "loose" / "broken.jpg").write_bytes(make_jpeg(1))
    mended = refresh(tmp_path / "w", source)
    assert mended.counts.quarantined == 0
    assert mended.counts.duplicates == 2


def test_a_shard_with_a_bad_sector_is_not_read_anew_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    with tarfile.open(tmp_path / "source" / "a.tar", "w") as archive:
        for i in range(4):
            info = tarfile.TarInfo(f"{i}.jpg")
            info.size = len(make_jpeg(i))
            archive.addfile(info, io.BytesIO(make_jpeg(i)))

    @contextmanager
    def failing(one: SourceObject) -> Iterator[object]:
        with original(one) as stream:
            read = stream.read

            class Failing(io.BytesIO):
                def read(self, size: int | None = -1) -> bytes:
                    if self.tell() >= 4096:
                        raise OSError(5, "Input/output error")
                    return super().read(size)

            yield Failing(read())

    original = reader.open_object
    monkeypatch.setattr(reader, "open_object", failing)
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"quarantine_budget": 0.9}})
    first = refresh(tmp_path / "w", tmp_path / "source", recipe=recipe)
    assert first.counts.quarantined == 1
    assert refresh(tmp_path / "w", recipe=recipe) == first
    monkeypatch.setattr(reader, "open_object", original)
    assert refresh(tmp_path / "w", recipe=recipe).counts.samples == 4


def test_refusals_tell_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"junk")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("hello")
    with pytest.raises(ConfigError, match="nowhere"):
        refresh(tmp_path / "w", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="name one"):
        refresh(tmp_path / "w")
    with pytest.raises(InputError, match="found no file at all"):
        refresh(tmp_path / "w", tmp_path / "empty")
    with pytest.raises(InputError, match="1 refused"):
        refresh(tmp_path / "w", tmp_path / "broken")
    with pytest.raises(InputError, match="1 files that are no images"):
        refresh(tmp_path / "w2", tmp_path / "texts")


def test_results_say_what_ended_the_picks_and_what_quotas_cost(source: Path, tmp_path: Path) -> None:
    quotas = [{"group": "jpeg", "minimum_share": 0.5}]
    selection = {"budget": "25%", "coverage_goal": 0.01, "group_by": "format", "quotas": quotas}
    last = refresh(
        tmp_path / "w", source, recipe=Recipe.model_validate({**PIXELS.model_dump(), "selection": selection})
    )
    store = Store(str(tmp_path / "w"))
    said = summary.summary(store, last, is_new=True).ranking
    assert (said.stop_reason, said.quotas_until) == ("coverage_goal", 16)
    assert said.quota_cost == 0.0
    assert said.advice is not None
    assert said.advice.startswith("From ")
    assert status.read(store).ranking == said
    page = (tmp_path / "w" / last.report).read_text()
    for shown in ("<td>end by</td><td>coverage goal</td>", "<td>quotas hold until pick</td><td>16</td>"):
        assert shown in page
    evenness = selections.read_receipt(store, last.selection)["random_group_balance"]
    assert 0 < evenness <= 1
    assert "<th>groups</th>" in page
    assert f"1 for all groups alike, {evenness:.2f} in the pool" in page
    plain = refresh(tmp_path / "w", recipe=PIXELS)
    assert status.read(store).to_json()["ranking"]["quota_cost"] is None
    page = (tmp_path / "w" / plain.report).read_text()
    assert "<h2>The picks</h2>" not in page
    assert "<th>groups</th>" not in page
    shutil.rmtree(tmp_path / "w" / plain.selection)
    assert not any(status.read(store).to_json()["ranking"].values())


def test_a_worker_process_that_imports_nothing_else_reads_every_kind_of_shard(source: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from wtl_core.pool import ingest; from wtl_core.recipe.ingest import IngestParams\n"
        "from wtl_core.shards import discover\n"
        "from wtl_core.pool.part_plan import plan_parts; from wtl_core.workspace.storage import Store\n"
        "plans = plan_parts(discover.list_source(sys.argv[1]), IngestParams())\n"
        "[ingest.run(plan, Store(sys.argv[2]), IngestParams()) for plan in plans]"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "w")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_picture_with_a_broken_exif_block_stops_no_report(tmp_path: Path) -> None:
    folder = build_source(tmp_path / "source", count=9)
    plain = io.BytesIO()
    Image.new("RGB", (30, 30), (9, 99, 199)).save(plain, "PNG", exif=b"Exif\0\0 no TIFF file at all")
    (folder / "exif.png").write_bytes(plain.getvalue())
    assert refresh(tmp_path / "w", folder).counts.quarantined == 1


def test_the_quarantine_budget_is_a_share_of_the_whole_pool(tmp_path: Path) -> None:
    """One broken arrival is no broken pool, and a budget that is tightened later finds the broken pool."""
    source = tmp_path / "source"
    source.mkdir()
    for i in range(39):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"quarantine_budget": 0.05}})
    refresh(tmp_path / "w", source, recipe=recipe)
    (source / "broken.jpg").write_bytes(b"junk")
    assert refresh(tmp_path / "w", recipe=recipe).counts.quarantined == 1
    tight = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"quarantine_budget": 0.01}})
    with pytest.raises(QuarantineBudgetError, match=r"1 of 40 images \(2.5%\).*not_an_image 1"):
        refresh(tmp_path / "w", recipe=tight)


def test_a_run_stays_small_however_many_objects_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orchestrator walks through it several times with every call."""
    rows = [("/s", f"/s/{i:05d}.tar", "tar", 2**30 + i, i, "") for i in range(2500)]
    listing = pl.DataFrame(rows, schema=discover.LISTING_SCHEMA, orient="row")
    monkeypatch.setattr(discover, "list_source", lambda *given, **named: listing)
    run = pipeline.plan_refresh(Store(str(tmp_path / "w")), ["/s"], PIXELS, Machine())
    assert run.batches == 3
    assert len(repr(run)) < 3000
    plans = [plan for batch in range(run.batches) for plan in planning.parts_of(run, batch)]
    assert plans == plan_parts(listing, PIXELS.ingest)


class NothingDone:
    """An engine that runs nothing; it keeps what it was asked for."""

    needs: Needs

    def run(self, make_worker: object, items: Sequence[int], *, needs: Needs, weights: object) -> Iterator[None]:
        self.needs = needs
        raise InputError("nothing done")


def test_a_ranking_by_regions_takes_workers_as_the_settings_have_them(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = NothingDone()
    monkeypatch.setattr(pipeline, "open_engine", lambda _machine: engine)
    recipe = PIXELS.model_copy(update={"selection": SelectionParams(regions_from=50, region_size=100)})
    machine = Machine(engine="ray", ray_worker_cpus=3)
    with pytest.raises(InputError, match="nothing done"):
        pipeline.refresh_workspace(Store(str(tmp_path / "w")), [str(source)], recipe, machine)
    assert (engine.needs.cpus, engine.needs.gpus, engine.needs.device) == (3, 0, "cpu")
