import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from wtl_core.errors import BusyError, ConfigError, CorruptArtifactError, TransientError
from wtl_core.workspace import lease
from wtl_core.workspace.lease import LEASE, Owner
from wtl_core.workspace.storage import Store


def _leave(store: Store, **changes: object) -> None:
    """Put a lease of this very process there, with some of it changed, as another process might have left it."""
    with tempfile.TemporaryDirectory() as elsewhere, lease.hold(Store(elsewhere)):
        owner = json.loads(Store(elsewhere).read_bytes(LEASE))
    store.write_bytes(LEASE, json.dumps({**owner, "nonce": "old", **changes}).encode())


def test_the_lease_is_gone_after_the_block(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with lease.hold(store) as held:
        held.check()
        owner = lease.read_owner(store)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert store.names("") == []


def test_a_live_owner_is_refused_and_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with lease.hold(store), pytest.raises(BusyError, match=f"process {os.getpid()} on"), lease.hold(store):
        pass


def test_a_killed_owner_on_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    code = (
        "import os, sys; from wtl_core.workspace import lease; from wtl_core.workspace.storage import Store\n"
        "with lease.hold(Store(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    store = Store(str(tmp_path))
    assert lease.read_owner(store) is not None
    with lease.hold(store) as held:
        held.check()
    assert store.names("") == []


def test_a_reused_process_id_does_not_count_as_alive(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    _leave(store, started=1)
    with lease.hold(store):
        pass


@pytest.mark.parametrize("changes", [{"host": "elsewhere"}, {"boot_id": "another"}, {"namespace": "another"}])
def test_an_owner_whose_process_cannot_be_seen_is_trusted_for_a_minute_after_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str]
) -> None:
    """Machines can share a name, and containers a machine."""
    monkeypatch.setattr(lease, "WATCHED_SECONDS", 0.5)
    store = Store(str(tmp_path))
    _leave(store, **changes)
    with pytest.raises(BusyError), lease.hold(store):
        pass
    _leave(store, **changes, heartbeat=time.time() - lease.MISSED_SECONDS - 1)
    with lease.hold(store):
        pass


def test_another_host_whose_clock_is_behind_keeps_its_lease_while_it_beats(tmp_path: Path) -> None:
    store, stop = Store(str(tmp_path)), threading.Event()
    behind = time.time() - 3600

    def beat() -> None:
        for count in range(100):
            if stop.wait(0.1):
                return
            _leave(store, host="elsewhere", heartbeat=behind + count)

    _leave(store, host="elsewhere", heartbeat=behind - 1)
    thread = threading.Thread(target=beat)
    thread.start()
    with pytest.raises(BusyError, match="elsewhere at work"), lease.hold(store):
        pass
    stop.set()
    thread.join()


def test_a_process_that_the_system_hides_is_trusted_by_its_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, _: int) -> None:
        raise PermissionError(1, f"{pid}")

    store = Store(str(tmp_path))
    _leave(store, pid=2**22 + 1)
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(BusyError), lease.hold(store):
        pass
    _leave(store, pid=2**22 + 1, heartbeat=time.time() - lease.MISSED_SECONDS - 1)
    with lease.hold(store):
        pass


@pytest.mark.parametrize("error", [psutil.AccessDenied(), psutil.Error(), OSError(38, "Function not implemented")])
def test_a_live_owner_keeps_its_lease_where_no_process_can_be_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As on systems without `/proc`: our own live process once counted as dead there."""

    def deny(pid: int) -> None:
        raise error

    monkeypatch.setattr(psutil, "Process", deny)
    store = Store(str(tmp_path))
    with lease.hold(store) as held:
        with pytest.raises(BusyError), lease.hold(store):
            pass
        held.check()
    assert store.names("") == []
    _leave(store, heartbeat=time.time() - lease.MISSED_SECONDS - 1)
    with lease.hold(store):
        pass


def test_a_change_of_the_clock_steals_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, boot = Store(str(tmp_path)), psutil.boot_time()
    with lease.hold(store):
        for module in (psutil, importlib.import_module("psutil._pslinux")):  # what the system derives from the clock
            monkeypatch.setattr(module, "boot_time", lambda: boot + 3600)
        with pytest.raises(BusyError), lease.hold(store):
            pass


def test_a_lease_that_is_none_is_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for content in (b"", b"[1]", b'{"host": 1}'):
        store.write_bytes(LEASE, content)
        with pytest.raises(CorruptArtifactError, match=r"lease\.json: expected who holds"), lease.hold(store):
            pass


def test_of_many_contenders_for_a_dead_lease_one_wins(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    _leave(store, pid=2**22, started=1)
    wins, losses = [], []
    barrier, release = threading.Barrier(6), threading.Event()

    def contend(i: int) -> None:
        barrier.wait()
        try:
            with lease.hold(store):
                wins.append(i)
                release.wait(10)
        except BusyError:
            losses.append(i)
        if len(losses) == 5:
            release.set()

    threads = [threading.Thread(target=contend, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert len(losses) == 5


def test_a_lost_lease_is_noticed_before_the_commit(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    with lease.hold(store) as held:
        _leave(store)
        with pytest.raises(TransientError, match="lost"):
            held.check()


def test_the_heartbeat_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    store = Store(str(tmp_path))
    with lease.hold(store):
        _wait_for_a_heartbeat(store)


def test_a_store_that_denies_access_for_a_while_ends_no_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.02)
    denied = threading.Event()
    read = Store.read_bytes

    def deny(store: Store, key: str) -> bytes:
        if denied.is_set():
            raise ConfigError("access denied")
        return read(store, key)

    monkeypatch.setattr(Store, "read_bytes", deny)
    store = Store(str(tmp_path))
    with lease.hold(store) as held:
        denied.set()
        time.sleep(0.2)
        with pytest.raises(ConfigError, match="access denied"):
            held.check()
        denied.clear()
        _wait_for_a_heartbeat(store)


def test_owner_round_trips() -> None:
    owner = Owner("h", "b", 1, 2, "n", 3.5)
    assert Owner(**json.loads(owner.to_bytes())) == owner


def _wait_for_a_heartbeat(store: Store) -> None:
    """The owner's heartbeat moves; how soon depends on how busy the machine is."""
    first = lease.read_owner(store)
    assert first is not None
    for _ in range(1000):
        time.sleep(0.01)
        second = lease.read_owner(store)
        assert second is not None
        if second.heartbeat > first.heartbeat:
            return
    pytest.fail("no heartbeat in ten seconds")
