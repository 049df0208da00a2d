"""`wtl up`: a Prefect server, a worker and the deployments as child processes of one supervisor, and their end.

The supervisor starts a child that has died again; on Ctrl-C or SIGTERM it ends all that it started, runs at work
included, also those whose worker has died, which leaves their workspace sound. Its state (the server's database, logs,
who is up) lies in one folder outside every workspace.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.serving.site_values import Site, read_settings
from wtl_core.errors import ConfigError, TransientError

_START_SECONDS, _STOP_SECONDS, _RESTART_PAUSE_SECONDS = 120.0, 20.0, 5.0
_STATE_FILE = "up.json"
_MARK = "WTL_UP_LOG"
"""In the environment of a child and all below it, those included that were left to init when their parent died."""


@dataclass(frozen=True)
class Place:
    """Where the server listens and where its state lies."""

    folder: Path
    host: str = "127.0.0.1"
    port: int = 4200
    database_url: str | None = None

    @property
    def address(self) -> str:
        """The UI's address."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104, compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """What server, worker and runs need; the shell's own settings win over the shipped files."""
        fixed = {
            "PREFECT_HOME": str(self.folder),
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_API_URL": f"{self.address}/api",
            "PREFECT_UI_URL": self.address,
        }
        if self.database_url is not None:
            fixed["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.database_url
        return {**read_settings("server"), **read_settings("worker"), **os.environ, **fixed}


@dataclass
class Child:
    """One process that is kept running, in a session of its own: a terminal's Ctrl-C reaches the supervisor only."""

    name: str
    command: list[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        """Start it, its output going to the log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as handle:
            self.process = subprocess.Popen(  # noqa: S603, our own commands
                self.command,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**self.environment, _MARK: str(self.log)},
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Ask it and all that it started to end, then insist."""
        if self.process is None:
            return
        _end([self.process.pid, *_descendants(self.process.pid), *_marked(self.log)])
        self.process.wait()


def run(
    place: Place, site: Site, *, say: Callable[[str], object], on_ready: Callable[[], object] = lambda: None
) -> None:
    """Bring everything up, say where, and keep it up until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is taken, something is up already in this folder, or the site cannot be deployed.
        TransientError: the server does not answer.
    """
    _refuse_second(place)
    environment = place.environment()
    os.environ.update(environment)  # Prefect reads its settings from there when it is imported
    from flows.serving.deploying import check, deploy

    check(site)
    server = Child("server", _prefect("server", "start"), environment, _log(place.folder, "server"))
    worker = Child("worker", _worker(site), environment, _log(place.folder, "worker"))
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _write_state(place)
        server.start()
        _wait_for(server, place)
        say(f"server       {place.address}  (log: {server.log})")
        deploy(site)
        say(f"deployments  refresh-{site.name}, watch-{site.name} and others, in work pool {site.work_pool}")
        worker.start()
        say(f"worker       started  (log: {worker.log})")
        say(f"watching     {', '.join(site.sources)} for workspace {site.workspace}")
        on_ready()
        _keep_up([server, worker], say)
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        worker.stop()
        server.stop()
        (place.folder / _STATE_FILE).unlink(missing_ok=True)
        for number, handler in previous.items():
            signal.signal(number, handler)


def detach(place: Place, site: Site, arguments: list[str], *, say: Callable[[str], object]) -> None:
    """Start the supervisor as a process of its own and return when all is up.

    Raises:
        ConfigError: something is up already, or the site cannot be deployed.
        TransientError: it ended or did not come up in time; the log's last lines are in the message.
    """
    _refuse_second(place)
    os.environ.update(place.environment())  # Prefect reads its settings from there when it is imported
    from flows.serving.deploying import check

    check(site)
    log, ready = _log(place.folder, "up"), place.folder / "up.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.cli.main", "up", *arguments]
    environment = {**os.environ, "WTL_UP_READY": str(ready)}
    supervisor = Child("supervisor", command, environment, log)
    supervisor.start()
    deadline = time.monotonic() + 2 * _START_SECONDS
    while not ready.exists():
        if not supervisor.is_running() or time.monotonic() > deadline:
            supervisor.stop()
            raise TransientError(f"it did not come up; the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
    ready.unlink()
    say(f"up           {place.address}  (log: {log}; `wtl down` ends it)")


def down(folder: Path) -> bool:
    """End what `wtl up` started with this state folder, also what outlived it; False if nothing is up."""
    state = _read_state(folder)
    if state is None:
        left = _left(folder)
        _end(left)
        return bool(left)
    os.kill(state, signal.SIGTERM)
    deadline = time.monotonic() + 3 * _STOP_SECONDS
    while _is_alive(state):
        if time.monotonic() > deadline:
            raise TransientError(f"process {state} does not end; its log is in {folder / 'logs'}")
        time.sleep(0.1)
    return True


def _log(folder: Path, name: str) -> Path:
    return folder / "logs" / f"{name}.log"


def _prefect(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *arguments]


def _worker(site: Site) -> list[str]:
    return _prefect("worker", "start", "--pool", site.work_pool, "--type", "process", "--name", f"wtl-{site.name}")


def _keep_up(children: list[Child], say: Callable[[str], object]) -> None:
    while True:
        for child in children:
            if not child.is_running():
                say(f"{child.name:<12} has ended, starting it again; why is in {child.log}")
                child.start()
        time.sleep(_RESTART_PAUSE_SECONDS)


def _wait_for(server: Child, place: Place) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if not server.is_running():
            break
        try:
            with urllib.request.urlopen(f"{place.address}/api/health", timeout=5) as answer:  # noqa: S310, our own server
                if answer.status == 200:
                    return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.2)
    raise TransientError(f"the Prefect server does not answer at {place.address}; why is in {server.log}")


def _refuse_second(place: Place) -> None:
    state = _read_state(place.folder)
    if state is not None and state != os.getpid():
        raise ConfigError(f"{place.folder}: process {state} is up already; `wtl down` ends it")
    if left := _left(place.folder):
        found = f"found process {left[0]} of one that was killed"
        raise ConfigError(f"{place.folder}: expected nothing left of an earlier `wtl up`, {found}; `wtl down` ends it")
    try:
        family, kind, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ConfigError(f"host {place.host!r}: expected an address of this machine: {error.strerror}") from error
    except OSError as error:
        raise ConfigError(f"port {place.port}: expected it free: {error.strerror}; name another by --port") from error


def _write_state(place: Place) -> None:
    place.folder.mkdir(parents=True, exist_ok=True)
    (place.folder / _STATE_FILE).write_text(json.dumps({"pid": os.getpid(), "address": place.address}))


def _read_state(folder: Path) -> int | None:
    """The process id of a supervisor that is alive; None without one."""
    try:
        pid = int(json.loads((folder / _STATE_FILE).read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return None
    words = _command_line(pid).split(b"\0")
    is_ours = b"up" in words and any(b"wtl" in word or b"flows.cli.main" in word for word in words)
    return pid if _is_alive(pid) and is_ours else None


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end(pids: list[int]) -> None:
    _signal(pids, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    while time.monotonic() < deadline and any(_is_alive(pid) for pid in pids):
        time.sleep(0.1)
    _signal([pid for pid in pids if _is_alive(pid)], signal.SIGKILL)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def _marked(log: Path) -> list[int]:
    """All that a child with this log ever started and that is alive, whoever its parent is now."""
    mark, found = f"{_MARK}={log}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:  # ended meanwhile, or another user's
                continue
            if mark in environment.split(b"\0") and _is_alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def _left(folder: Path) -> list[int]:
    """What outlived its supervisor. A second server beside it would share its database."""
    return [*_marked(_log(folder, "worker")), *_marked(_log(folder, "server"))]


def _descendants(pid: int) -> list[int]:
    """Children, and theirs: runs live in sessions of their own, so no group signal reaches them."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(parent, []).append(int(entry.name))
    found, queue = [], list(parents.get(pid, []))
    while queue:
        found.append(queue.pop())
        queue.extend(parents.get(found[-1], []))
    return found
