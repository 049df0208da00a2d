import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import S3_KEYS, use_s3
from wtl_core.errors import ConfigError, TransientError
from wtl_core.workspace import storage
from wtl_core.workspace.storage import TEMPORARY_PREFIX, Store, check_conditional_writes, open_store


def test_a_writer_that_raises_leaves_the_old_file_and_no_trace(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write_bytes("a/b", b"old")

    def fail() -> None:
        with store.writer("a/b") as handle:
            handle.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert store.read_bytes("a/b") == b"old"
    assert store.names("a") == ["b"]


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    def fill() -> None:
        with store.writer("pool/b"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ConfigError, match=r"pool: expected room to write b, found none left; make room"):
        fill()
    assert store.names("pool") == []


def test_a_killed_writer_leaves_nothing_that_counts_and_the_sweep_takes_the_rest(tmp_path: Path) -> None:
    code = (
        "import os, sys; from wtl_core.workspace.storage import Store\n"
        "with Store(sys.argv[1]).writer('pool/x') as h: h.write(b'half'); h.flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    store = Store(str(tmp_path))
    assert not store.exists("pool/x")
    assert [name for name in store.names("pool") if name.startswith(TEMPORARY_PREFIX)]
    store.sweep()
    assert store.names("pool") == []


def test_the_sweep_takes_old_leavings_at_the_root_and_none_that_is_being_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for name in ("old", "new"):
        store.write_bytes(f"{TEMPORARY_PREFIX}{name}", b"x")
    os.utime(tmp_path / f"{TEMPORARY_PREFIX}old", (1, 1))
    store.sweep()
    assert store.names("") == [f"{TEMPORARY_PREFIX}new"]


def _refuse_links(number: int) -> Callable[[Path, Path], None]:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    return refuse


@pytest.mark.parametrize("number", [None, errno.EPERM, errno.ENOTSUP])
def test_of_many_creators_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    """Also on file systems without hard links, as exFAT."""
    if number is not None:
        monkeypatch.setattr(os, "link", _refuse_links(number))
    store = Store(str(tmp_path))
    wins: list[int] = []
    threads = [
        threading.Thread(target=lambda i=i: wins.append(i) if store.create("k", str(i).encode()) else None)
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.read_bytes("k") == str(wins[0]).encode()


def test_without_hard_links_a_full_disk_leaves_no_file_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fills up after the first file of the creation was written."""
    synced: list[int] = []

    def fail_later(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(path: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path), None, str(target))

    monkeypatch.setattr(os, "link", _refuse_links(errno.EPERM))
    monkeypatch.setattr(os, "fsync", fail_later)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match=r"commits: expected room to write 1\.json, found none left"):
        Store(str(tmp_path)).create("commits/1.json", b"{}")
    assert list((tmp_path / "commits").iterdir()) == []


def test_without_hard_links_a_file_is_seen_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    store, sync = Store(str(tmp_path)), os.fsync

    def look(handle: int) -> None:
        seen.append([name for name in store.names("commits") if name.endswith(".json")])
        sync(handle)

    monkeypatch.setattr(os, "link", _refuse_links(errno.EPERM))
    monkeypatch.setattr(os, "fsync", look)
    assert store.create("commits/1.json", b"{}")
    assert seen == [[]] * len(seen) != []
    assert not store.create("commits/1.json", b"[]")
    assert store.read_bytes("commits/1.json") == b"{}"
    assert store.names("commits") == ["1.json"]


def test_without_hard_links_a_killed_creator_leaves_no_file_and_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, sys, errno; from pathlib import Path; from wtl_core.workspace.storage import Store\n"
        "def refuse(*paths): raise OSError(errno.EPERM, 'no links')\n"
        "def die(*paths): os.kill(os.getpid(), 9)\n"
        "os.link, Path.replace = refuse, die\n"
        "syncs, sync = [], os.fsync\n"
        "os.fsync = lambda handle: die() if syncs else (syncs.append(1), sync(handle))\n"
        "Store(sys.argv[1]).create('commits/1.json', b'{}')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    store = Store(str(tmp_path))
    left = store.names("commits")
    assert left
    assert [name for name in left if not name.startswith(TEMPORARY_PREFIX) or name.endswith(".json")] == []
    for name in left:
        long_ago = (tmp_path / "commits" / name).stat().st_mtime - 61
        os.utime(tmp_path / "commits" / name, (long_ago, long_ago))
    monkeypatch.setattr(os, "link", _refuse_links(errno.EPERM))
    wins: list[bool] = []
    threads = [threading.Thread(target=lambda: wins.append(store.create("commits/1.json", b"{}"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]
    store.sweep()
    assert store.names("commits") == ["1.json"]


def test_a_link_that_fails_for_another_reason_is_no_reason_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "link", _refuse_links(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        Store(str(tmp_path)).create("k", b"1")
    assert list(tmp_path.iterdir()) == []


def test_frames_come_back_as_they_were(tmp_path: Path) -> None:
    store, frame = Store(str(tmp_path)), pl.DataFrame({"a": [1, 2], "b": ["x", None]})
    store.write_frame("tables/t.parquet", frame)
    assert store.read_frame("tables/t.parquet").equals(frame)
    assert store.read_frame("tables/t.parquet", ["b"]).equals(frame.select("b"))
    assert store.read_bytes("tables/t.parquet") == storage.to_parquet(frame)
    with pytest.raises(FileNotFoundError):
        store.read_frame("tables/none.parquet")


def test_folders_are_deleted_whole_and_files_have_a_time(tmp_path: Path, endpoint: str) -> None:
    for store in (Store(str(tmp_path)), Store("s3://team/of-folders")):  # the server forgets nothing
        store.delete_folder("a")
        for key in ("a/1", "a/b/2", "c"):
            store.write_bytes(key, b"x")
        assert abs(datetime.now(UTC) - store.modified("c")) < timedelta(minutes=5)
        store.delete_folder("a")
        assert store.names("") == ["c"]
        with pytest.raises(FileNotFoundError):
            store.modified("a/1")


def test_paths_and_uris_have_one_spelling(tmp_path: Path) -> None:
    assert open_store(f"{tmp_path}/").root == str(tmp_path)
    assert open_store(os.path.relpath(tmp_path)).root == str(tmp_path)
    assert open_store(tmp_path.as_uri()).root == str(tmp_path)
    assert open_store("s3://bucket/prefix/").root == "s3://bucket/prefix"
    for wrong in ("ftp://host/x", "s3://", "https://host/x"):
        with pytest.raises(ConfigError):
            open_store(wrong)


class _Forgetful(Store):
    """A store without conditional writes, as one S3 gateway was found to be; no such server is installed here."""

    @property
    def is_local(self) -> bool:
        return False

    def create(self, key: str, data: bytes) -> bool:
        Path(self.path(key)).write_bytes(data)
        return True

    def delete(self, key: str) -> None:
        Path(self.path(key)).unlink()


def test_a_store_that_overwrites_on_create_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="loses commits"):
        check_conditional_writes(_Forgetful(str(tmp_path)), "probe")


def test_a_file_uri_is_the_path_that_it_encodes(tmp_path: Path) -> None:
    assert open_store(f"file://{tmp_path}/my%20shards#1").root == f"{tmp_path}/my shards#1"


def test_a_bucket_that_does_not_answer_is_a_transient_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    use_s3(monkeypatch, "http://127.0.0.1:9", S3_KEYS)
    store = Store("s3://bucket/data")
    for call in (store.exists, store.read_bytes, store.names, store.delete):
        with pytest.raises(TransientError, match="the store failed"):
            call("key")
    for write in (store.create, store.write_bytes):
        with pytest.raises(TransientError, match="the store failed"):
            write("key", b"data")


def test_a_refusal_that_holds_the_digits_of_a_precondition_is_not_one() -> None:
    error = PermissionError("User: arn:aws:iam::412345678901:user/x is not authorized")
    assert storage.error_code(error) == ""
    assert isinstance(storage.explain(error, "s3://b/k"), ConfigError)
