"""What a bucket refuses for good: one object is a quarantine row, all of a list is one refusal that says so."""

from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.conftest import make_jpeg
from tests.plain_refresh import PIXELS
from wtl_core import pipeline
from wtl_core.errors import ConfigError, InputError, TransientError
from wtl_core.machine import Machine
from wtl_core.pool import live_pool
from wtl_core.shards import bucket, discover, remote
from wtl_core.workspace import snapshots, storage
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store, filesystem

# boto3's own, and the event loop of s3fs that lives to the end of the process
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def refused(monkeypatch: pytest.MonkeyPatch, *, keys: str, status: int, method: str = "") -> None:
    """From now on the store answers requests for these keys so; a HEAD has no body, so its code is the status."""
    ask = bucket.call

    def answer(fs: object, asked: str, **arguments: str) -> object:
        if asked.startswith(method) and arguments.get("Key", "").startswith(keys):
            code = str(status) if asked == "head_object" else {403: "AccessDenied"}.get(status, "SomeRefusal")
            answered = {"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": status}}
            raise ClientError(answered, asked)  # type: ignore[arg-type]
        return ask(fs, asked, **arguments)

    monkeypatch.setattr(bucket, "call", answer)


def fill(endpoint: str, count: int, *, archived: int = 0) -> list[str]:
    client = boto3.client("s3", endpoint_url=endpoint)
    for i in range(count):
        kind = "GLACIER" if i < archived else "STANDARD"
        client.put_object(Bucket="team", Key=f"source/{i}.jpg", Body=make_jpeg(i), StorageClass=kind)
    return [f"s3://team/source/{i}.jpg" for i in range(count)]


def run(workspace: Path, endpoint: str, *sources: str) -> Commit:
    return pipeline.refresh_workspace(Store(str(workspace)), sources, PIXELS, Machine())


def refusals(workspace: Path, record: Commit) -> list[tuple[str, str]]:
    store = Store(str(workspace))
    return (
        live_pool.load(store, snapshots.read_snapshot(store, record.listing))
        .quarantine.select("reason", "message")
        .rows()
    )


def test_an_archived_object_is_a_read_error_and_ends_no_refresh(endpoint: str, tmp_path: Path) -> None:
    fill(endpoint, 6, archived=1)
    record = run(tmp_path / "w", endpoint, "s3://team/source")
    assert (record.counts.samples, record.counts.quarantined) == (5, 1)
    [(reason, message)] = refusals(tmp_path / "w", record)
    assert reason == "read_error"
    assert "InvalidObjectState" in message
    assert run(tmp_path / "w", endpoint) == record


def test_an_object_that_cannot_be_described_is_a_read_error_until_it_can(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is encrypted with a key of its owner's: a HEAD without the key is a bad request."""
    (tmp_path / "list.txt").write_text("\n".join(fill(endpoint, 6)))
    with monkeypatch.context() as patch:
        refused(patch, keys="source/3.jpg", status=400)
        record = run(tmp_path / "w", endpoint, str(tmp_path / "list.txt"))
        assert [reason for reason, _ in refusals(tmp_path / "w", record)] == ["read_error"]
        assert run(tmp_path / "w", endpoint) == record
    mended = run(tmp_path / "w", endpoint)
    assert (mended.counts.samples, mended.counts.quarantined) == (6, 0)


def test_denied_objects_of_a_list_are_told_apart_from_missing_ones_and_count_as_vanished(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("\n".join([*fill(endpoint, 6), "s3://team/source/none.jpg"]))
    with monkeypatch.context() as patch:
        refused(patch, keys="source/3.jpg", status=403)
        record = run(tmp_path / "w", endpoint, str(tmp_path / "list.txt"))
        assert sorted(reason for reason, _ in refusals(tmp_path / "w", record)) == ["access_denied", "missing"]
    assert run(tmp_path / "w", endpoint).counts.samples == 6
    for i in range(4):
        refused(monkeypatch, keys=f"source/{i}.jpg", status=403)
    with pytest.raises(InputError, match="4 of 6 known objects have vanished"):
        run(tmp_path / "w", endpoint)


def test_a_list_that_is_denied_altogether_is_one_refusal(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("\n".join(fill(endpoint, 3)))
    refused(monkeypatch, keys="source/", status=403)
    with pytest.raises(ConfigError, match=r"refuses all 3 .* check the credentials"):
        discover.list_source(str(tmp_path / "list.txt"))


def test_a_list_without_credentials_is_one_refusal(
    endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("\n".join([*fill(endpoint, 3), __file__]))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    filesystem("s3://").clear_instance_cache()
    with pytest.raises(ConfigError, match="check the credentials"):
        discover.list_source(str(tmp_path / "list.txt"))
    filesystem("s3://").clear_instance_cache()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_stays_transient(endpoint: str, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.001)
    refused(monkeypatch, keys="", status=status)
    with pytest.raises(TransientError, match="run again"):
        bucket.describe_uri("", "s3://team/x.jpg")
    with pytest.raises(TransientError, match="run again"):
        remote.insist(filesystem("s3://"), "s3://team/x.jpg", "get_object", {})


def test_codes_that_mean_later_pass_whatever_their_status() -> None:
    def answer(code: str, status: int) -> ClientError:
        answered = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        return ClientError(answered, "GetObject")  # type: ignore[arg-type]

    assert isinstance(storage.explain(answer("RequestTimeout", 400), "s3://b/k"), TransientError)
    assert isinstance(storage.explain(answer("InternalError", 500), "s3://b/k"), TransientError)
    assert isinstance(storage.explain(ConnectionError("reset"), "s3://b/k"), TransientError)
    assert isinstance(storage.explain(answer("InvalidObjectState", 403), "s3://b/k"), ConfigError)
