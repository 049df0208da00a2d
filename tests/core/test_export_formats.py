"""Batches in the formats of labelling tools: what is written, that nothing is lost on the way, and what is refused.

COCO's list is read by pycocotools and the tar by webdataset, as their users do. What stands for the other tools puts a
class to each image by the name that the tool gives back.
"""

import csv
import io
import json
import os
import tarfile
import urllib.error
import urllib.request
from base64 import b64decode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import fsspec
import polars as pl
import pytest
import yaml

from tests.conftest import build_source, make_jpeg, make_tinted
from tests.plain_refresh import refresh
from tests.small_batches import write_batch
from wtl_core.errors import ConfigError
from wtl_core.labelling import batch_files, batch_images, batches, labels
from wtl_core.labelling.batches import Asked, Batch
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

HOSTILE = (
    *(
        "two\nlines 'q\".jpg",
        "=cmd|'x'!A0.jpg",
        "'=a.jpg",
        "שלום\u202e.jpg",
        "<b>&amp;.jpg",
        "a;b|c,d.jpg",
        "été 日本.jpg",
    ),
    *("a%20b#c?d.jpg", "+1.jpg", "@x.jpg", "-1.jpg", " blank .jpg", "no ending", "sub/e.jpg", "other/e.jpg"),
)
COPIES = ("folder", "yolo", "webdataset")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace `w` of loose images in `photos`, whose names are hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    for number, name in enumerate(HOSTILE):
        file = folder / "photos" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(make_jpeg(number) if number % 2 else make_tinted(number, (200, 90, number)))
    refresh(folder / "w", folder / "photos")
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace `w` of 64 images in a tar, a Parquet file and loose files."""
    folder = tmp_path_factory.mktemp("mixed")
    refresh(folder / "w", build_source(folder / "source"))
    return folder


def copied(folder: Path, target: Path) -> Store:
    """A workspace of one's own: sources stay where they are."""
    fsspec.filesystem("file").copy(str(folder / "w"), str(target / "w"), recursive=True)
    return Store(str(target / "w"))


def members(tar_file: Path) -> dict[str, bytes]:
    with tarfile.open(tar_file) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def classes_in(store: Store) -> dict[str, list[str]]:
    return dict(ledger.labels(ledger.read(store)).select("sample_id", "classes").iter_rows())


# ----------------------------------------------------------------------------------------------- the circle, by names


def of_coco(file: Path, _: Batch) -> Any:
    data = json.loads(file.read_text())
    for image in data["images"]:  # a tool keeps what COCO describes
        for key in image.keys() - {"id", "file_name", "width", "height"}:
            del image[key]
    data["categories"] = [{"id": image["id"], "name": f"c{image['id']}"} for image in data["images"]]
    data["annotations"] = [{"id": i, "image_id": i["id"], "category_id": i["id"]} for i in data["images"]]
    return json.dumps(data)


def of_cvat(file: Path, _: Batch) -> str:
    version, kind, *lines = map(json.loads, file.read_text().splitlines())
    assert (version, kind) == ({"version": "1.1"}, {"type": "images"})
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, line in enumerate(lines, 1):
        image = ElementTree.SubElement(root, "image", name=line["name"] + line["extension"])
        ElementTree.SubElement(image, "tag", label=f"c{number}")
    return ElementTree.tostring(root, encoding="unicode")


def of_label_studio(file: Path, _: Batch) -> str:
    tasks = json.loads(file.read_text())
    for number, task in enumerate(tasks, 1):
        task["data"] = {"image": task["data"]["image"]}
        value = {"choices": [f"c{number}"]}
        task["annotations"] = [{"result": [{"from_name": "choice", "type": "choices", "value": value}]}]
    return json.dumps(tasks)


def of_table(file: Path, _: Batch) -> str:
    rows = pl.read_csv(file, infer_schema=False)
    return rows.select("uri", label=pl.format("c{}", "place")).write_csv()


def of_fiftyone(folder: Path, _: Batch) -> str:
    samples = json.loads((folder / "samples.json").read_text())["samples"]
    return json.dumps([{"path": row["filepath"], "label": f"c{row['place']}"} for row in samples])


def of_copies(output: Path, _: Batch) -> str:
    """By the names of the files alone, in folders of the tool's own and with another ending."""
    names = members(output) if output.suffix == ".tar" else [file.name for file in output.rglob("*_*")]
    images = sorted(name for name in names if not name.endswith(".json"))
    rows = [(f"project-7/{Path(name).stem}.png", f"c{int(name[:6])}") for name in images]
    return pl.DataFrame(rows, schema=["path", "label"], orient="row").write_csv()


@pytest.mark.parametrize(
    ("form", "output", "annotate"),
    [
        ("csv", "b.csv", of_table),
        ("label-studio", "b.json", of_label_studio),
        ("coco", "b.json", of_coco),
        ("cvat", "manifest.jsonl", of_cvat),
        ("fiftyone", "dataset", of_fiftyone),
        ("folder", "images", of_copies),
        ("yolo", "yolo", of_copies),
        ("webdataset", "b.tar", of_copies),
    ],
)
def test_each_image_comes_back_with_its_class_whatever_it_is_called(
    form: str, output: str, annotate: Callable[[Path, Batch], str], hostile: Path, tmp_path: Path
) -> None:
    store = copied(hostile, tmp_path)
    batch = batches.hand_out(store, Asked(new=100, control="3"))
    assert batch.table.height == len(HOSTILE)
    [file] = write_batch(store, batch, tmp_path / output, form).files
    assert file == tmp_path / output
    back = tmp_path / f"back{ {'cvat': '.xml', 'csv': '.csv'}.get(form, '.csv' if form in COPIES else '.json') }"
    back.write_text(annotate(file, batch))
    added = labels.add(store, back)
    assert (added.added, added.left_out) == (len(HOSTILE), 0)
    expected = {row["sample_id"]: [f"c{row['place']}"] for row in batch.table.iter_rows(named=True)}
    assert classes_in(store) == expected


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_a_batch_as_a_table_comes_back(ending: str, mixed: Path, tmp_path: Path) -> None:
    store = copied(mixed, tmp_path)
    batch = batches.hand_out(store, Asked(new=7, control="2"))
    write_batch(store, batch, tmp_path / f"b.{ending}")
    assert labels.add(store, tmp_path / f"b.{ending}").added == 7


def test_what_reads_like_a_disarmed_formula_is_disarmed_once_more(hostile: Path, tmp_path: Path) -> None:
    store = copied(hostile, tmp_path)
    batch = batches.hand_out(store, Asked(new=100))
    write_batch(store, batch, tmp_path / "b.csv", urls={f"{hostile}/photos/": ""})
    with (tmp_path / "b.csv").open(newline="") as file:
        urls = {row["sample_id"]: row["url"] for row in csv.DictReader(file)}
    told = {Path(row["uri"]).name: urls[row["sample_id"]] for row in batch.table.iter_rows(named=True)}
    assert (told["+1.jpg"], told["-1.jpg"], told["@x.jpg"]) == ("%2B1.jpg", "'-1.jpg", "%40x.jpg")
    names = ["=x", "'=x", "''=x", "'x", "x"]
    table = pl.DataFrame({"path": batch.table["sample_id"][:5], "classes": names})
    back = tmp_path / "classes.csv"
    back.write_text(batch_files.table_files.to_csv(table))
    labels.add(store, back, are_distinct=True)
    assert sorted(name for [name] in classes_in(store).values()) == sorted(names)


# ----------------------------------------------------------------------------------------------------- what is written


def test_tasks_and_lists_tell_why_an_image_is_there(hostile: Path, tmp_path: Path) -> None:
    store = copied(hostile, tmp_path)
    ledger.append(store, "labelled", ["f" * 64], classes=[["cat", "dog"]])
    batch = batches.hand_out(store, Asked(new=5, control="1", name="Monday"))
    names = ("sample_id", "uri", "batch", "place", "rank", "is_control", "why", "stands_for", "split")
    told = [{name: row[name] for name in names} for row in batch.table.iter_rows(named=True)]
    urls = {f"{hostile}/photos": "https://host/x"}
    for output, form in (
        ("t.json", "label-studio"),
        ("c.json", "coco"),
        ("fiftyone", "fiftyone"),
        ("w.tar", "webdataset"),
    ):
        write_batch(store, batch, tmp_path / output, form, urls=urls)
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert [{key: value for key, value in task["data"].items() if key != "image"} for task in tasks] == told
    listed = json.loads((tmp_path / "c.json").read_text())
    assert [{key: image[key] for key in told[0]} for image in listed["images"]] == told
    assert [image["coco_url"] for image in listed["images"]] == [task["data"]["image"] for task in tasks]
    assert listed["images"][0]["width"] == 40
    assert [category["name"] for category in listed["categories"]] == ["cat", "dog"]
    assert listed["annotations"] == []
    dataset = {
        name: json.loads((tmp_path / "fiftyone" / f"{name}.json").read_text()) for name in ("metadata", "samples")
    }
    assert dataset["metadata"]["info"] == {"classes": ["cat", "dog"]}
    assert [{key: sample[key] for key in told[0]} for sample in dataset["samples"]["samples"]] == told
    assert {sample["tags"][0] for sample in dataset["samples"]["samples"]} == {"Monday"}
    found = [json.loads(data) for name, data in members(tmp_path / "w.tar").items() if name.endswith(".json")]
    assert found == told


def test_copies_are_the_images_byte_for_byte_under_names_that_cannot_leave_the_folder(
    mixed: Path, tmp_path: Path
) -> None:
    store = copied(mixed, tmp_path)
    batch = batches.hand_out(store, Asked(new=64))
    images = {make_jpeg(number) for number in range(64)}
    ledger.append(store, "labelled", ["f" * 64], classes=[["dog", "cat"]])
    (tmp_path / "yolo").mkdir()  # an empty folder may be there
    for form in COPIES:
        output = tmp_path / form if form != "webdataset" else tmp_path / "w.tar"
        assert write_batch(store, batch, output, form).lost == []
    for folder in (tmp_path / "folder", tmp_path / "yolo" / "images"):
        assert {file.read_bytes() for file in folder.glob("*.jpeg")} == images
    assert {data for name, data in members(tmp_path / "w.tar").items() if name.endswith("jpeg")} == images
    with (tmp_path / "folder" / "picks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ids = batch.table["sample_id"].to_list()
    assert [row["file_name"] for row in rows] == [f"{place:06d}_{each}.jpeg" for place, each in enumerate(ids, 1)]
    assert sorted(file.name for file in (tmp_path / "yolo").iterdir()) == ["data.yaml", "images", "picks.csv"]
    told = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert told == {"train": "images", "val": "images", "names": {0: "cat", 1: "dog"}}
    assert not list(tmp_path.glob(".tmp-*"))
    first = (tmp_path / "w.tar").read_bytes()
    write_batch(store, batch, tmp_path / "w.tar", "webdataset")
    assert (tmp_path / "w.tar").read_bytes() == first


def test_labels_that_a_tool_adds_to_the_folder_of_yolo_come_back(mixed: Path, tmp_path: Path) -> None:
    store = copied(mixed, tmp_path)
    ledger.append(store, "labelled", ["f" * 64], classes=[["cat", "dog"]])
    batch = batches.hand_out(store, Asked(new=6))
    write_batch(store, batch, tmp_path / "yolo", "yolo")
    (tmp_path / "yolo" / "labels").mkdir()
    for number, image in enumerate(sorted((tmp_path / "yolo" / "images").iterdir())):
        (tmp_path / "yolo" / "labels" / f"{image.stem}.txt").write_text(f"{number % 2} 0.5 0.5 0.2 0.2\n")
    assert labels.add(store, tmp_path / "yolo").classes == {"cat": 3, "dog": 3}
    found = classes_in(store)
    assert [found[sample_id] for sample_id in batch.table["sample_id"][:2]] == [["cat"], ["dog"]]


def test_pycocotools_loads_the_list(hostile: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    store = copied(hostile, tmp_path)
    ledger.append(store, "labelled", ["f" * 64], classes=[["cat"]])
    batch = batches.hand_out(store, Asked(new=100))
    write_batch(store, batch, tmp_path / "c.json", "coco")
    loaded = COCO(str(tmp_path / "c.json"))
    images = loaded.loadImgs(loaded.getImgIds())
    assert [image["file_name"] for image in images] == batch.table["uri"].to_list()
    assert {(image["width"], image["height"]) for image in images} == {(40, 40)}
    assert [category["name"] for category in loaded.loadCats(loaded.getCatIds())] == ["cat"]
    assert loaded.getAnnIds() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset 1.0.2 leaves files open
def test_webdataset_loads_the_tars_with_images_in_the_order_of_the_batch(mixed: Path, tmp_path: Path) -> None:
    import webdataset

    store = copied(mixed, tmp_path)
    batch = batches.hand_out(store, Asked(new=10))
    write_batch(store, batch, tmp_path / "w.tar", "webdataset")
    dataset = webdataset.WebDataset(str(tmp_path / "w.tar"), shardshuffle=False).decode("pil").to_tuple("jpeg", "json")
    samples = list(dataset)
    assert [told["sample_id"] for _, told in samples] == batch.table["sample_id"].to_list()
    assert {image.size for image, _ in samples} == {(40, 40)}


def test_what_exceeds_the_limits_of_a_tool_is_several_files(hostile: Path, tmp_path: Path) -> None:
    store = copied(hostile, tmp_path)
    batch = batches.hand_out(store, Asked(new=20))
    for form, output, limits in (
        ("label-studio", "t.json", {"most_images": 6}),
        ("label-studio", "b.json", {"most_bytes": 3000}),
        ("webdataset", "w.tar", {"most_images": 6}),
        ("webdataset", "x.tar", {"most_bytes": 4 * len(make_jpeg(0))}),
    ):
        how = batch_files.wanted(tmp_path / output, form)
        how = replace(how, form=replace(how.form, **limits))
        written = batch_files.write(store, batch_files.prepared(store, batch.table, how), how)
        assert len(written.files) >= 3
        assert [file.name for file in written.files[:2]] == [f"{output[0]}-00000{n}{output[1:]}" for n in (0, 1)]
        ids: list[str] = []
        for file in written.files:
            if form == "label-studio":
                ids += [task["data"]["sample_id"] for task in json.loads(file.read_text())]
                assert file.stat().st_size <= limits.get("most_bytes", 1 << 30)
            else:
                ids += [name[7:71] for name in members(file) if name.endswith("json")]
        assert ids == batch.table["sample_id"].to_list()


@pytest.mark.parametrize(("form", "output"), [("label-studio", "t.json"), ("json", "t.json"), ("jsonl", "t.jsonl")])
def test_images_stand_in_the_file_if_asked_for_and_come_back(
    form: str, output: str, mixed: Path, tmp_path: Path
) -> None:
    store = copied(mixed, tmp_path)
    batch = batches.hand_out(store, Asked(new=64))
    how = batch_files.wanted(tmp_path / output, form, is_inline=True)
    images = batch_files.prepared(store, batch.table, how)
    written = batch_files.write(store, images, replace(how, form=replace(how.form, most_bytes=150_000)))
    assert len(written.files) > 1
    bytes_of: dict[str, bytes] = {}
    batch_images.read(store, images, lambda name, data: bytes_of.update({name[7:71]: data}))
    rows: list[dict[str, Any]] = []
    for file in written.files:
        assert file.stat().st_size <= 150_000
        text = file.read_text()
        found = [json.loads(line) for line in text.splitlines()] if form == "jsonl" else json.loads(text)
        if form == "label-studio":
            for task in found:
                task["annotations"] = [{"result": [], "was_cancelled": False}]
            file.write_text(json.dumps(found))
            found = [task["data"] | {"url": task["data"]["image"]} for task in found]
        rows += found
        assert labels.add(store, file).added == len(found)
    assert [row["sample_id"] for row in rows] == batch.table["sample_id"].to_list()
    kinds = dict(images.select("sample_id", "format").iter_rows())
    for row in rows:
        head, _, data = row["url"].partition(",")
        assert head == f"data:image/{kinds[row['sample_id']]};base64"
        assert b64decode(data, validate=True) == bytes_of[row["sample_id"]]


# ------------------------------------------------------------------------------------------------ addresses and places


def test_addresses_are_mapped_by_the_longest_beginning_and_names_are_not_encoded(
    hostile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = copied(hostile, tmp_path)
    batch = batches.hand_out(store, Asked(new=100))
    monkeypatch.chdir(hostile)
    urls = {"photos/": "/data/local-files/?d=", "photos/sub/": "https://host/s/", "photos": "no"}
    write_batch(store, batch, tmp_path / "t.json", "label-studio", urls=urls)
    found = {task["data"]["uri"]: task["data"]["image"] for task in json.loads((tmp_path / "t.json").read_text())}
    assert found[f"{hostile}/photos/a%20b#c?d.jpg"] == "/data/local-files/?d=a%2520b%23c%3Fd.jpg"
    assert found[f"{hostile}/photos/sub/e.jpg"] == "https://host/s/e.jpg"
    write_batch(store, batch, tmp_path / "m.jsonl", "cvat", urls={"photos/": ""})
    names = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()[2:]]
    assert {line["name"] + line["extension"] for line in names} == set(HOSTILE)
    with pytest.raises(
        ConfigError, match="--url: expected the beginning of an image's uri, found none of '/elsewhere'"
    ):
        write_batch(store, batch, tmp_path / "x.csv", urls={"/elsewhere": "x"})


def test_images_inside_archives_are_refused_by_what_refers_to_them_unless_it_is_said_where_they_were_unpacked(
    mixed: Path, tmp_path: Path
) -> None:
    store = copied(mixed, tmp_path)
    batch = batches.hand_out(store, Asked(new=64))
    source = mixed / "source"
    for output, form in (("t.json", "label-studio"), ("c.json", "coco"), ("m.jsonl", "cvat"), ("f", "fiftyone")):
        with pytest.raises(ConfigError, match=r"found '.*#.*' and 41 more: a tool cannot open members of an archive"):
            write_batch(store, batch, tmp_path / output, form)
        with pytest.raises(ConfigError, match="cannot open members"):  # the folder of the archive says nothing
            write_batch(store, batch, tmp_path / output, form, urls={f"{source}/": "https://host/"})
        assert not (tmp_path / output).exists()
        unpacked = {f"{source}/a-0.tar#": "/unpacked/a/", f"{source}/b-0.parquet#": "/unpacked/b/"}
        write_batch(store, batch, tmp_path / output, form, urls=unpacked)
    names = [image["file_name"] for image in json.loads((tmp_path / "c.json").read_text())["images"]]
    assert {Path(name).parent for name in names} == {Path("/unpacked/a"), Path("/unpacked/b"), source / "loose"}


def test_names_that_are_not_utf_8_are_copied_and_addressed_but_in_no_list_of_names(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number, name in enumerate((b"\xff\xfe.jpg", b"gr\xfcn.jpg", b"plain.jpg")):
        (tmp_path / "photos" / os.fsdecode(name)).write_bytes(make_jpeg(number))
    refresh(tmp_path / "w", tmp_path / "photos")
    store = Store(str(tmp_path / "w"))
    batch = batches.hand_out(store, Asked(new=3))
    for output, form in (("c.json", "coco"), ("m.jsonl", "cvat"), ("f", "fiftyone")):
        if form != "coco":
            with pytest.raises(ConfigError, match=r"expected file names in UTF-8, found 'file://.*' and 1 more"):
                write_batch(store, batch, tmp_path / output, form)
    urls = {f"{tmp_path}/photos/": "https://host/"}
    write_batch(store, batch, tmp_path / "t.json", "label-studio", urls=urls)
    tasks = json.loads((tmp_path / "t.json").read_text())
    assert {task["data"]["image"] for task in tasks} == {f"https://host/{n}.jpg" for n in ("%FF%FE", "gr%FCn", "plain")}
    write_batch(store, batch, tmp_path / "copies", "folder")
    write_batch(store, batch, tmp_path / "links", "folder", is_link=True)
    for kind in ("copies", "links"):
        assert {f.read_bytes() for f in (tmp_path / kind).glob("*.jpeg")} == {make_jpeg(number) for number in range(3)}
    assert labels.add(store, tmp_path / "copies" / "picks.csv").added == 3


def test_links_are_made_to_files_alone(hostile: Path, mixed: Path, tmp_path: Path) -> None:
    store = copied(hostile, tmp_path)
    batch = batches.hand_out(store, Asked(new=100))
    for form, folder in (("folder", tmp_path / "links"), ("yolo", tmp_path / "yolo" / "images")):
        write_batch(store, batch, tmp_path / ("links" if form == "folder" else "yolo"), form, is_link=True)
        links = [file for file in folder.iterdir() if file.is_symlink()]
        assert {str(link.readlink()) for link in links} == {f"{hostile}/photos/{name}" for name in HOSTILE}
    (tmp_path / "mixed").mkdir()
    store = copied(mixed, tmp_path / "mixed")
    with pytest.raises(
        ConfigError, match=r"--link: expected local image files, found .* and 41 more; leave out --link"
    ):
        write_batch(store, batches.hand_out(store, Asked(new=64)), tmp_path / "no", "folder", is_link=True)


def test_images_that_are_gone_are_left_out_and_named(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(6):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(make_jpeg(number))
    recipe = Recipe.model_validate({"encoder": {"name": "pixels"}, "ingest": {"store": "reference"}})
    refresh(tmp_path / "w", tmp_path / "photos", recipe=recipe)
    store = Store(str(tmp_path / "w"))
    batch = batches.hand_out(store, Asked(new=6))
    (tmp_path / "photos" / "2.jpg").unlink()
    (tmp_path / "photos" / "4.jpg").write_bytes(make_jpeg(99))
    for form, output in (("folder", "f"), ("webdataset", "w.tar"), ("jsonl", "i.jsonl")):
        lost = write_batch(store, batch, tmp_path / output, form, is_inline=form == "jsonl").lost
        assert sorted(lost) == [f"{tmp_path}/photos/{number}.jpg" for number in (2, 4)]
    with (tmp_path / "f" / "picks.csv").open(newline="") as file:
        listed = [row["file_name"] for row in csv.DictReader(file)]
    assert sorted(listed) == sorted(file.name for file in (tmp_path / "f").glob("*.jpeg"))
    assert len(members(tmp_path / "w.tar")) == 8
    assert (tmp_path / "i.jsonl").read_text().count("data:image/jpeg;base64,") == 4


def test_presigned_addresses_open_for_anyone_until_they_expire(endpoint: str, tmp_path: Path) -> None:
    names = ["a.jpg", "two <b>&=+.jpg", "été #?%20.jpg"]
    for number, name in enumerate(names):
        fsspec.filesystem("s3").pipe_file(f"s3://team/photos/{name}", make_jpeg(number))
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo("m.jpg")
        info.size = len(make_jpeg(7))
        tar.addfile(info, io.BytesIO(make_jpeg(7)))
    fsspec.filesystem("s3").pipe_file("s3://team/photos/a.tar", buffer.getvalue())
    refresh(tmp_path / "w", "s3://team/photos")
    store = Store(str(tmp_path / "w"))
    batch = batches.hand_out(store, Asked(new=4))
    write_batch(store, batch, tmp_path / "b.csv", presign_seconds=3600)
    with (tmp_path / "b.csv").open(newline="") as file:
        urls = {row["uri"]: row["url"] for row in csv.DictReader(file)}
    assert urls.pop("s3://team/photos/a.tar#m.jpg") == "s3://team/photos/a.tar#m.jpg"
    assert len(urls) == 3
    for number, name in enumerate(names):
        url = urls[f"s3://team/photos/{name}"]
        assert "X-Amz-Expires=3600" in url
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == make_jpeg(number)
    with pytest.raises(ConfigError, match="cannot open members"):
        write_batch(store, batch, tmp_path / "t.json", "label-studio", presign_seconds=60)
    how = {"presign_seconds": 60, "urls": {"s3://team/photos/a.tar#": "https://host/a/"}}
    write_batch(store, batch, tmp_path / "t.json", "label-studio", **how)
    write_batch(store, batch, tmp_path / "c.json", "coco", **how)
    tasks = [task["data"]["image"] for task in json.loads((tmp_path / "t.json").read_text())]
    listed = [image["coco_url"] for image in json.loads((tmp_path / "c.json").read_text())["images"]]
    for found in (tasks, listed):
        assert sum("X-Amz-Signature=" in url for url in found) == 3
        assert "https://host/a/m.jpg" in found
    assert labels.add(store, tmp_path / "b.csv").added == 4


# ------------------------------------------------------------------------------------------------------ what is refused


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.csv").mkdir()
    for name, form, how, told in (
        ("a.csv", "label-studio", {}, r"expected an ending \.json for the format label-studio, found \.csv"),
        ("a.json", "csv", {}, r"expected an ending \.csv for the format csv, found \.json"),
        ("a.xlsx", None, {}, "expected an ending out of"),
        ("folder.csv", None, {}, "expected a file to write, found a folder"),
        ("a", "webdataset", {}, r"expected an ending \.tar for the format webdataset, found none"),
        ("full", "folder", {}, "expected a new or empty folder for the format folder, found files"),
        ("full/x", "yolo", {}, "expected a new or empty folder for the format yolo, found files"),
        ("none/b", "folder", {}, "expected a folder to write into, found none"),
        ("a.jsonl", "cvat", {"presign_seconds": 60}, "the format cvat holds no addresses that could be presigned"),
        ("a.json", "coco", {"presign_seconds": 8 * 86400}, "valid for at most 7 days, as S3 allows, found 8"),
        ("a.tar", "webdataset", {"is_link": True}, "the format webdataset holds no files that could be links"),
        ("a.json", "coco", {"is_link": True}, "the format coco holds no files that could be links"),
        ("a.csv", "csv", {"is_inline": True}, "the format csv cannot hold images, as json, jsonl, label-studio can"),
        ("a.json", "json", {"is_inline": True, "urls": {"/": "http://x/"}}, "--inline puts images in the place of"),
        ("a.json", "json", {"is_inline": True, "presign_seconds": 60}, "leave it out, or --url and --presign"),
    ):
        with pytest.raises(ConfigError, match=told):
            batch_files.wanted(tmp_path / name, form, **how)
    assert batch_files.wanted(tmp_path / "empty", "folder").form.name == "folder"


def test_local_images_cannot_be_presigned(hostile: Path, tmp_path: Path) -> None:
    store = copied(hostile, tmp_path)
    batch = batches.hand_out(store, Asked(new=2))
    with pytest.raises(ConfigError, match="--presign: expected image files in a bucket, found none, first '/"):
        write_batch(store, batch, tmp_path / "b.csv", presign_seconds=60)
