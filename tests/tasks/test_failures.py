"""What a failed run is called, and that calling it so costs nothing more."""

from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from tasks.prefect_side import crashes, run_names
from tasks.prefect_side.failures import stage_of
from tasks.refresh import plan_refresh
from tasks.workspaces import hold
from wtl_core.errors import BusyError, ConfigError, CrashLoopError
from wtl_core.workspace import storage
from wtl_core.workspace.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return storage.open_store(str(tmp_path / "workspace"))


def test_a_failure_is_named_after_its_task_and_not_after_a_helper(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as failed:
        plan_refresh.fn(store, [str(tmp_path / "nowhere")], None, allow_removal=False)
    assert stage_of(failed.value) == "plan"
    with hold(store), pytest.raises(BusyError) as refused, hold(store):
        pass
    assert stage_of(refused.value) == "hold"
    assert stage_of(RuntimeError("of the flow itself")) == "the flow"


def test_a_failure_of_a_task_beside_the_stages_is_named_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise CrashLoopError("three in a row")

    monkeypatch.setattr(crashes, "flow_run", SimpleNamespace(get_id=refuse))
    with pytest.raises(CrashLoopError) as failed:
        crashes.check_crashes.fn()
    assert stage_of(failed.value) == "check-crashes"


def test_a_name_that_the_server_does_not_take_fails_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        request = httpx.Request("POST", "http://server/api")
        raise httpx.HTTPStatusError("500", request=request, response=httpx.Response(500, request=request))

    monkeypatch.setattr(SyncPrefectClient, "set_flow_run_name", broken)
    monkeypatch.setattr(run_names, "get_client", lambda **_: SyncPrefectClient("http://127.0.0.1:9/api"))
    run_names.rename_run(str(uuid4()), "3 new shards")
    assert "could not be renamed" in caplog.text
