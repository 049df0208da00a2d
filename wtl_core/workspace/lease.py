"""One writer per workspace: a lease file that names its owner, with a heartbeat.

An owner whose process has ended is replaced at once. An owner that we cannot look up (it is on another host, in another
container, from another boot, or the system does not show its process) is considered dead after 60 s without a
heartbeat. Another host's clock may be wrong, so its lease is also watched for two heartbeats. Replacing goes through a
claim file named after the old lease, so that of two contenders only one wins.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

from wtl_core.errors import BusyError, CorruptArtifactError, TransientError, WtlError
from wtl_core.workspace.storage import Store

LEASE = "lease.json"
HEARTBEAT_SECONDS = 15.0
MISSED_SECONDS = 60.0
WATCHED_SECONDS = 30.0
"""Two heartbeats."""
_RELOOK_SECONDS = 0.2
_TICKS = 100
"""Clock ticks a second, in which Linux counts a process's start; lease files of earlier versions hold these."""
_SAME_START_TICKS = 2 * _TICKS
"""Both ends of the difference to the boot may be rounded or slewed; no process id is used again within two seconds."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease.

    Attributes:
        host: Name of the machine.
        boot_id: Of the machine's present boot, since machines can share a name; empty where the system tells none.
        pid: Process id.
        started: The process's start in hundredths of a second since the boot, since process ids are used again; 0 where
            the system does not tell it.
        nonce: A random word for this lease alone.
        heartbeat: When it was last renewed, Unix time in seconds.
        namespace: Of the process id, which means nothing in another container; empty where the system has none.
    """

    host: str
    boot_id: str
    pid: int
    started: int
    nonce: str
    heartbeat: float
    namespace: str = ""

    def to_bytes(self) -> bytes:
        """The lease file's content."""
        return json.dumps(asdict(self)).encode()


_FIELDS = frozenset(field.name for field in fields(Owner))


@dataclass(frozen=True)
class Lease:
    """The right to write, while it lasts."""

    store: Store
    nonce: str

    def check(self) -> None:
        """Call before a commit. Raises TransientError if the lease was lost (this process was suspended)."""
        if not _is_held(self.store, self.nonce):
            raise TransientError(f"{self.store.root}: the lease was lost to another process; run again")


@contextmanager
def hold(store: Store) -> Iterator[Lease]:
    """Hold the workspace for the block. Raises BusyError if a live process holds it."""
    nonce = secrets.token_hex(8)
    _acquire(store, LEASE, nonce)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(store, nonce, stop), name="wtl-lease", daemon=True)
    beat.start()
    try:
        yield Lease(store, nonce)
    finally:
        stop.set()
        beat.join()
        if _is_held(store, nonce):
            store.delete(LEASE)


def read_owner(store: Store) -> Owner | None:
    """Who holds the workspace now, dead or alive; None if nobody does."""
    return _read(store, LEASE)


def is_alive(owner: Owner) -> bool:
    """Whether the owner may still be writing: by its process where we can look it up, else by its heartbeat."""
    here = _myself(owner.nonce)
    if owner.started and (owner.host, owner.boot_id, owner.namespace) == (here.host, here.boot_id, here.namespace):
        try:
            process = psutil.Process(owner.pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                return abs(_started(process) - owner.started) <= _SAME_START_TICKS
            return False
        except psutil.NoSuchProcess:
            if not _is_hidden(owner.pid):
                return False
        except (psutil.Error, OSError):  # the system does not let us see it
            pass
    return time.time() - owner.heartbeat < MISSED_SECONDS


def _acquire(store: Store, key: str, nonce: str) -> None:
    """Make the file at `key` ours, or replace a dead owner's under a claim that is acquired in the same way."""
    while not store.create(key, _myself(nonce).to_bytes()):
        owner = _read(store, key)
        if owner is None:  # it was given back between the two looks
            time.sleep(_RELOOK_SECONDS)
            continue
        if owner.nonce == nonce:  # made, but the store's answer was lost and its client asked again
            return
        if is_alive(owner) or _beats(store, key, owner):
            raise BusyError(
                f"{store.root}: expected to be the only writer, found process {owner.pid} on {owner.host} at work; "
                "wait until it ends, then run again"
            )
        claim = f"{key}.{owner.nonce}"
        _acquire(store, claim, nonce)
        current = _read(store, key)
        is_unchanged = current is not None and current.nonce == owner.nonce
        if is_unchanged:
            store.write_bytes(key, _myself(nonce).to_bytes())
        store.delete(claim)
        if is_unchanged:
            return


def _beats(store: Store, key: str, owner: Owner) -> bool:
    """Whether another host's lease is renewed while it is watched."""
    if owner.host == socket.gethostname():
        return False
    until = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < until:
        time.sleep(_RELOOK_SECONDS)
        current = _read(store, key)
        if current is None or current.nonce != owner.nonce:
            return False  # the next look decides
        if current.heartbeat != owner.heartbeat:
            return True
    return False


def _beat(store: Store, nonce: str, stop: threading.Event) -> None:
    """Renew the heartbeat until `stop` is set.

    A store that is away, or denies access, is tried again at the next beat: whether the lease still holds is for
    `Lease.check` to find out.
    """
    while not stop.wait(HEARTBEAT_SECONDS):
        try:
            if not _is_held(store, nonce):
                return
            store.write_bytes(LEASE, _myself(nonce).to_bytes())
        except (OSError, WtlError):
            continue


def _is_held(store: Store, nonce: str) -> bool:
    owner = _read(store, LEASE)
    return owner is not None and owner.nonce == nonce


def _read(store: Store, key: str) -> Owner | None:
    try:
        found = json.loads(store.read_bytes(key))
        return Owner(
            **{name: value for name, value in found.items() if name in _FIELDS}
        )  # a newer version may add some
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, AttributeError) as error:
        raise CorruptArtifactError(
            f"{store.path(key)}: expected who holds the workspace, found something else ({error}); see that no run is "
            "at work, delete the file and run again"
        ) from error


def _myself(nonce: str) -> Owner:
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    pid = os.getpid()
    boot = boot_id.read_text().strip() if boot_id.exists() else ""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    try:
        started = _started(psutil.Process(pid))
    except (psutil.Error, OSError):
        started = 0
    return Owner(socket.gethostname(), boot, pid, started, nonce, time.time(), namespace)


def _started(process: psutil.Process) -> int:
    """When a process started, in hundredths of a second since the boot: a change of the clock does not move it."""
    seconds: float = process.create_time() - psutil.boot_time()
    return round(seconds * _TICKS)


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process although the system does not show it, as it may not show other users'."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
