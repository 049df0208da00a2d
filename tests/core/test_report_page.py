"""What the HTML report of a refresh says, and the columns that its map and its slider are drawn from."""

import base64
import io
import json
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import make_jpeg, write_pictures
from tests.near_duplicates import write_near_duplicates
from tests.plain_ingest import write_tar
from tests.plain_refresh import PIXELS, ranking, refresh
from wtl_core.labelling import batches
from wtl_core.labelling.batches import Asked
from wtl_core.pool import live_pool
from wtl_core.recipe.recipe import Recipe
from wtl_core.report import columns, contact_sheet, page, sections, small_pictures
from wtl_core.workspace import commits, ledger, snapshots
from wtl_core.workspace.storage import Store


def page_of(workspace: Path) -> str:
    store = Store(str(workspace))
    last = commits.latest(store)
    assert last is not None
    return store.read_bytes(last.report).decode()


def test_the_report_counts_near_duplicate_groups_and_names_the_largest(tmp_path: Path) -> None:
    write_near_duplicates(tmp_path / "source", pairs=3, alone=2)
    refresh(tmp_path / "w", tmp_path / "source")
    page = page_of(tmp_path / "w")
    assert "Near-duplicate groups: 3 groups of 6 images, the largest of 2." in page
    assert page.count("<h3>2 images") == 3


def test_a_report_without_near_duplicates_says_nothing_of_groups(tmp_path: Path) -> None:
    write_near_duplicates(tmp_path / "source", pairs=0, alone=4)
    refresh(tmp_path / "w", tmp_path / "source")
    assert "Near-duplicate groups" not in page_of(tmp_path / "w")


def element(text: str, name: str) -> str:
    found = re.search(rf'<script type="[a-z/]*" id="{name}"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert found is not None, name
    return found[1]


def column(text: str, name: str, kind: str = "<u4") -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(element(text, f"c-{name}"))), kind)


def told(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(element(text, "told"))
    return found


def names(text: str) -> list[str]:
    lines = zlib.decompress(base64.b64decode(element(text, "c-names"))).decode().split("\n")
    return [told(text)["prefix"] + line for line in lines]


def test_the_columns_say_of_every_image_what_the_ranking_says(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    text = page_of(tmp_path / "w")
    ranked = ranking(tmp_path / "w")
    named = names(text)
    assert named == sorted(named)
    assert len(named) == 64
    rank, parent, stands = (column(text, name) for name in ("rank", "parent", "stands"))
    rank_of = dict(ranked.select("sample_id", "rank").iter_rows())
    for row in ranked.to_dicts():
        at = named.index(row["uri"])
        assert (rank[at], stands[at]) == (row["rank"], row["stands_for"])
        earlier = row["nearest_earlier"]
        assert parent[at] == (columns.NONE if earlier is None else rank_of[earlier])
    assert [rung["count"] for rung in told(text)["rungs"]] == sorted(rung["count"] for rung in told(text)["rungs"])
    assert len(column(text, "preview", "u1")) == 24 * 64
    pictures = base64.b64decode(element(text, "thumbs"))
    assert column(text, "thumbSize", "<u2").sum() == len(pictures)
    assert len(column(text, "thumbRow")) == 64


def test_what_is_labelled_and_what_has_arrived_is_marked(source: Path, tmp_path: Path) -> None:
    refresh(tmp_path / "w", source)
    done = ranking(tmp_path / "w").head(2)
    ledger.append(Store(str(tmp_path / "w")), "labelled", done["sample_id"].to_list(), classes=[["a"], ["b"]])
    (source / "new.jpg").write_bytes(make_jpeg(1000))
    refresh(tmp_path / "w", source)
    text = page_of(tmp_path / "w")
    flags, named = column(text, "flags", "u1"), names(text)
    assert {named[at] for at in np.flatnonzero(flags & columns.LABELLED)} == set(done["uri"])
    assert [named[at] for at in np.flatnonzero(flags & columns.ARRIVED)] == [str(source / "new.jpg")]
    assert (column(text, "rank")[flags & columns.LABELLED > 0] == columns.NONE).all()
    assert "2 images are labelled" in text
    [by_label] = [group for group in told(text)["groupings"] if group["name"].startswith("class")]
    assert by_label["values"] == ["(not known)", "a", "b"]


def test_what_is_handed_out_is_marked_and_its_batch_listed_until_it_is_back(source: Path, tmp_path: Path) -> None:
    first = refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    batch = batches.hand_out(store, Asked(new=3)).table
    ledger.append(store, "labelled", batch["sample_id"].to_list()[:1], classes=[["a"]])
    (source / "new.jpg").write_bytes(make_jpeg(1000))
    second = refresh(tmp_path / "w", source)
    text = page_of(tmp_path / "w")
    flags, named = column(text, "flags", "u1"), names(text)
    assert {named[at] for at in np.flatnonzero(flags & columns.OUT)} == set(batch["uri"][1:])
    assert told(text)["out"] == 2
    assert '<td class="name">batch-001</td><td>3</td><td>1</td><td>0</td><td>2</td><td></td>' in text
    assert f"{second.counts.samples - 1} of them ranked" in text
    # What changed is told as a share of what labelling everything would give.
    shares = [f"{100 * one.coverage['10'] / one.coverage['100']:.1f} %" for one in (first, second)]
    assert f"<td>10 %</td><td>{shares[0]}</td><td>{shares[1]}</td>" in text
    ledger.append(store, "labelled", batch["sample_id"].to_list()[1:], classes=[["a"], ["b"]])
    refresh(tmp_path / "w", source)
    assert "Batches that are out" not in page_of(tmp_path / "w")


def test_the_first_report_says_what_to_do_where_there_is_nothing_yet(tmp_path: Path) -> None:
    write_near_duplicates(tmp_path / "source", pairs=0, alone=4)
    refresh(tmp_path / "w", tmp_path / "source")
    text = page_of(tmp_path / "w")
    for said in ("No image is labelled yet", "Nothing divides this pool", "Nothing was refused", "No two images"):
        assert said in text


def test_a_page_of_a_pool_in_which_nothing_is_left_to_label(tmp_path: Path) -> None:
    write_near_duplicates(tmp_path / "source", pairs=0, alone=4)
    refresh(tmp_path / "w", tmp_path / "source")
    ledger.append(Store(str(tmp_path / "w")), "labelled", ranking(tmp_path / "w")["sample_id"].to_list())
    refresh(tmp_path / "w", tmp_path / "source")
    text = page_of(tmp_path / "w")
    assert told(text)["ranked"] == 0
    assert "Add images to the sources" in text


def test_no_name_and_no_metadata_can_end_the_element_that_holds_it(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    folder = tmp_path / "source"
    folder.mkdir()
    members = []
    for seed in range(6):
        values = {"camera": hostile if seed % 2 else "a&b", "__proto__": "x", hostile: str(seed % 2)}
        members.append((f"{seed}<svg onload=alert(2)>.jpg", make_jpeg(seed)))
        members.append((f"{seed}<svg onload=alert(2)>.json", json.dumps(values).encode()))
    write_tar(folder / "<i>.tar", members)
    (folder / "<b>broken.jpg").write_bytes(b"no image")
    refresh(tmp_path / "w", folder)
    text = page_of(tmp_path / "w")
    assert "onerror=alert(1)>" not in text.replace("\\u003e", "")
    assert "<svg onload" not in text
    assert "&lt;b&gt;broken.jpg" in text
    assert all(name.endswith("<svg onload=alert(2)>.jpg") for name in names(text))
    assert {group["name"] for group in told(text)["groupings"]} == {"camera", hostile}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]


def test_json_in_a_page_keeps_its_meaning() -> None:
    value = {"a": "</script>", "b": ["<!--", "&amp;", "\u2028"], "c": 1.5}
    text = page.as_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_large_pool_is_shown_in_part_and_the_first_ranks_are_all_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "_MOST_ROWS", 50)
    monkeypatch.setattr(page, "_COMPLETE", 40)
    refresh(tmp_path / "w", write_pictures(tmp_path / "source", count=240))
    text = page_of(tmp_path / "w")
    rank = column(text, "rank")
    assert set(range(40)) <= set(rank.tolist())
    assert len(rank) < 240
    assert told(text)["weight"] > 1
    assert "counts beyond rank 40 are estimates" in text


def test_a_contact_sheet_shows_the_first_picks_and_what_arrived(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "source", count=12)
    first = refresh(tmp_path / "w", source)
    assert sheet_of(tmp_path / "w", first).size == (1004, 122)
    (source / "new.jpg").write_bytes(make_jpeg(1000))
    second = refresh(tmp_path / "w", source)
    assert sheet_of(tmp_path / "w", second).size == (1004, 240)


def sheet_of(workspace: Path, commit: commits.Commit) -> Image.Image:
    store = Store(str(workspace))
    live = live_pool.load(store, snapshots.read_snapshot(store, commit.listing))
    data = contact_sheet.draw(store, commit, live)
    assert data is not None
    return Image.open(io.BytesIO(data))


def test_large_files_without_a_thumbnail_are_decoded_for_the_most_important_images_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    for seed in range(5):
        grains = np.random.default_rng(seed).integers(0, 256, (200, 300, 3), dtype=np.uint8)
        Image.fromarray(grains).save(folder / f"{seed}.jpg", quality=95)
    (folder / "small.jpg").write_bytes(make_jpeg(9))
    recipe = Recipe.model_validate({**PIXELS.model_dump(), "ingest": {"thumbnails_per_part": 0}})
    commit = refresh(tmp_path / "w", folder, recipe=recipe)
    store = Store(str(tmp_path / "w"))
    samples = live_pool.load(store, snapshots.read_snapshot(store, commit.listing)).samples.sort("uri")
    monkeypatch.setattr(small_pictures, "_MOST_DECODED", 2)
    found = small_pictures.read(store, samples, side=64, budget_bytes=1 << 20)
    assert set(found) == {*samples["sample_id"].head(2), samples["sample_id"][-1]}
    for data in found.values():
        with Image.open(io.BytesIO(data)) as image:
            assert max(image.size) <= 64


@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_the_level_in_the_middle_is_the_median_of_the_pool(count: int) -> None:
    values = np.random.default_rng(count).gamma(2, 2000, count)
    codes, shown = columns.levels(values)
    assert shown[127] == float(f"{np.median(values):.4g}")
    assert codes.max() < len(shown) == 255
    if count > 255:  # each image is shown as a value near its own
        order = np.argsort(values)
        assert (np.diff(codes[order].astype(int)) >= 0).all()
        inside = order[50:-50]
        assert np.abs(np.array(shown)[codes[inside]] / values[inside] - 1).max() < 0.1


@pytest.mark.parametrize(
    ("value", "text"), [(3850.4, "3,850"), (99.96, "100"), (12.34, "12.3"), (0.0123, "0.0123"), (1e6, "1,000,000")]
)
def test_measures_are_never_shown_as_powers_of_ten(value: float, text: str) -> None:
    assert sections.figure(value) == text


def test_ranges_of_a_key_with_large_numbers_are_written_out(tmp_path: Path) -> None:
    members = []
    for i in range(30):
        metadata = json.dumps({"height": 10_000 + 1234 * i}).encode()
        members += [(f"{i}.jpg", make_jpeg(i, 32)), (f"{i}.json", metadata)]
    (tmp_path / "source").mkdir()
    write_tar(tmp_path / "source" / "a.tar", members)
    refresh(tmp_path / "w", tmp_path / "source")
    text = page_of(tmp_path / "w")
    values = next(group["values"] for group in told(text)["groupings"] if group["name"] == "height")
    assert len(values) == 5
    assert not any("e+" in value for value in values)
    assert "near-duplicates of it, which are easy, are left out" in text
