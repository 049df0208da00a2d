"""One writer per workspace: a lease file that names its owner, with a heartbeat.

A dead owner on this host is replaced at once, another host's after its heartbeat has been missed for a minute, a live
one never. Replacing goes through a claim file named after the old lease, so that of two contenders only one wins.
"""

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from wtl_core.errors import BusyError, TransientError, WtlError
from wtl_core.storage import Store

LEASE = "lease.json"
HEARTBEAT_SECONDS = 15.0
MISSED_SECONDS = 60.0
_RELOOK_SECONDS = 0.2


@dataclass(frozen=True)
class Owner:
    """Who holds a lease. `started` is the process's start in clock ticks since boot, since process ids are reused."""

    host: str
    boot_id: str
    pid: int
    started: int
    nonce: str
    heartbeat: float

    def to_bytes(self) -> bytes:
        """The lease file's content."""
        return json.dumps(asdict(self)).encode()


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
    """Whether the owner may still be writing."""
    here = _myself(owner.nonce)
    if owner.host != here.host:
        return time.time() - owner.heartbeat < MISSED_SECONDS
    return owner.boot_id == here.boot_id and _start_ticks(owner.pid) == owner.started


def _acquire(store: Store, key: str, nonce: str) -> None:
    """Make the file at `key` ours, or replace a dead owner's under a claim that is acquired in the same way."""
    while not store.create(key, _myself(nonce).to_bytes()):
        owner = _read(store, key)
        if owner is None:  # it was given back between the two looks
            time.sleep(_RELOOK_SECONDS)
            continue
        if owner.nonce == nonce:  # made, but the store's answer was lost and its client asked again
            return
        if is_alive(owner):
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
        return Owner(**json.loads(store.read_bytes(key)))
    except FileNotFoundError:
        return None


def _myself(nonce: str) -> Owner:
    boot_id = Path("/proc/sys/kernel/random/boot_id")
    pid = os.getpid()
    boot = boot_id.read_text().strip() if boot_id.exists() else ""
    return Owner(socket.gethostname(), boot, pid, _start_ticks(pid) or 0, nonce, time.time())


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else int(fields[19])
