"""Hand-out and take-back against the part of Label Studio's API that they use, which this process serves.

The real server is in tests/services/test_labelling_tool.py.
"""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.conftest import TINY, build_source, write_pictures
from tests.label_studio_stub import CHOICES, PERSONAL_TOKEN, TOKEN, Stub, serve
from tests.plain_refresh import ranking, refresh
from wtl_core.errors import ConfigError, InputError, TransientError, WtlError
from wtl_core.labelling import batches, labels
from wtl_core.labelling.batches import Asked
from wtl_core.labelling.tools import hand_out, take_back
from wtl_core.labelling.tools.hand_out import HandedOut
from wtl_core.labelling.tools.label_studio import Project
from wtl_core.labelling.tools.params import ToolParams
from wtl_core.labelling.tools.take_back import TakenBack
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace `w` of 64 images."""
    folder = tmp_path_factory.mktemp("tools")
    refresh(folder / "w", write_pictures(folder / "source", count=64))
    return folder


@pytest.fixture
def store(refreshed: Path, tmp_path: Path) -> Store:
    shutil.copytree(refreshed / "w", tmp_path / "w")
    return Store(str(tmp_path / "w"))


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serve() as started:
        yield started


class Tool:
    """A workspace and a project, as the flows use them."""

    def __init__(self, store: Store, stub: Stub, **given: Any) -> None:
        self.store, self.stub = store, stub
        values = {"url": stub.url, "project": 7, "batch": 10, "low": 5, "urls": {"/": "http://files.example/"}, **given}
        self.params = ToolParams.model_validate(values)

    def hand_out(self, *, is_dry: bool = False) -> HandedOut:
        with self.project() as project:
            return hand_out.run(self.store, project, self.params, is_dry=is_dry)

    def take_back(self, *, is_dry: bool = False) -> TakenBack:
        with self.project() as project:
            return take_back.run(self.store, project, self.params, is_dry=is_dry)

    def project(self, token: str | None = TOKEN) -> Project:
        return Project(self.params.url, self.params.project, token)

    def ids(self) -> list[str]:
        """The images of the tool's tasks."""
        return [task["data"]["sample_id"] for task in self.stub.tasks]

    def classes(self) -> dict[str, list[str] | None]:
        return dict(ledger.labels(ledger.read(self.store)).select("sample_id", "classes").iter_rows())


@pytest.fixture
def tool(store: Store, stub: Stub) -> Tool:
    return Tool(store, stub)


def ranked(store: Store) -> list[str]:
    return [str(sample_id) for sample_id in ranking(Path(store.root))["sample_id"]]


def test_a_batch_is_pushed_with_what_it_says_of_its_images_and_the_ledger_knows_the_tasks(tool: Tool) -> None:
    done = tool.hand_out()
    assert (done.batch, done.pushed, done.controls, done.waiting) == ("batch-001", 10, 1, 0)
    batch = batches.hand_out(tool.store, Asked(new=10, control="10%", name="batch-001", to=done.project))
    assert not batch.is_new
    row, data = batch.table.row(0, named=True), tool.stub.tasks[0]["data"]
    assert data["image"] == f"http://files.example{row['uri']}"
    assert {name: data[name] for name in data if name != "image"} == {
        name: row[name] for name in data if name != "image"
    }
    placed = ledger.read(tool.store).filter(kind="placed")
    assert placed["sample_id"].to_list() == tool.ids() == batch.table["sample_id"].to_list()
    assert placed["origin"][0] == f"{tool.stub.url}/projects/7/data?task=1"


def test_nothing_is_pushed_while_enough_tasks_wait_and_then_the_next_images_are(tool: Tool) -> None:
    tool.hand_out()
    again = tool.hand_out()
    assert (again.is_due, again.is_low, again.waiting) == (False, False, 10)
    for sample_id in tool.ids()[:4]:
        tool.stub.annotate(sample_id, "cat")
    tool.stub.annotate(tool.ids()[4], was_cancelled=True)
    assert not tool.hand_out().is_due  # five wait
    tool.stub.annotate(tool.ids()[5], "cat")
    done = tool.hand_out()
    assert (done.batch, done.pushed, done.waiting) == ("batch-002", 10, 4)
    assert len(set(tool.ids())) == len(tool.ids()) == 20


def test_it_ends_when_nothing_is_left(tool: Tool) -> None:
    everything = Tool(tool.store, tool.stub, batch=1000, control=None)
    assert everything.hand_out().pushed == len(ranked(tool.store))
    for sample_id in tool.ids():
        tool.stub.annotate(sample_id, "cat")
    done = everything.hand_out()
    assert (done.is_low, done.is_due, done.batch) == (True, False, None)
    assert done.told() == "nothing is left to hand out, 0 waited"


def test_a_dry_run_changes_neither_side(tool: Tool) -> None:
    before = ledger.length(tool.store)
    done = tool.hand_out(is_dry=True)
    assert (done.batch, done.pushed) == ("batch-001", 10)
    assert (ledger.length(tool.store), tool.stub.tasks) == (before, [])
    tool.hand_out()
    tool.stub.annotate(tool.ids()[0], "cat")
    before = ledger.length(tool.store)
    taken = tool.take_back(is_dry=True)
    assert (taken.taken, taken.entry, ledger.length(tool.store)) == (1, 0, before)


@pytest.mark.parametrize("arrived", [0, 4, 10])
def test_a_push_that_broke_off_is_made_good_by_the_next_run_and_nothing_is_doubled(tool: Tool, arrived: int) -> None:
    """The connection breaks when none, some or all tasks are there, so that nobody knows which."""

    def break_off(tasks: list[dict[str, Any]]) -> int:
        tool.stub.add(tasks[:arrived])
        return 0

    tool.stub.on_import = break_off
    with pytest.raises(TransientError, match="does not answer"):
        tool.hand_out()
    assert ledger.read(tool.store).filter(kind="placed").is_empty()
    tool.stub.on_import = None
    done = tool.hand_out()
    assert (done.pushed, done.found) == (10 - arrived, arrived)
    assert len(set(tool.ids())) == len(tool.ids()) == 10
    assert not tool.hand_out().is_due
    assert batches.listed(tool.store)["images"].to_list() == [10]
    assert sorted(ledger.read(tool.store).filter(kind="placed")["sample_id"]) == sorted(tool.ids())


def test_images_that_were_labelled_elsewhere_meanwhile_are_not_pushed_later(tool: Tool) -> None:
    tool.stub.on_import = lambda tasks: 503
    with pytest.raises(TransientError, match="answered 503"):
        tool.hand_out()
    batch = ledger.read(tool.store).filter(kind="exported")["sample_id"].to_list()
    ledger.append(tool.store, "labelled", batch[:3], classes=[["cat"]] * 3)
    tool.stub.on_import = None
    assert tool.hand_out().pushed == 7
    assert tool.ids() == batch[3:]


def test_a_server_that_imports_later_is_waited_for(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[dict[str, Any]] = []
    tool.stub.on_import = lambda tasks: held.extend(tasks) or 201  # type: ignore[func-returns-value]
    monkeypatch.setattr("time.sleep", lambda seconds: tool.stub.add(held))
    assert tool.hand_out().pushed == 10
    assert len(tool.ids()) == 10


def test_tasks_that_somebody_doubled_are_told(tool: Tool) -> None:
    tool.hand_out()
    tool.stub.add([{"data": tool.stub.tasks[3]["data"]}])
    for sample_id in tool.ids()[:10]:
        tool.stub.annotate(sample_id, "cat")
    assert tool.hand_out().doubled == [f"{tool.stub.url}/projects/7/data?task=11"]


def test_an_address_that_the_tool_cannot_open_is_refused_before_anything_is_entered(store: Store, stub: Stub) -> None:
    with pytest.raises(ConfigError, match=r"that Label Studio can open, found '/.*\[labelling.urls\]"):
        Tool(store, stub, urls={}).hand_out()
    assert (ledger.length(store), stub.tasks) == (0, [])


def test_members_of_an_archive_need_the_address_of_where_it_was_unpacked(tmp_path: Path, stub: Stub) -> None:
    source = build_source(tmp_path / "source")
    shutil.rmtree(source / "loose")
    (source / "b-0.parquet").unlink()
    refresh(tmp_path / "w", source)
    store = Store(str(tmp_path / "w"))
    with pytest.raises(ConfigError, match=r"can open, found 'http://.*\.tar%23.*where an archive was unpacked"):
        Tool(store, stub).hand_out()
    assert (ledger.length(store), stub.tasks) == (0, [])
    urls = {f"{archive}#": f"http://files.example/{archive.stem}/" for archive in source.glob("*.tar")}
    assert Tool(store, stub, urls=urls, batch=1000).hand_out().pushed == 21
    assert stub.tasks[0]["data"]["image"].startswith("http://files.example/a-0/")


def test_images_without_an_address_are_uploaded_and_those_that_are_gone_left_out(tmp_path: Path, stub: Stub) -> None:
    source = build_source(tmp_path / "source")
    Image.effect_noise((40, 40), 50).save(source / "noise.tiff")
    refresh(tmp_path / "w", source, recipe=Recipe.model_validate({**TINY, "ingest": {"store": "reference"}}))
    store = Store(str(tmp_path / "w"))
    gone = source / "loose" / "7.jpg"
    tool = Tool(store, stub, upload=True, batch=1000, urls={f"{source}/loose/8": "http://files.example/8"})
    gone.unlink()
    done = tool.hand_out()
    assert (done.pushed, sorted(done.left_out)) == (63, sorted([str(gone), str(source / "noise.tiff")]))
    assert (len(stub.uploads), len(stub.tasks)) == (62, 63)
    contents = dict(stub.uploads)
    for task in stub.tasks:
        address, sample_id = task["data"]["image"], task["data"]["sample_id"]
        if address != "http://files.example/8.jpg":
            assert hashlib.sha256(contents[address.removeprefix("/data/upload/7/")]).hexdigest() == sample_id
    again = tool.hand_out()
    assert (again.pushed, len(again.left_out), len(stub.tasks)) == (0, 2, 63)


def test_the_longest_beginning_is_mapped_and_the_rest_encoded(store: Store, stub: Stub) -> None:
    uri = batches.hand_out(store, Asked(new=1), is_dry=True).table["uri"][0]
    start, end = uri[:-4], uri[-4:]
    Tool(store, stub, batch=1, control=None, urls={"/": "http://wrong/", start: "/data/local-files/?d=a"}).hand_out()
    assert stub.tasks[0]["data"]["image"] == f"/data/local-files/?d=a{end}"


def test_labels_come_back_with_their_classes_once(tool: Tool) -> None:
    tool.hand_out()
    ids = tool.ids()
    tool.stub.annotate(ids[0], "cat")
    tool.stub.annotate(ids[1], "dog", "cat")
    tool.stub.annotate(ids[2])  # submitted with nothing in it
    tool.stub.annotate(ids[3], was_cancelled=True)
    done = tool.take_back()
    assert (done.taken, done.added, done.corrected, done.skipped, done.waiting) == (3, 3, 0, 1, 6)
    assert done.classes == {"cat": 2, "dog": 1, "empty": 1}
    assert tool.classes() == {ids[0]: ["cat"], ids[1]: ["cat", "dog"], ids[2]: []}
    again = tool.take_back()
    assert (again.taken, again.entry) == (0, 0)
    assert labels.listed(tool.store)["origin"].to_list()[0].startswith(f"{tool.stub.url}/projects/7/data?task=")
    tool.stub.annotate(ids[4], "dog")
    assert tool.take_back().taken == 1


def test_a_change_in_the_tool_corrects_and_one_in_the_workspace_stays(tool: Tool) -> None:
    tool.hand_out()
    first, second, third = tool.ids()[:3]
    annotation = tool.stub.annotate(first, "cat")
    tool.stub.annotate(second, "cat")
    tool.stub.annotate(third, "cat")
    tool.take_back()
    ledger.append(tool.store, "labelled", [first, second], classes=[["dog"], ["dog"]])  # by `wtl labels add`
    labels.undo(tool.store, [third])
    assert tool.take_back().taken == 0
    assert tool.classes() == {first: ["dog"], second: ["dog"]}
    tool.stub.change(annotation, "bird")
    done = tool.take_back()
    assert (done.taken, done.added, done.corrected) == (1, 0, 1)
    assert tool.classes() == {first: ["bird"], second: ["dog"]}


def test_annotations_that_disagree_are_told_until_they_are_settled(tool: Tool) -> None:
    tool.hand_out()
    first, second, third = tool.ids()[:3]
    tool.stub.annotate(first, "cat")
    other = tool.stub.annotate(first, "dog")
    tool.stub.annotate(second, "cat")
    tool.stub.annotate(second, "dog", ground_truth=True)
    tool.stub.annotate(third, "cat")
    tool.stub.annotate(third, "cat")
    done = tool.take_back()
    assert done.disagreeing == [f"{tool.stub.url}/projects/7/data?task=1"]
    assert tool.classes() == {second: ["dog"], third: ["cat"]}
    tool.stub.change(other, "cat")
    assert tool.take_back().taken == 1
    assert tool.classes()[first] == ["cat"]


def test_of_two_tasks_of_an_image_the_annotation_that_was_changed_last_counts(tool: Tool) -> None:
    tool.hand_out()
    first = tool.ids()[0]
    tool.stub.add([{"data": tool.stub.tasks[0]["data"]}])
    annotation = tool.stub.annotate(first, "cat")
    result = {"from_name": "class", "value": {"choices": ["dog"]}}
    other = {"result": [result], "was_cancelled": False, "updated_at": tool.stub.now()}
    tool.stub.tasks[-1]["annotations"].append(other)
    assert (tool.take_back().taken, tool.classes()) == (1, {first: ["dog"]})
    assert tool.take_back().taken == 0
    tool.stub.change(annotation, "bird")
    assert (tool.take_back().taken, tool.classes()) == (1, {first: ["bird"]})


def test_tasks_of_other_images_stay_out_and_those_of_a_file_come_back(tool: Tool) -> None:
    exported = batches.hand_out(tool.store, Asked(new=1)).table["sample_id"][0]
    listed = ranked(tool.store)[-1]  # by `wtl cut`, which does not remember
    tool.stub.add([{"data": {"sample_id": name}} for name in (exported, listed, "f" * 64)])
    tool.stub.add([{"data": {"text": "of somebody else"}}])
    for name in (exported, listed, "f" * 64):
        tool.stub.annotate(name, "cat")
    tool.stub.tasks[3]["annotations"].append({"result": [], "was_cancelled": False, "updated_at": tool.stub.now()})
    done = tool.take_back()
    assert (done.taken, done.foreign) == (2, 2)
    assert tool.classes() == {exported: ["cat"], listed: ["cat"]}


def test_of_several_controls_one_is_named(store: Store, stub: Stub) -> None:
    stub.controls = {"class": CHOICES, "quality": CHOICES, "note": {"type": "TextArea"}}
    tool = Tool(store, stub)
    tool.hand_out()
    tool.stub.annotate(tool.ids()[0], "blurred", control="quality")
    annotation = tool.stub.annotate(tool.ids()[1], "blurred", control="quality")
    annotation["result"].append({"from_name": "class", "value": {"choices": ["cat"]}})
    with pytest.raises(ConfigError, match=r"found several among 'class', 'quality'; name one by `class_control`"):
        tool.take_back()
    with pytest.raises(ConfigError, match="found 'note' among"):
        Tool(store, stub, class_control="note").take_back()
    done = Tool(store, stub, class_control="class").take_back()
    assert (done.taken, done.unknown, done.classes) == (2, 1, {"cat": 1})


def test_spellings_are_refused_and_settled_by_the_site(store: Store, stub: Stub) -> None:
    tool = Tool(store, stub)
    tool.hand_out()
    ledger.append(store, "labelled", [ranked(store)[-1]], classes=[["Cat"]])
    tool.stub.annotate(tool.ids()[0], "cat")
    before = ledger.length(store)
    with pytest.raises(InputError, match=r"one spelling of each class, found .*\[labelling.rename\]"):
        tool.take_back()
    assert ledger.length(store) == before
    assert Tool(store, stub, rename={"cat": "Cat"}).take_back().classes == {"Cat": 1}


def test_a_personal_token_is_exchanged_and_a_wrong_one_refused(tool: Tool) -> None:
    with tool.project(PERSONAL_TOKEN) as project:
        assert (project.waiting(), project.skipped()) == (0, 0)
    assert sum("/api/token/refresh/" in request for request in tool.stub.requests) == 1
    for token in ("wrong", "wrong.personal.token"):
        with tool.project(token) as project, pytest.raises(ConfigError, match=r"LABEL_STUDIO_API_KEY: .*refused"):
            project.waiting()
    with pytest.raises(ConfigError, match="LABEL_STUDIO_API_KEY: expected an access token"):
        tool.project(None)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        ((404, b'{"detail": "No Project matches the given query."}'), ConfigError, "expected a project .*No Project"),
        ((500, b"<html>"), TransientError, "answered 500"),
        ((429, b""), TransientError, "answered 429"),
        ((200, b"<html>"), ConfigError, "expected Label Studio to answer in JSON"),
        ((200, b"[]"), ConfigError, "expected an answer with 'total'.*1.23.2"),
        ((400, b'{"detail": "Validation error", "validation_errors": ["x"]}'), ConfigError, r"refused GET .*\['x'\]"),
        ((301, b""), ConfigError, "it lies at"),
        ((0, b""), TransientError, "does not answer"),
    ],
)
def test_what_the_server_refuses_is_told(
    tool: Tool, answer: tuple[int, bytes], kind: type[WtlError], told: str
) -> None:
    tool.stub.answer = answer
    with tool.project() as project, pytest.raises(kind, match=told) as caught:
        project.waiting()
    assert TOKEN not in str(caught.value)


def test_a_server_that_is_away_is_told(store: Store) -> None:
    with Project("http://127.0.0.1:9", 7, TOKEN) as project, pytest.raises(TransientError, match="see that it is up"):
        project.waiting()


def test_pages_pass_no_task_by_when_others_are_deleted_meanwhile(tool: Tool) -> None:
    tool.stub.add([{"data": {"sample_id": str(number)}} for number in range(1500)])
    seen = []
    with tool.project() as project:
        for task, _ in project.tasks():
            seen.append(task)
            if task == 900:
                del tool.stub.tasks[:900]
    assert seen == list(range(1, 1501))


def test_a_project_without_images_is_refused(tool: Tool) -> None:
    tool.stub.controls = {"class": {**CHOICES, "inputs": [{"type": "Text", "value": "text"}]}}
    with pytest.raises(ConfigError, match="expected a labelling configuration with an image"):
        tool.hand_out()
