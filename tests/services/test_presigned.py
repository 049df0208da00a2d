"""Presigned addresses of a batch, on Ceph's gateway where it is installed: they open for anyone, and expire."""

import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import S3_KEYS, make_jpeg, use_s3
from tests.plain_refresh import refresh
from tests.small_batches import write_batch
from wtl_core.errors import ConfigError
from wtl_core.labelling import batches
from wtl_core.labelling.batches import Asked
from wtl_core.workspace.storage import Store, filesystem

# boto3's own, and the event loop of s3fs that lives to the end of the process
pytestmark = [
    pytest.mark.services,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning"),
]
NAMES = ("a.jpg", "two\nlines.jpg", 'q"<b>&amp;+=;,.jpg', "été #?%20/שלום\u202e.jpg")


def test_addresses_open_for_anyone_whatever_the_keys_are_and_expire(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_s3(monkeypatch, bucket, S3_KEYS)
    store = filesystem("s3://")
    for number, name in enumerate(NAMES):
        store.pipe_file(f"s3://shards/presigned/{name}", make_jpeg(number))
    refresh(tmp_path / "w", "s3://shards/presigned")  # type: ignore[arg-type]
    workspace = Store(str(tmp_path / "w"))
    batch = batches.hand_out(workspace, Asked(new=4))
    write_batch(workspace, batch, tmp_path / "t.json", "label-studio", presign_seconds=3)
    tasks = [task["data"] for task in json.loads((tmp_path / "t.json").read_text())]
    assert {task["uri"] for task in tasks} == {f"s3://shards/presigned/{name}" for name in NAMES}
    for task in tasks:
        number = NAMES.index(task["uri"].removeprefix("s3://shards/presigned/"))
        with urllib.request.urlopen(task["image"], timeout=20) as answer:
            assert answer.read() == make_jpeg(number)
    time.sleep(5)
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(tasks[0]["image"], timeout=20)
    assert error.value.code == 403
    for name in S3_KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    use_s3(monkeypatch, bucket, {})
    with pytest.raises(ConfigError, match="check the credentials in the environment"):
        write_batch(workspace, batch, tmp_path / "none.json", "label-studio", presign_seconds=3)
    assert not (tmp_path / "none.json").exists()
