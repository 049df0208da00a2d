"""The whole refresh as a plain script, on small real images."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import build_source, make_jpeg
from tests.plain_refresh import PIXELS, files, ranking, refresh
from wtl_core import pipeline
from wtl_core.encoders import cards
from wtl_core.errors import BusyError, ConfigError, InputError, QuarantineBudgetError, TransientError
from wtl_core.labelling import cut
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.pool.part_plan import plan_parts
from wtl_core.recipe.recipe import Recipe
from wtl_core.refresh import arrivals, planning
from wtl_core.report import status, summary
from wtl_core.shards import discover, reader
from wtl_core.shards.objects import SourceObject
from wtl_core.workspace import commits, lease, ledger, selections
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


def test_a_second_source_joins_and_the_first_stays_untouched(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    assert refresh(tmp_path / "w", tmp_path / "more").counts.samples == 65
    assert commits.latest(Store(str(tmp_path / "w"))).sources == [str(tmp_path / "more"), str(source)]  # type: ignore[union-attr]


def test_an_unmounted_source_is_refused_unless_removal_is_allowed(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    shutil.rmtree(source / "loose")
    with pytest.raises(InputError, match="--allow-removal"):
        refresh(tmp_path / "w", source)
    assert refresh(tmp_path / "w", source, allow_removal=True).counts.samples < 64


def test_what_was_refused_for_want_of_its_files_is_taken_in_once_they_are_there(tmp_path: Path) -> None:
    """The list itself does not change, and no commit holds the refused part."""
    (tmp_path / "lists").mkdir()
    pq.write_table(pa.table({"path": [f"../images/{i}.jpg" for i in range(5)]}), tmp_path / "lists" / "a.parquet")
    for _ in range(2):
        with pytest.raises(InputError, match="5 refused"):
            refresh(tmp_path / "w", tmp_path / "lists")
    (tmp_path / "images").mkdir()
    for i in range(5):
        (tmp_path / "images" / f"{i}.jpg").write_bytes(make_jpeg(i))
    first = refresh(tmp_path / "w", tmp_path / "lists")
    assert first.counts.samples == 5
    assert refresh(tmp_path / "w") == first


def test_a_killed_run_reads_no_part_again_for_what_is_still_missing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for i in range(40):
        (tmp_path / "source" / f"{i}.jpg").write_bytes(make_jpeg(i))
    pq.write_table(pa.table({"path": ["gone.jpg", "0.jpg"]}), tmp_path / "source" / "a.parquet")
    (tmp_path / "source" / "x.jpg").symlink_to("/nowhere/x.jpg")
    store = Store(str(tmp_path / "w"))
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"part_images": 100}})
    made = []
    for _ in range(3):
        pipeline.ingest_parts(pipeline.plan_refresh(store, [str(tmp_path / "source")], recipe, Machine()), 0)
        made.append(store.names("pool"))
    assert made[0] == made[1] == made[2]
    (tmp_path / "source" / "gone.jpg").write_bytes(make_jpeg(99))
    assert refresh(tmp_path / "w", tmp_path / "source", recipe=recipe).counts.quarantined == 1


def test_new_limits_for_images_do_not_empty_a_source_that_is_away(source: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    refresh(tmp_path / "w", source, tmp_path / "more")
    (tmp_path / "more").rename(tmp_path / "away")
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"thumbnail_px": 64}})
    with pytest.raises(ConfigError, match="--forget"):
        refresh(tmp_path / "w", source, recipe=recipe)
    (tmp_path / "away").rename(tmp_path / "more")
    assert refresh(tmp_path / "w", source, recipe=recipe).counts.samples == 65


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


def test_a_workspace_inside_its_source_is_skipped(source: Path, tmp_path: Path) -> None:
    refresh(source / "w", source)
    first = commits.latest(Store(str(source / "w")))
    assert refresh(source / "w", source) == first


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
    assert third.pick_changes.in_words() == f"no pick was open, {third.counts.picks} new"
    page = (tmp_path / "w" / second.report).read_text()
    assert f"Since the refresh before {second.pick_changes.in_words()}" in page
    assert "Jaccard" not in page


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


def test_a_held_workspace_is_busy(source: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "w"))
    with lease.hold(store), pytest.raises(BusyError):
        refresh(tmp_path / "w", source)


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_run_killed_anywhere_is_finished_by_the_next(source: Path, tmp_path: Path, kills: int) -> None:
    """SIGKILL when the workspace holds its n-th file, for n spread over the whole run."""
    refresh(tmp_path / "undisturbed", source)
    want = ranking(tmp_path / "undisturbed")
    total = len(files(tmp_path / "undisturbed"))
    landed = 0
    for n in range(2, total, max(1, total // kills)):
        root = tmp_path / f"w{n}"
        command = [sys.executable, "-c", _SCRIPT, str(root), str(source)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
            while child.poll() is None:
                if sum(len(names) for _, _, names in os.walk(root)) >= n:
                    child.kill()
                    landed += 1
                    break
                time.sleep(0.002)
        refresh(root, source)
        assert ranking(root).equals(want), f"killed at file {n} of {total}"
    assert landed >= kills // 2


_SCRIPT = """
import sys
from wtl_core import pipeline
from wtl_core.labelling import cut
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.storage import Store
recipe = Recipe.model_validate({"encoder": {"name": "pixels"}})
pipeline.refresh_workspace(Store(sys.argv[1]), [sys.argv[2]], recipe, Machine(embedding_part_images=16))
"""


@pytest.mark.slow
def test_a_run_killed_while_it_trains_ends_with_the_same_ranking(source: Path, tmp_path: Path) -> None:
    """SIGKILL after the first checkpoints; the next run goes on from there, to the same weights."""
    recipe = Recipe.model_validate(_SSL)
    refresh(tmp_path / "undisturbed", source, recipe=recipe)
    root = tmp_path / "killed"
    command = [sys.executable, "-c", _TRAINING_SCRIPT, str(root), str(source), json.dumps(_SSL)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        while child.poll() is None and not list(root.glob("encoders/.training/*/checkpoint.safetensors")):
            time.sleep(0.002)
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert commits.latest(Store(str(root))) is None
    assert not list(root.glob("encoders/*/card.json"))
    refresh(root, source, recipe=recipe)
    assert ranking(root).equals(ranking(tmp_path / "undisturbed"))


def test_near_duplicates_are_told_as_the_trained_encoder_measured_it(source: Path, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"encoder": {**_SSL["encoder"], "epochs": 2}})
    last = refresh(tmp_path / "w", source, recipe=recipe)
    store = Store(str(tmp_path / "w"))
    card = cards.load_card(store, last.encoder)
    assert card is not None
    assert selections.read_receipt(store, last.selection)["near_copy_distance"] == card["near_copy_distance"] > 0.0


_SSL = {"encoder": {"name": "ssl", "epochs": 60, "side_px": 32, "width": 8, "batch_images": 16}}

_TRAINING_SCRIPT = """
import json, sys
from functools import partial
from wtl_core import pipeline
from wtl_core.training import training
from wtl_core.labelling import cut
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace.storage import Store
training.train = partial(training.train, checkpoint_seconds=0)
recipe = Recipe.model_validate(json.loads(sys.argv[3]))
pipeline.refresh_workspace(Store(sys.argv[1]), [sys.argv[2]], recipe, Machine())
"""


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


def test_a_source_inside_another_may_be_known_by_both(source: Path, tmp_path: Path) -> None:
    """The outer one takes over the inner one's objects, which have not vanished."""
    refresh(tmp_path / "w", source / "loose")
    refresh(tmp_path / "w", source)
    before = files(tmp_path / "w")
    last = refresh(tmp_path / "w")
    assert last.counts.samples == 64
    assert last.number <= 3
    assert refresh(tmp_path / "w").number == last.number
    seen = arrivals.look(Store(str(tmp_path / "w")), [str(source / "loose")])
    assert not seen.is_pending
    assert before.keys() <= files(tmp_path / "w").keys()


def test_a_commit_whose_answer_was_lost_is_ours_and_anothers_is_not(source: Path, tmp_path: Path) -> None:
    record = refresh(tmp_path / "w", source)
    commits.write(Store(str(tmp_path / "w")), record)
    with pytest.raises(TransientError, match="by another process"):
        commits.write(Store(str(tmp_path / "w")), record.model_copy(update={"created": "later"}))


def test_a_picture_with_a_broken_exif_block_stops_no_report(tmp_path: Path) -> None:
    folder = build_source(tmp_path / "source", count=9)
    plain = io.BytesIO()
    Image.new("RGB", (30, 30), (9, 99, 199)).save(plain, "PNG", exif=b"Exif\0\0 no TIFF file at all")
    (folder / "exif.png").write_bytes(plain.getvalue())
    assert refresh(tmp_path / "w", folder).counts.quarantined == 1


def test_links_into_an_unmounted_disk_have_vanished_too(tmp_path: Path) -> None:
    """The links are still listed: only where they lead is gone."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "source").mkdir()
    for i in range(9):
        (tmp_path / "disk" / f"{i}.jpg").write_bytes(make_jpeg(i))
        (tmp_path / "source" / f"link-{i}.jpg").symlink_to(tmp_path / "disk" / f"{i}.jpg")
    (tmp_path / "source" / "own.jpg").write_bytes(make_jpeg(10))
    refresh(tmp_path / "w", tmp_path / "source")
    (tmp_path / "disk").rename(tmp_path / "away")
    with pytest.raises(InputError, match="9 of 10 known objects have vanished"):
        refresh(tmp_path / "w")
    assert refresh(tmp_path / "w", allow_removal=True).counts.samples == 1
    (tmp_path / "away").rename(tmp_path / "disk")
    assert refresh(tmp_path / "w").counts.samples == 10


def test_a_list_whose_files_vanished_is_refused_and_one_that_is_shorter_is_not(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(10)]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(make_jpeg(i))
    target = tmp_path / "list.txt"
    target.write_text("\n".join([*names, *(f"never-there-{i}.jpg" for i in range(20))]))
    refresh(tmp_path / "w", target)
    target.write_text("\n".join(names))  # what never was there cannot vanish
    assert refresh(tmp_path / "w").counts.quarantined == 0
    for name in names[:6]:
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="6 of 10 known objects have vanished"):
        refresh(tmp_path / "w")


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


_NAN = """
import torch
from torch import nn
from wtl_core.encoders.preprocessing import Preprocessing

class Net(nn.Module):
    def forward(self, values):
        means = values.mean(dim=(2, 3))
        return torch.where(means > {limit}, means, torch.nan)

def build():
    return Net(), Preprocessing(16)
"""


_POOLED = """
from torch import nn
from wtl_core.encoders.preprocessing import Preprocessing

def build():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), Preprocessing(16)
"""


def test_a_factory_that_was_written_anew_makes_vectors_anew_without_new_data(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edited_nets.py").write_text(_POOLED)
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe.model_validate({"encoder": {"name": "python:edited_nets:build"}})
    first = refresh(tmp_path / "w", source, recipe=recipe)
    assert refresh(tmp_path / "w", recipe=recipe) == first
    monkeypatch.delitem(sys.modules, "edited_nets")
    (tmp_path / "edited_nets.py").write_text(_POOLED + "# another version\n")
    os.utime(tmp_path / "edited_nets.py", (1, 1))
    second = refresh(tmp_path / "w", recipe=recipe)
    assert (second.number, second.encoder != first.encoder) == (2, True)
    assert second.counts.vectors == first.counts.vectors


def test_a_factory_that_draws_its_weights_is_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "drawn_nets.py").write_text(
        "from torch import nn\nfrom wtl_core.encoders.preprocessing import Preprocessing\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), Preprocessing(16)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    recipe = Recipe.model_validate({"encoder": {"name": "python:drawn_nets:build"}})
    with pytest.raises(ConfigError, match=r"expected the same weights each time .* seed it"):
        refresh(tmp_path / "w", source, recipe=recipe)


@pytest.mark.parametrize(("limit", "refused"), [(2.0, 18), (9.0, 20)])
def test_what_the_encoder_refuses_counts_against_the_quarantine_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, refused: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(17):
        (source / f"{i}.jpg").write_bytes(make_jpeg(i))
    (source / "copy.jpg").write_bytes(make_jpeg(0))
    for shade in (254, 255):
        Image.new("RGB", (40, 40), (shade,) * 3).save(source / f"white-{shade}.png")
    (tmp_path / f"nan_{refused}.py").write_text(_NAN.format(limit=limit))
    monkeypatch.syspath_prepend(str(tmp_path))
    first = refresh(tmp_path / "w", source)
    encoder = {"name": f"python:nan_{refused}:build"}
    for budget in (0.5, 1.0):
        recipe = Recipe.model_validate({"encoder": encoder, "ingest": {"quarantine_budget": budget}})
        if refused == 18 and budget == 1.0:
            assert refresh(tmp_path / "w", recipe=recipe).counts.quarantined == 18
            continue
        with pytest.raises(QuarantineBudgetError, match=rf"{refused} of 20 images .*bad_vector {refused}\).*mend"):
            refresh(tmp_path / "w", recipe=recipe)
        assert commits.latest(Store(str(tmp_path / "w"))) == first


def test_accounts_by_source_add_up_to_the_accounts(source: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    (tmp_path / "more" / "y.jpg").write_bytes(b"junk")
    record = refresh(tmp_path / "w", source, tmp_path / "more")
    assert record.by_source == {
        str(tmp_path / "more"): {"read": 2, "locations": 2, "quarantined": 1, "ignored": 0},
        str(source): {"read": 67, "locations": 66, "quarantined": 1, "ignored": 1},
    }
    for name in ("read", "locations", "quarantined", "ignored"):
        assert sum(counts[name] for counts in record.by_source.values()) == getattr(record.counts, name)


def test_a_run_stays_small_however_many_objects_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An orchestrator walks through it several times with every call."""
    rows = [("/s", f"/s/{i:05d}.tar", "tar", 2**30 + i, i, "") for i in range(300)]
    listing = pl.DataFrame(rows, schema=discover.LISTING_SCHEMA, orient="row")
    monkeypatch.setattr(discover, "list_source", lambda *given, **named: listing)
    run = pipeline.plan_refresh(Store(str(tmp_path / "w")), ["/s"], PIXELS, Machine())
    assert run.batches == 5
    assert len(repr(run)) < 3000
    plans = [plan for batch in range(run.batches) for plan in planning.parts_of(run, batch)]
    assert plans == plan_parts(listing, PIXELS.ingest)


def test_a_source_that_was_deleted_can_be_forgotten(source: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "x.jpg").write_bytes(make_jpeg(77_777))
    (more / "y.jpg").write_bytes(make_jpeg(0))  # the other source has it too
    refresh(tmp_path / "w", source)
    before = ranking(tmp_path / "w")
    assert refresh(tmp_path / "w", more).counts.duplicates == 2
    shutil.rmtree(more)
    with pytest.raises(ConfigError, match=f"wtl run --forget {more}$"):
        refresh(tmp_path / "w")
    record = refresh(tmp_path / "w", forget=[str(more)])
    assert (record.sources, record.counts.samples, record.counts.duplicates) == ([str(source)], 64, 1)
    assert ranking(tmp_path / "w").equals(before)
    assert refresh(tmp_path / "w") == record


def test_forgetting_makes_no_sense_of_what_is_not_known_or_named_too(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    with pytest.raises(ConfigError, match="expected a source of this workspace to forget"):
        refresh(tmp_path / "w", forget=[str(tmp_path / "other")])
    with pytest.raises(ConfigError, match="found both"):
        refresh(tmp_path / "w", source, forget=[str(source)])
    with pytest.raises(ConfigError, match="none named and none left"):
        refresh(tmp_path / "w", forget=[str(source)])


def test_what_a_forgotten_source_had_taken_over_goes_back(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source / "loose")
    refresh(tmp_path / "w", source)
    record = refresh(tmp_path / "w", forget=[str(source)])
    assert record.counts.read == len(list((source / "loose").iterdir()))


def test_what_another_source_holds_too_stays_when_a_third_one_is_named(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source, source / "loose")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "x.jpg").write_bytes(make_jpeg(77_777))
    record = refresh(tmp_path / "w", tmp_path / "more", forget=[str(source)])
    assert record.counts.read == len(list((source / "loose").iterdir())) + 1
    assert refresh(tmp_path / "w") == record


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
    assert "Nothing is left to label in this pool of 64 images" in page
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
