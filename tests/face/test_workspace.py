"""`import wtl`: a workspace read, cut and refreshed from Python."""

import base64
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch.utils.data import DataLoader

import wtl
from tests.conftest import build_source, make_jpeg, write_pictures
from tests.plain_refresh import ranking, refresh
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("face")
    refresh(folder / "w", build_source(folder / "source"))
    return folder / "w"


def test_importing_it_brings_neither_torch_nor_prefect_nor_lancedb_and_changes_nothing() -> None:
    code = (
        "import sys, os, logging, signal, polars\n"  # polars sets a variable for its own allocator
        "before = dict(os.environ), logging.getLogger().handlers[:], signal.getsignal(signal.SIGTERM)\n"
        "import wtl\n"
        "assert before == (dict(os.environ), logging.getLogger().handlers[:], signal.getsignal(signal.SIGTERM))\n"
        "print(sorted({'torch', 'prefect', 'lancedb', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_tables_are_those_of_the_workspace(root: Path) -> None:
    ws = wtl.open(root)
    assert_frame_equal(ws.ranking(), ranking(root))
    assert ws.pool()["sample_id"].is_sorted()
    assert set(ws.ranking()["sample_id"]) <= set(ws.pool()["sample_id"])
    assert ws.ladder().table.height == 100
    assert "random" in ws.ladder().at("10%").sentence
    found = ws.vectors()
    assert found.ids == ws.ranking()["sample_id"].to_list()
    assert np.allclose(np.linalg.norm(found.array.astype(float), axis=1), 1.0, atol=1e-3)
    assert np.array_equal(ws.vectors(found.ids[3:5]).array, found.array[3:5])
    assert ws.quarantine()["reason"].len() == ws.quarantine().height


def test_a_cut_is_a_prefix_of_the_ranking_with_its_pictures(root: Path) -> None:
    ws = wtl.open(str(root))
    picks = ws.cut("20%")
    assert picks.ids == ranking(root)["sample_id"].to_list()[: len(picks)]
    assert len(ws.cut(7)) == 7
    pictures, tensors, files = (picks.images(form) for form in ("pil", "tensor", "bytes"))
    for picture, tensor, data in zip(pictures, tensors, files, strict=True):
        assert isinstance(data, bytes)
        assert np.array_equal(np.asarray(picture), tensor.permute(1, 2, 0).numpy())
    assert [picture.size for picture in ws.images(picks.ids[:2])] == [picture.size for picture in pictures[:2]]
    assert [picture.size for picture in ws.images(picks.table.tail(1))] == [pictures[-1].size]
    with pytest.raises(wtl.InputError, match="found 1 that are not in it or can no longer be read, first nobody"):
        ws.images([*picks.ids, "nobody"])
    with pytest.raises(wtl.ConfigError, match="expected 'pil', 'tensor' or 'bytes', found 'jpeg'"):
        ws.images(picks, "jpeg")  # type: ignore[arg-type]


def test_the_map_is_a_frame_that_may_load_nothing_and_holds_the_ranking(tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", count=12)
    (photos / "3.jpg").rename(photos / "<img src=x onerror=alert(1)>.jpg")
    refresh(tmp_path / "w", photos)
    shown = wtl.open(tmp_path / "w").map(4)
    told = json.loads(re.findall(r'id="told">(.*?)</script>', shown.page)[0])
    ranks = np.frombuffer(zlib.decompress(base64.b64decode(told["columns"]["rank"])), np.uint32)
    assert (ranks.tolist(), told["picks"]) == (list(range(12)), 4)
    assert [name for name, _ in told["shown"]] == ranking(tmp_path / "w")["uri"].to_list()
    assert all(base64.b64decode(data).startswith(b"\xff\xd8") for _, data in told["shown"])
    html = shown._repr_html_()
    assert html.startswith('<iframe sandbox="allow-scripts"')
    assert html.count("<") == 2
    assert "<img src" not in shown.page
    shutil.rmtree(next((tmp_path / "w" / "encoders").glob("*/positions")))
    with pytest.raises(wtl.ConfigError, match="expected places on a map, found none"):
        wtl.open(tmp_path / "w").map()


def test_everything_shows_itself_in_a_notebook_with_names_made_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "<script>alert(1)<b>"
    folder.mkdir()
    write_pictures(folder / "a", count=30)
    refresh(tmp_path / "w", folder / "a")
    ws = wtl.open(tmp_path / "w")
    for shown in (ws, ws.ladder(), ws.cut(30)):
        html = shown._repr_html_()
        assert "<script>" not in html
        assert html.count("<p>") == html.count("</p>") > 0
    assert ws.cut(30)._repr_html_().count("<img") == 24
    assert "and 6 more" in ws.cut(30)._repr_html_()
    figure = ws.ladder().plot()
    assert [axes.get_title() for axes in figure.axes] == ["Every operating point", "The first 10 %"]


def test_picks_train_in_torch_with_the_classes_of_the_ledger(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    ws = wtl.open(tmp_path / "w")
    ids = ws.ranking()["sample_id"].to_list()
    picks = ws.cut(6)
    ledger.append(Store(str(tmp_path / "w")), "labelled", ids[6:9], classes=[("tram",), ("bus",), ()])
    chosen = wtl.Picks(Store(ws.place), pl.DataFrame({"sample_id": ids[5:9]}))
    data = chosen.dataset(lambda image: image.float() / 255)
    assert data.classes == ["bus", "empty", "tram"]
    images, targets = next(iter(DataLoader(data, batch_size=4)))
    assert images.shape == (4, 3, 40, 40)
    assert targets.tolist() == [-1, 2, 0, 1]
    assert len(picks.dataset()) == 6
    ledger.append(Store(ws.place), "labelled", ids[:1], classes=[("bus", "tram")])
    several = wtl.Picks(Store(ws.place), pl.DataFrame({"sample_id": [ids[0], ids[5], ids[6]]})).dataset()
    assert several[0][1].tolist() == [1.0, 0.0, 1.0]
    assert torch.isnan(several[1][1]).all()
    assert several[2][1].tolist() == [0.0, 0.0, 1.0]


def test_each_side_of_a_split_has_the_targets_of_the_others(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    ws = wtl.open(tmp_path / "w")
    ids = ws.ranking()["sample_id"].to_list()
    labels = pl.DataFrame({"sample_id": ids[:3], "label": ["ant", "bee", "cow"]})
    ws.labels.add(labels)
    part = wtl.Picks(Store(ws.place), pl.DataFrame({"sample_id": ids[1:3]})).dataset()
    assert part.classes == ["ant", "bee", "cow"]
    assert [part[0][1], part[1][1]] == [1, 2]
    ws.labels.add(pl.DataFrame({"sample_id": ids[3:4], "label": [["ant", "bee"]]}))
    part = wtl.Picks(Store(ws.place), pl.DataFrame({"sample_id": ids[1:3]})).dataset()
    assert part[1][1].tolist() == [0.0, 0.0, 1.0]


def test_what_the_commands_refuse_is_refused_here_and_nothing_is_entered(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    ws = wtl.open(tmp_path / "w")
    first, vector = ws.ranking()["sample_id"][0], ws.vectors().array[0]
    refused: list[tuple[str, Callable[[], object]]] = [
        ("expected a reason out of unusable, redundant, found 'ugly'", lambda: ws.skip([first], "ugly")),  # type: ignore[arg-type]
        ("expected at least one new image, found -3", lambda: ws.export(tmp_path / "b.csv", new=-3)),
        ("expected at least one new image, found 0", lambda: ws.export(tmp_path / "b.csv", new=0)),
        ("expected the name of a batch in UTF-8", lambda: ws.export(tmp_path / "b.csv", new=1, name="\udcff")),
        ("expected a format out of csv, .*, found 'xml'", lambda: ws.export(tmp_path / "b.xml", new=1, form="xml")),
        ("expected a side of the split out of train, .*, found 'dev'", lambda: ws.cut(1, split="dev")),
        (
            "expected no controls of test",
            lambda: ws.export(tmp_path / "b.csv", new=2, control="1", split="test"),
        ),
        ("expected a vector of finite numbers", lambda: ws.similar(np.full_like(vector, np.nan))),
        ("column camera: expected a column of the pool", lambda: ws.split(test=25, group_by="camera")),
    ]
    for told, call in refused:
        with pytest.raises(wtl.WtlError, match=told):
            call()
    assert ledger.length(Store(ws.place)) == 0
    assert not list(tmp_path.glob("b.*"))


def test_a_refresh_gives_what_the_command_gives_and_says_whether_it_is_new(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "photos", count=12)
    with pytest.raises(wtl.ConfigError, match="expected a workspace, found none"):
        wtl.open(tmp_path / "w")
    ws = wtl.open(tmp_path / "w", create=True)
    with pytest.raises(wtl.ConfigError, match="found none yet; `refresh\\(SOURCE\\)` makes one"):
        ws.ranking()
    assert "no refresh yet" in ws._repr_html_()
    done = ws.refresh(source, encoder="pixels", budget="25%", workers=1)
    assert (done.refresh, done.samples, done.ranking.advice is not None, done.new_samples) == (1, 12, True, 12)
    assert ws.cut("25%").ids == ws.ranking()["sample_id"].to_list()[:3]
    unchanged = ws.refresh(workers=1)
    assert (unchanged.refresh, unchanged.new_samples) == (1, 0)
    (source / "more.jpg").write_bytes(make_jpeg(99, 40))
    (tmp_path / "recipe.toml").write_text('[encoder]\nname = "pixels"\n[selection]\nbudget = 5\n')
    again = ws.refresh(recipe=tmp_path / "recipe.toml", workers=1)
    assert (again.refresh, again.samples, again.budget) == (2, 13, 5)
    with pytest.raises(wtl.ConfigError, match=r"recipe: .*bugdet"):
        ws.refresh(recipe={"selection": {"bugdet": 5}})
    with pytest.raises(wtl.ConfigError, match="device quantum: expected auto, cpu"):
        ws.refresh(device="quantum", budget=2)


def test_labels_come_from_frames_and_files_with_their_classes(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=6))
    ws = wtl.open(tmp_path / "w")
    ids = ws.ranking()["sample_id"].to_list()
    frame = pl.DataFrame({"sample_id": ids[:3], "classes": [["tram", "bus"], ["bus"], []]})
    added = ws.labels.add(frame, origin="my notebook")
    assert (added.added, added.classes) == (3, {"bus": 2, "tram": 1, "empty": 1})
    assert ws.labels()["origin"].unique().to_list() == ["my notebook"]
    assert ws.labels.add(frame).entry == 0
    other = pl.DataFrame({"photo": ["0.jpg", "nowhere.jpg"], "what": ["Tram", "cat"]})
    with pytest.raises(wtl.InputError, match=r"a frame: expected names of samples, found 1 .*nowhere"):
        ws.labels.add(other, column="photo", class_column="what")
    with pytest.raises(wtl.InputError, match="expected one spelling of each class"):
        ws.labels.add(other, column="photo", class_column="what", partial=True)
    again = ws.labels.add(other, column="photo", class_column="what", partial=True, rename={"Tram": "tram"})
    assert (again.found, again.left_out, again.aside) == (1, 1, "")
    with pytest.raises(wtl.ConfigError, match="a frame: expected labels, found no column that names samples"):
        ws.labels.add(pl.DataFrame({"a": [1]}))
    pl.DataFrame({"path": ["1.jpg"], "label": ["bus"]}).write_csv(tmp_path / "labels.csv")
    assert ws.labels.add(tmp_path / "labels.csv").found == 1


def test_labels_are_listed_and_undone(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=6))
    ws = wtl.open(tmp_path / "w")
    ids = ws.ranking()["sample_id"].to_list()
    ledger.append(Store(ws.place), "labelled", ids[:3], classes=[("a",), ("b",), ()])
    assert sorted(ws.labels()["sample_id"]) == sorted(ids[:3])
    assert ws.labels.undo(ids[:1]).samples == 1
    assert ws.labels().height == 2
    assert ws.labels.undo().samples == 2
    with pytest.raises(wtl.ConfigError, match="expected labels to take back, found none"):
        ws.labels.undo()
    assert repr(ws.labels) == "Labels(0 images)"


def test_images_like_one_are_found_by_name_by_vector_and_by_a_picture_from_elsewhere(root: Path) -> None:
    ws = wtl.open(root)
    first = ws.ranking()["sample_id"][0]
    by_name = ws.similar(first, count=5)
    assert first not in by_name.ids
    vector = ws.vectors([first]).array[0]
    by_vector = ws.similar(vector, count=6)
    assert by_vector.ids == [first, *by_name.ids]
    [data] = ws.images([first], "bytes")
    [picture] = ws.images([first])
    assert ws.similar(data, count=6).ids == ws.similar(picture, count=6).ids == by_vector.ids
    assert by_vector.table["similarity"].is_sorted(descending=True)
    assert len(by_name.images()) == 5
    with pytest.raises(wtl.InputError, match="bytes: expected an image, found"):
        ws.similar(b"no image")
    with pytest.raises(wtl.InputError, match=r"nowhere\.jpg: expected an image, found"):
        ws.similar(Path("nowhere.jpg"))
    with pytest.raises(wtl.InputError, match="expected one vector of"):
        ws.similar(vector[:3])


def test_skipped_images_leave_the_cut_until_they_are_taken_back(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=8))
    ws = wtl.open(tmp_path / "w")
    before = ws.cut(4).ids
    assert ws.skip(before[:1], "unusable").changed == 1
    assert ws.cut(3).ids == before[1:]
    assert ws.skipped()["reason"].to_list() == ["unusable"]
    ws.unskip()
    assert ws.cut(4).ids == before
    assert ws.skipped().is_empty()


def test_batches_are_handed_out_once_and_come_back(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=12))
    ws = wtl.open(tmp_path / "w")
    batch = ws.export(tmp_path / "first.csv", new=4, due="3d")
    assert batch.ids == ws.ranking()["sample_id"].to_list()[:4]
    assert pl.read_csv(tmp_path / "first.csv")["sample_id"].to_list() == batch.ids
    assert ws.export(tmp_path / "first.csv", new=4).ids == batch.ids
    second = ws.export(tmp_path / "tasks.json", new=2, form="label-studio", name="second")
    assert not set(second.ids) & set(batch.ids)
    assert ws.batches()["images"].to_list() == [4, 2]
    ws.labels.add(pl.DataFrame({"sample_id": batch.ids, "label": ["a", "b", "a", "b"]}))
    assert ws.batches()["out"].to_list() == [0, 2]
    assert len(ws.labelled()) == 4
    with pytest.raises(wtl.ConfigError, match="export: expected one of new and at"):
        ws.export(tmp_path / "none.csv")


def test_a_split_has_its_sides_and_trains_on_what_is_labelled_of_one(tmp_path: Path) -> None:
    refresh(tmp_path / "w", write_pictures(tmp_path / "photos", count=40))
    ws = wtl.open(tmp_path / "w")
    sides = ws.split(test=25)
    assert dict(sides["split"].value_counts().iter_rows()) == {"train": 30, "test": 10}
    assert ws.split().equals(sides)
    test = sides.filter(pl.col("split") == "test")["sample_id"].to_list()
    assert set(ws.cut(5, split="test").ids) <= set(test)
    assert not set(ws.cut("100%").ids) & set(test)
    ws.labels.add(pl.DataFrame({"sample_id": sides["sample_id"], "label": ["a", "b"] * 20}))
    assert set(ws.labelled("test").ids) == set(test)
    assert len(ws.labelled("train").dataset()) == 30
    with pytest.raises(wtl.ConfigError, match="an image never changes sides"):
        ws.split(test=50)
