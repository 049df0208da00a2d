"""A workspace and a source under `s3://`, on moto's server: a real HTTP server with S3's interface, in one process."""

import threading
import urllib.request
from pathlib import Path

import boto3
import pytest
from starlette.testclient import TestClient

from flows.serving.report_server import ReportServer
from tests.conftest import make_jpeg
from tests.plain_refresh import PIXELS, ranking, refresh
from wtl_core import pipeline
from wtl_core.app.live import Live
from wtl_core.app.server import create_app
from wtl_core.errors import BusyError
from wtl_core.labelling import cut
from wtl_core.machine import Machine
from wtl_core.workspace import commits, lease, selections
from wtl_core.workspace.storage import Store, check_conditional_writes

# boto3's own, and the event loop of s3fs that lives to the end of the process
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def test_a_refresh_from_bucket_to_bucket_equals_one_on_disk(endpoint: str, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=endpoint)
    (tmp_path / "s").mkdir()
    for i in range(40):
        client.put_object(Bucket="team", Key=f"source/{i}.jpg", Body=make_jpeg(i))
        (tmp_path / "s" / f"{i}.jpg").write_bytes(make_jpeg(i))
    store = Store("s3://team/spaces/one")
    machine = Machine(embedding_part_images=16)
    first = pipeline.refresh_workspace(store, ["s3://team/source"], PIXELS, machine)
    refresh(tmp_path / "w", tmp_path / "s")
    assert first.counts.samples == first.counts.vectors == 40
    in_bucket = selections.read_ranking(store, first.selection)
    assert in_bucket["sample_id"].to_list() == ranking(tmp_path / "w")["sample_id"].to_list()
    assert in_bucket["uri"][0].startswith("s3://team/source/")
    picks = cut.run(store, "10%").table
    assert picks.drop("uri").equals(cut.run(Store(str(tmp_path / "w")), "10%").table.drop("uri"))
    assert pipeline.refresh_workspace(store, [], None, machine) == first
    client.delete_object(Bucket="team", Key="source/3.jpg")
    second = pipeline.refresh_workspace(store, [], None, machine)
    assert (second.number, second.counts.samples) == (2, 39)
    latest = commits.latest(store)
    assert latest == second
    assert "lease.json" not in store.names("")


def test_conditional_writes_and_the_lease_hold_on_a_bucket(endpoint: str) -> None:
    store = Store("s3://team/w")
    check_conditional_writes(store, "probe")
    assert store.create("a", b"1")
    assert not store.create("a", b"2")
    assert store.read_bytes("a") == b"1"
    with lease.hold(store), pytest.raises(BusyError), lease.hold(store):
        pass
    assert store.names("") == ["a"]


def test_an_upload_that_fails_half_way_is_never_seen(endpoint: str) -> None:
    store = Store("s3://team/w")

    def fail() -> None:
        with store.writer("big") as handle:
            handle.write(b"x" * (60 << 20))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not store.exists("big")
    store.write_bytes("big", b"y" * (60 << 20))
    assert len(store.read_bytes("big")) == 60 << 20


def test_the_app_and_the_report_show_a_workspace_in_a_bucket(endpoint: str) -> None:
    client = boto3.client("s3", endpoint_url=endpoint)
    for i in range(20):
        client.put_object(Bucket="team", Key=f"shown/{i}.jpg", Body=make_jpeg(i))
    store = Store("s3://team/spaces/shown")
    first = pipeline.refresh_workspace(store, ["s3://team/shown"], PIXELS, Machine(embedding_part_images=16))
    ids = selections.read_ranking(store, first.selection)["sample_id"].to_list()
    home = "http://127.0.0.1:8765"
    app = TestClient(create_app(Live(store), token="known", port=8765), base_url=home, headers={"x-wtl-token": "known"})
    assert app.get("/api/state").json()["workspace"] == "s3://team/spaces/shown"
    for address in ("near", "arrivals", "quarantine", "labels", "recipe", "columns", "find?name=3.jpg"):
        assert app.get(f"/api/{address}").status_code == 200, address
    for address in (f"thumbs/{ids[0]}", f"images/{ids[0]}"):
        assert app.get(f"/{address}").content.startswith(b"\xff\xd8\xff"), address
    assert app.get(f"/api/images/{ids[0]}/neighbours").json()["neighbours"]
    assert app.post("/api/decisions", json={"ids": ids[:2], "decision": "unusable"}).status_code == 200
    assert app.get("/api/decisions").json()["images"] == 2
    assert app.post("/api/undo", json={"entry": 1}).json()["left"] == []
    assert "lease.json" not in store.names("")
    with ReportServer(store, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in ("", first.report):
            with urllib.request.urlopen(server.address + address, timeout=30) as answer:
                assert b"What to label" in answer.read()
        server.shutdown()
