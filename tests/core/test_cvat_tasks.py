"""Batches as tasks of CVAT: each made once, with the images of the batch, whatever breaks in between.

A stub answers (see `tests/cvat_stub.py`): no CVAT server is run.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.conftest import make_jpeg, write_pictures
from tests.cvat_stub import TOKEN, Stub, serve
from tests.plain_refresh import refresh
from wtl_core.errors import ConfigError, TransientError, WtlError
from wtl_core.labelling import batch_files, labels
from wtl_core.labelling.batches import Asked
from wtl_core.labelling.tools import cvat
from wtl_core.labelling.tools.cvat import Made, Server
from wtl_core.workspace import lease, ledger
from wtl_core.workspace.storage import Store


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cvat-tasks")
    photos = write_pictures(folder / "photos", count=12)
    for number, name in enumerate(("a%20b#c?d.jpg", "two\nlines.jpg", "été 日本.jpg")):
        (photos / name).write_bytes(make_jpeg(100 + number))
    refresh(folder / "w", photos)
    return folder


@pytest.fixture
def store(refreshed: Path, tmp_path: Path) -> Store:
    """A workspace of 15 images with names of their own."""
    shutil.copytree(refreshed / "w", tmp_path / "w")
    return Store(str(tmp_path / "w"))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with serve() as started:
        yield started


def made(store: Store, stub: Stub, *, place: str = "/projects/12", token: str = TOKEN, **more: Any) -> Made:
    asked = Asked(new=more.pop("new", 5), name=more.pop("name", None))
    how = batch_files.wanted_by_address(urls=more.pop("urls", {"/": "https://files.example/"}))
    with Server(f"{stub.url}{place}", token) as server:
        return cvat.make_task(store, server, asked, how, **more)


def test_a_batch_becomes_a_task_with_its_images_in_its_order(store: Store, stub: Stub) -> None:
    done = made(store, stub)
    [task] = stub.tasks
    assert done.link == f"{stub.url}/tasks/{task['id']}"
    assert (task["name"], task["project_id"], task["organization_id"]) == ("batch-001", 12, "5")
    assert [url.rpartition("/")[0] for url in task["asked"]["remote_files"]] == [
        f"https://files.example{uri.rpartition('/')[0]}" for uri in done.batch.table["uri"]
    ]
    assert [frame["name"] for frame in task["frames"]] == [Path(uri).name for uri in done.batch.table["uri"]]
    assert task["asked"]["sorting_method"] == "predefined"
    assert ledger.length(store) == 1


def test_the_same_call_makes_no_second_task_and_the_next_batch_does(store: Store, stub: Stub) -> None:
    first = made(store, stub)
    again = made(store, stub)
    assert (again.link, again.batch.is_new, len(stub.tasks)) == (first.link, False, 1)
    assert sum("/data" in asked for asked in stub.requests if asked.startswith("POST")) == 1
    assert made(store, stub, name="more").link != first.link
    assert len(stub.tasks) == 2


@pytest.mark.parametrize("silent", ["POST /api/tasks?", "POST /api/tasks/", "GET /api/tasks/70/data/meta"])
def test_what_was_cut_short_is_made_good_and_nothing_is_doubled(store: Store, stub: Stub, silent: str) -> None:
    stub.silent = silent
    with pytest.raises(TransientError, match=r"CVAT does not answer.*batch-001 is recorded, and the same call with"):
        made(store, stub)
    assert not store.exists(lease.LEASE)
    stub.silent = ""
    assert made(store, stub).batch.table.height == 5
    assert ([task["size"] for task in stub.tasks], ledger.length(store)) == ([5], 1)


def test_images_that_are_still_fetched_are_waited_for(
    store: Store, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.on_data, stub.state = lambda task: 202, {"status": "started", "message": ""}
    looks = iter(range(20))
    monkeypatch.setattr("time.sleep", lambda seconds: next(looks) == 10 and stub.fetch(stub.tasks[0]))
    assert made(store, stub).link
    assert next(looks) == 11


@pytest.mark.parametrize("state", [{"status": "failed", "message": "Failed to download\nhttps://x"}, None])
def test_images_that_cvat_could_not_fetch_are_told_and_another_task_can_be_made(
    store: Store, stub: Stub, state: dict[str, Any] | None
) -> None:
    stub.on_data, stub.state = lambda task: 202, state
    for _ in range(2):
        told = "Failed to download https://x" if state else "no reason given"
        with pytest.raises(ConfigError, match=f"tasks/70: CVAT did not fetch the images: {told}; .*delete this empty"):
            made(store, stub)
    assert len(stub.tasks) == 1
    stub.tasks.clear()
    stub.on_data = None
    assert made(store, stub).batch.name == "batch-001"


def test_a_task_of_the_same_name_with_other_images_is_not_taken_for_the_batch(store: Store, stub: Stub) -> None:
    other = {"id": 7, "name": "batch-001", "project_id": 12, "data": 1, "size": 1, "frames": [{"name": "x.jpg"}]}
    stub.tasks.append(other)
    with pytest.raises(ConfigError, match=r"expected the images of batch-001, found a task of that name without 5"):
        made(store, stub)
    other["project_id"] = 13
    assert made(store, stub).link == f"{stub.url}/tasks/71"


def test_without_a_project_the_task_has_the_classes_of_the_ledger(store: Store, stub: Stub) -> None:
    with pytest.raises(ConfigError, match=r"expected classes in the ledger as labels .*/projects/N"):
        made(store, stub, place="")
    assert (ledger.length(store), stub.requests) == (0, [])
    labelled = made(store, stub, is_dry=True).batch.table["sample_id"][:2]
    ledger.append(store, "labelled", labelled.to_list(), classes=[("owl",), ("crane", "owl")])
    made(store, stub, place="/")
    assert [task["labels"] for task in stub.tasks] == [[{"name": "crane"}, {"name": "owl"}]]


def test_a_dry_run_asks_the_server_and_enters_nothing(store: Store, stub: Stub) -> None:
    assert made(store, stub, is_dry=True).link is None
    assert (ledger.length(store), stub.tasks, stub.requests) == (0, [], ["GET /api/projects/12"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"urls": {}}, r"addresses that CVAT can fetch over HTTP, found '/.* and 4 more; --url"),
        ({"urls": {"/": "s3://bucket/"}}, r"over HTTP, found 's3://bucket/"),
        ({"token": "wrong"}, r"CVAT_ACCESS_TOKEN: expected a token that opens .*Invalid token"),
        ({"token": ""}, r"CVAT_ACCESS_TOKEN: expected an access token of CVAT"),
        ({"place": "/projects/13"}, r"CVAT refused GET /api/projects/13, 404: .*Not found"),
        ({"place": " x"}, r"expected the address of a CVAT server or of a project's page"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_entered(
    store: Store, stub: Stub, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(store, stub, **more)
    assert (ledger.length(store), stub.tasks) == (0, [])


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ((503, b"<html>"), TransientError),
        ((429, b""), TransientError),
        ((200, b"<html>"), ConfigError),
        ((200, b"[]"), ConfigError),
        ((302, b""), ConfigError),
    ],
)
def test_a_server_that_answers_something_else_is_told(
    store: Store, stub: Stub, answer: tuple[int, bytes], kind: type[WtlError]
) -> None:
    stub.answer = answer
    with pytest.raises(kind, match=stub.url):
        made(store, stub)
    assert ledger.length(store) == 0


def test_file_names_that_are_not_of_one_image_alone_are_refused(tmp_path: Path, stub: Stub) -> None:
    for number, name in enumerate(("x/1.jpg", "y/1.jpg", "x/2.jpg", "y/3")):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(make_jpeg(number))
    refresh(tmp_path / "w", tmp_path / "photos")
    store = Store(str(tmp_path / "w"))
    with pytest.raises(ConfigError, match=r"found 3 others, first '.*': CVAT tells images by these alone"):
        made(store, stub, new=4)
    assert (ledger.length(store), stub.tasks) == (0, [])


def test_all_names_of_a_task_mean_its_images_when_labels_come_back(store: Store, stub: Stub, tmp_path: Path) -> None:
    done = made(store, stub, new=15)
    back = ElementTree.Element("annotations")
    ElementTree.SubElement(back, "version").text = "1.1"
    for number, frame in enumerate(stub.tasks[0]["frames"]):
        image = ElementTree.SubElement(back, "image", id=str(number), name=frame["name"], width="40", height="40")
        ElementTree.SubElement(image, "tag", label="owl", source="manual")
    file = tmp_path / "annotations.xml"
    file.write_bytes(ElementTree.tostring(back))
    assert labels.add(store, file).added == 15
    assert {*ledger.labels(ledger.read(store))["sample_id"]} == {*done.batch.table["sample_id"]}
