"""Shards to parts to the pool: accounts, identity, order, kills, changes, retries, bytes and references."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from tests.conftest import build_source, make_jpeg
from tests.plain_ingest import PARAMS, parts_of, plans_of, refresh, write_tar
from wtl_core.errors import CorruptArtifactError, InputError
from wtl_core.images.faults import Reason
from wtl_core.machine import Machine
from wtl_core.pool import ingest, live_pool
from wtl_core.pool.part_plan import snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.workspace.accounts import SourceAccounts
from wtl_core.workspace.storage import open_store


def test_every_file_and_member_is_accounted_for(source: Path, tmp_path: Path) -> None:
    _, found = refresh(source, tmp_path / "w")
    counts = found.counts
    assert counts == live_pool.PoolCounts(
        read=67, locations=66, samples=64, duplicates=1, quarantined=1, ignored=1, filtered=0
    )
    assert counts.read == counts.locations + counts.ignored
    assert counts.locations == counts.samples + counts.duplicates + counts.quarantined
    assert found.quarantine["reason"].to_list() == ["truncated"]
    assert found.ignored["uri"].to_list() == [str(source / "notes.txt")]


def test_samples_are_sorted_by_content_and_know_their_smallest_location(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_tar(source / "b.tar", [("z.jpg", make_jpeg(1)), ("a.jpg", make_jpeg(1)), ("a.jpg", make_jpeg(2))])
    (source / "c.jpg").write_bytes(make_jpeg(1))
    store, found = refresh(source, tmp_path / "w")
    assert found.samples["sample_id"].is_sorted()
    assert live_pool.sample_ids(store, snapshot_rows(plans_of(source))).equals(found.samples["sample_id"])
    row = found.samples.filter(pl.col("locations") == 3).row(0, named=True)
    assert (row["uri"], row["object_uri"], row["key"]) == (f"{source}/b.tar#a.jpg", f"{source}/b.tar", "a.jpg")


def test_a_count_that_is_known_spares_the_comparison_and_changes_no_location(source: Path, tmp_path: Path) -> None:
    store, found = refresh(source, tmp_path / "w")
    every = snapshot_rows(plans_of(source))
    fewer = every.filter(~pl.col("uri").str.ends_with("loose/copy.jpg"))  # its part still holds the row
    columns = ["sample_id", "uri", "phash"]
    for snapshot, gone in ((every, 0), (fewer, 1)):
        count = found.counts.samples + found.counts.duplicates - gone
        plain = live_pool.load_locations(store, snapshot, columns=columns).select(columns).sort("uri")
        assert plain.height == count
        for told in (count, None):
            rows = live_pool.load_locations(store, snapshot, columns=columns, count=told)
            assert rows.select(columns).sort("uri").equals(plain)


def test_the_pool_is_the_same_whatever_shards_hold_the_images(tmp_path: Path) -> None:
    columns = ["sample_id", "pixel_digest", "phash", "sharpness", "width", "duplicate_of"]
    pools = [refresh(build_source(tmp_path / f"s{i}", order_seed=i), tmp_path / f"w{i}")[1] for i in (0, 1)]
    assert pools[0].samples.select(columns).equals(pools[1].samples.select(columns))
    groups = [live_pool.near_groups(pool.samples) for pool in pools]
    assert groups[0].equals(groups[1])
    assert pools[0].counts == pools[1].counts


def test_parts_are_byte_equal_with_one_worker_or_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "IMAGES_WORTH_A_WORKER", 0)
    source, params = build_source(tmp_path / "source"), IngestParams(part_images=20)
    alone, _ = refresh(source, tmp_path / "alone", params, workers=1)
    progress: list[tuple[int, int]] = []
    store, plans = open_store(str(tmp_path / "many")), plans_of(source, params)
    assert len(plans) >= 3
    counts = ingest.run_many(
        plans, store, params, Machine(workers=2), on_progress=lambda done, total: progress.append((done, total))
    )
    assert [each.digest for each in counts] == [plan.digest for plan in plans]
    assert parts_of(Path(alone.root)) == parts_of(Path(store.root))
    assert progress[-1][0] == progress[-1][1]


SCRIPT = """
from wtl_core.machine import Machine
from wtl_core.pool import ingest
from wtl_core.pool.part_plan import plan_parts
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.workspace.storage import open_store
ingest.IMAGES_WORTH_A_WORKER = 0
params = IngestParams(part_images=20)
plans = plan_parts(discover.list_source({source!r}), params)
{guard}ingest.run_many(plans, open_store({root!r}), params, Machine(workers=2))
"""


@pytest.mark.parametrize("guard", ["", 'if __name__ == "__main__": '])
def test_a_script_without_a_main_guard_is_told_to_have_one(tmp_path: Path, guard: str) -> None:
    source, script = build_source(tmp_path / "source"), tmp_path / "mine.py"
    script.write_text(SCRIPT.format(guard=guard, source=str(source), root=str(tmp_path / "w")))
    run = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    if guard:
        assert run.returncode == 0, run.stderr
        assert list((tmp_path / "w" / "pool").iterdir())
        return
    assert run.returncode == 1
    assert f'ConfigError: {script}: expected `if __name__ == "__main__":`' in run.stderr
    assert "bootstrapping" not in run.stderr
    assert run.stderr.count("Traceback") == 1


def test_parts_are_byte_equal_with_one_thread_or_several(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    members = []
    for i in range(40):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (160, 200, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=95)
        data = buffer.getvalue()
        members += [(f"{i}.jpg", data if i % 7 else data[:9000]), (f"{i}.small.jpg", make_jpeg(i)), (f"{i}.bin", b"x")]
    write_tar(source / "a.tar", members)
    params = IngestParams(thumbnails_per_part=11)
    for threads in (1, 3):
        refresh(source, tmp_path / f"w{threads}", params, workers=threads)
    assert parts_of(tmp_path / "w1") == parts_of(tmp_path / "w3")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_the_quarantine_budget_refuses_above_its_share(share: float) -> None:
    quarantine = pl.DataFrame({"reason": ["truncated", "empty"]})
    by_source = {
        "/a": SourceAccounts(read=60, locations=60, quarantined=0, ignored=0),
        "/b": SourceAccounts(read=41, locations=40, quarantined=2, ignored=1),
    }
    params = IngestParams(quarantine_budget=share)
    if share >= 0.02:
        ingest.check_quarantine_budget(quarantine, by_source, params)
    else:
        with pytest.raises(InputError, match=r"2 of 100 images \(2.0%\).*truncated 1; 2 of them in /b"):
            ingest.check_quarantine_budget(quarantine, by_source, params)
    ingest.check_quarantine_budget(quarantine.clear(), {}, params)


def test_only_what_claims_to_be_an_image_is_quarantined(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    contents = {
        "a.jpg": b"",
        "b.png": b"text",
        "c.dat": b"\xff\xd8\xffjunk",
        "d.txt": b"text",
        "e": b"",
        "f.svg": b"<svg/>",
    }
    for name, data in contents.items():
        (source / name).write_bytes(data)
    (source / "g.tar").write_bytes(b"junk")
    _, found = refresh(source, tmp_path / "w")
    reasons = {Path(row["uri"]).name: row["reason"] for row in found.quarantine.iter_rows(named=True)}
    assert reasons == {
        "a.jpg": "empty",
        "b.png": "not_an_image",
        "c.dat": "truncated",
        "f.svg": "unsupported",
        "g.tar": "broken_shard",
    }
    assert {Path(uri).name for uri in found.ignored["uri"]} == {"d.txt", "e"}
    assert found.counts.read == 7


def test_an_empty_or_wholly_broken_source_still_makes_its_part(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"junk")
    store, found = refresh(source, tmp_path / "w")
    assert found.samples.is_empty()
    assert (found.counts.quarantined, found.counts.samples) == (1, 0)
    nothing = pl.DataFrame(schema=discover.SNAPSHOT_SCHEMA)
    assert live_pool.load(store, nothing).counts.read == 0
    assert live_pool.sample_ids(store, nothing).to_list() == []
    assert live_pool.near_groups(live_pool.load(store, nothing).samples).is_empty()


def test_a_missing_part_is_said_so(source: Path, tmp_path: Path) -> None:
    store, _ = refresh(source, tmp_path / "w")
    next((tmp_path / "w" / "pool").iterdir()).unlink()
    with pytest.raises(CorruptArtifactError, match="cannot be read"):
        live_pool.load(store, snapshot_rows(plans_of(source)))


def test_an_archive_cut_in_the_middle_keeps_what_came_before(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_tar(source / "a.tar", [(f"{i}.jpg", make_jpeg(i)) for i in range(5)])
    data = (source / "a.tar").read_bytes()
    (source / "a.tar").write_bytes(data[: len(make_jpeg(0)) * 3])
    _, found = refresh(source, tmp_path / "w")
    assert found.quarantine.select("reason", "key").rows() == [("broken_shard", "")]
    assert found.counts.samples == found.counts.locations - 1 >= 1


def test_every_reason_has_a_code_and_counts_add_up(source: Path, tmp_path: Path) -> None:
    (plan,) = plans_of(source)
    counts = ingest.run(plan, open_store(str(tmp_path / "w")), PARAMS)
    assert counts.read == counts.images + counts.quarantined + counts.ignored
    assert counts.reasons == {"truncated": 1}
    assert len({str(reason) for reason in Reason}) == len(Reason)


def test_planning_imports_no_torch() -> None:
    modules = "wtl_core.recipe.recipe, wtl_core.shards.discover, " + ", ".join(
        f"wtl_core.pool.{name}" for name in ("live_pool", "part_plan", "part_file")
    )
    code = f"import {modules}, sys; assert 'torch' not in sys.modules and 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_row_that_names_no_uri_at_all_is_one_refused_row(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.jpg").write_bytes(make_jpeg(1))
    rows = [f"{source}/a.jpg", "file://[x/b.jpg", "s3://"]
    pl.DataFrame({"uri": rows}).write_parquet(source / "list.parquet")
    _, found = refresh(source, tmp_path / "w")
    assert found.counts.samples == 1
    assert found.quarantine["reason"].to_list() == ["unsupported", "unsupported"]
