"""`wtl hand-out`, `wtl take-back` and the flows of these names, against a stub of Label Studio in this process."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.settings import settings
from tests.conftest import write_pictures
from tests.flows.conftest import Wtl
from tests.label_studio_stub import TOKEN, Stub, serve
from tests.plain_refresh import refresh
from wtl_core.workspace import commits, lease, ledger
from wtl_core.workspace.storage import Store


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tool-commands")
    refresh(folder / "w", write_pictures(folder / "source", count=40))
    return folder


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    with serve() as started:
        yield started


@pytest.fixture
def site(refreshed: Path, tmp_path: Path, stub: Stub) -> Path:
    """A site file, beside its workspace `w`."""
    shutil.copytree(refreshed / "w", tmp_path / "w")
    file = tmp_path / "site.toml"
    tool = f'url = "{stub.url}"\nproject = 7\nbatch = 10\nlow = 5\nurls = {{ "/" = "http://files.example/" }}\n'
    file.write_text(f'workspace = "{tmp_path / "w"}"\n[labelling]\n{tool}')
    return file


def test_the_circle_by_hand(site: Path, stub: Stub, wtl_here: Wtl) -> None:
    looked = wtl_here("hand-out", "--site", site, "--dry-run")
    assert looked.stdout == f"batch-001: 10 to push, 0 waited: {stub.url}/projects/7\n"
    assert stub.tasks == []
    pushed = json.loads(wtl_here("hand-out", "--site", site, "--json").stdout)
    assert (pushed["batch"], pushed["pushed"], len(stub.tasks)) == ("batch-001", 10, 10)
    assert wtl_here("hand-out", "--site", site).stdout == f"nothing is due, 10 waited: {stub.url}/projects/7\n"
    ids = [task["data"]["sample_id"] for task in stub.tasks]
    stub.annotate(ids[0], "cat")
    stub.annotate(ids[1], "cat")
    stub.annotate(ids[1], "dog")
    stub.annotate(ids[2], was_cancelled=True)
    taken = wtl_here("take-back", "--site", site)
    assert taken.stdout == f"1 label taken, 7 images wait: {stub.url}/projects/7\nclasses: 1 cat\n"
    assert taken.stderr.splitlines() == [
        f"1 task is annotated in two ways, and left out here, first {stub.url}/projects/7/data?task=2; keep one "
        "annotation of each, or mark it as ground truth",
        "1 task was skipped there, and left out here",
    ]
    assert TOKEN not in taken.stdout + taken.stderr


def test_what_is_missing_is_told(site: Path, tmp_path: Path, wtl_here: Wtl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    done = wtl_here("hand-out", "--site", site)
    assert (done.returncode, done.stderr[:21]) == (2, "wtl: LABEL_STUDIO_API")
    done = wtl_here("take-back", "--workspace", tmp_path / "w")
    assert (done.returncode, done.stderr) == (
        2,
        "wtl: expected [labelling] in the site file, found none; --site names a file\n",
    )


def test_a_tool_that_is_away_and_a_workspace_at_work_are_transient(site: Path, stub: Stub, wtl_here: Wtl) -> None:
    stub.answer = (503, b"")
    assert wtl_here("hand-out", "--site", site).returncode == 4
    stub.answer = None
    with lease.hold(Store(str(site.parent / "w"))):
        assert wtl_here("take-back", "--site", site).returncode == 4
        assert wtl_here("take-back", "--site", site, "--dry-run").returncode == 0


@pytest.fixture
def on_server(server_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flows that are called in this process are on the shared server."""
    from prefect.context import refresh_global_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    settings.cache_clear()
    monkeypatch.setenv("PREFECT_API_URL", server_address)
    refresh_global_settings_context()
    yield
    for service in (EventsWorker, APILogWorker):  # which would send what they hold when the server is gone
        service.drain_all()
    monkeypatch.undo()
    refresh_global_settings_context()
    settings.cache_clear()


@pytest.fixture
def flow_parameters(site: Path, stub: Stub) -> dict[str, Any]:
    tool = {"url": stub.url, "project": 7, "batch": 10, "low": 5, "urls": {"/": "http://files.example/"}}
    return {"workspace": str(site.parent / "w"), "labelling": tool}


def test_the_flows_do_the_same_and_a_look_needs_no_lease(
    flow_parameters: dict[str, Any], stub: Stub, on_server: None
) -> None:
    from flows.hand_out import hand_out
    from flows.take_back import take_back

    store = Store(flow_parameters["workspace"])
    not_yet = {**flow_parameters, "workspace": f"{store.root}-of-later"}
    assert (hand_out(**not_yet), take_back(**not_yet), stub.requests) == ({}, {}, [])
    assert hand_out(**flow_parameters)["pushed"] == 10
    with lease.hold(store):
        assert hand_out(**flow_parameters)["pushed"] == 0
        assert take_back(**flow_parameters)["taken"] == 0
    stub.annotate(stub.tasks[0]["data"]["sample_id"], "cat")
    assert take_back(**flow_parameters)["added"] == 1
    last = commits.latest(store)
    assert last is not None
    assert ledger.length(store) > last.ledger_length
