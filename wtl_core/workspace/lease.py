"""One writer per workspace: a lease file that names its owner, with a heartbeat.

A dead owner on this host is replaced at once. Whose processes cannot be seen from here (another host's, another
container's, or another boot's, since machines can share a name) is replaced after its heartbeat has been missed for a
minute; another host's clock may be wrong, so its lease must also stay the same while it is watched. Replacing goes
through a claim file named after the old lease, so that of two contenders only one wins.
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

from wtl_core.errors import BusyError, CorruptArtifactError, TransientError, WtlError
from wtl_core.workspace.storage import Store

LEASE = "lease.json"
HEARTBEAT_SECONDS = 15.0
MISSED_SECONDS = 60.0
WATCHED_SECONDS = 30.0
"""Two heartbeats."""
_RELOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Owner:
    """Who holds a lease. `started` is the process's start in clock ticks since boot, since process ids are reused.

    `namespace` is that of its process id, which means nothing in another container.
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
    """Whether the owner may still be writing, as far as a look at its process, or else at its heartbeat, tells."""
    here = _myself(owner.nonce)
    if (owner.host, owner.boot_id, owner.namespace) != (here.host, here.boot_id, here.namespace):
        return time.time() - owner.heartbeat < MISSED_SECONDS
    return _start_ticks(owner.pid) == owner.started or _is_hidden(owner.pid)


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
    """Renew the heartbeat until told to stop.

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
    return Owner(socket.gethostname(), boot, pid, _start_ticks(pid) or 0, nonce, time.time(), namespace)


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])


def _is_hidden(pid: int) -> bool:
    """Whether there is such a process that `/proc` does not show, as it may not show other users'."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return not Path(f"/proc/{pid}").exists()
    except ProcessLookupError:
        return False
    return False
