"""`wtl up`: a Prefect server, a worker and the deployments as child processes of one supervisor, and their end.

The supervisor starts a child that has died again; on Ctrl-C or SIGTERM it ends all that it started, runs at work
included, also those whose worker has died, which leaves their workspace sound. Its state (the server's database, logs,
who is up) lies in one folder outside every workspace.
"""

import errno
import json
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from flows.serving import server
from flows.serving.processes import STOP_SECONDS, Child, end, is_alive, started_by
from flows.serving.server import Place, log_file
from flows.serving.site_values import Site
from wtl_core.errors import ConfigError, TransientError

DEFAULT_STATE = "~/.local/state/wtl"
"""The folder of state where neither `--state` nor WTL_STATE names one."""
_RESTART_PAUSE_SECONDS = 5.0
_STATE_FILE = "up.json"


def run(
    place: Place, site: Site, *, say: Callable[[str], object], on_ready: Callable[[], object] = lambda: None
) -> None:
    """Bring everything up, say where, and keep it up until SIGINT or SIGTERM.

    Raises:
        ConfigError: the port is taken, something is up already in this folder, or the site cannot be deployed.
        TransientError: the server does not answer.
    """
    _enter(place, site)
    from flows.serving.deploying import deploy

    started: list[Child] = []
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        _write_state(place)
        started.append(server.start(place))
        server.wait(started[0], place)
        say(f"server       {place.address}  (log: {started[0].log})")
        deploy(site)
        say(f"deployments  refresh-{site.name}, watch-{site.name} and others, in work pool {site.work_pool}")
        started.append(_start_worker(place, site))
        say(f"worker       started  (log: {started[1].log})")
        say(f"watching     {', '.join(site.source_uris) or 'all known sources'} for workspace {site.workspace_uri}")
        if site.labelling is not None:
            say(f"labelling    {site.labelling.link}")
        on_ready()
        _keep_up(started, say)
    finally:
        for number in previous:
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(started):
            child.stop()
        (place.folder / _STATE_FILE).unlink(missing_ok=True)
        for number, handler in previous.items():
            signal.signal(number, handler)


def detach(place: Place, site: Site, arguments: list[str], *, say: Callable[[str], object]) -> None:
    """Start the supervisor as a process of its own and return when all is up.

    Raises:
        ConfigError: something is up already, or the site cannot be deployed.
        TransientError: it ended or did not come up in time; the log's last lines are in the message.
    """
    _enter(place, site)
    log, ready = log_file(place.folder, "up"), place.folder / "up.ready"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "flows.cli.main", "up", *arguments]
    environment = {**os.environ, "WTL_UP_READY": str(ready)}
    supervisor = Child("supervisor", command, environment, log)
    supervisor.start()
    deadline = time.monotonic() + 2 * server.START_SECONDS
    while not ready.exists():
        if not supervisor.is_running() or time.monotonic() > deadline:
            supervisor.stop()
            raise TransientError(f"it did not come up; the end of {log}:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
    ready.unlink()
    say(f"up           {place.address}  (log: {log})")
    say(f"end it by    {down_command(place.folder)}")


def down(folder: Path) -> bool:
    """End what `wtl up` started with this state folder, also what outlived it; False if nothing is up."""
    state = _read_state(folder)
    if state is None:
        left = _left(folder)
        end(left)
        return bool(left)
    state.terminate()
    deadline = time.monotonic() + 3 * STOP_SECONDS
    while is_alive(state):
        if time.monotonic() > deadline:
            raise TransientError(f"process {state.pid} does not end; its log is in {folder / 'logs'}")
        time.sleep(0.1)
    return True


def running_place(folder: Path) -> Place | None:
    """The place of the server that `wtl up` keeps with this state folder; None if it is not up or does not answer."""
    if not (folder / _STATE_FILE).exists() or _read_state(folder) is None:
        return None
    state = json.loads((folder / _STATE_FILE).read_text())
    place = Place(folder, state.get("host", "127.0.0.1"), state.get("port", 4200))
    return place if server.answers(place) else None


def down_command(folder: Path) -> str:
    """What a person types to end it, from wherever they stand."""
    return shlex.join(["wtl", "down", "--state", str(folder)])


def check_free(place: Place) -> None:
    """Refuse a place where something is up already.

    Raises:
        ConfigError: a supervisor or what one left is alive, the port is taken, or the host is not this machine's.
    """
    state = _read_state(place.folder)
    if state is not None and state.pid != os.getpid():
        raise ConfigError(
            f"{place.folder}: process {state.pid} is up already; `{down_command(place.folder)}` ends it, or name "
            "another folder by --state"
        )
    if left := _left(place.folder):
        raise ConfigError(
            f"{place.folder}: expected nothing left of an earlier `wtl up`, found process {left[0].pid} of one that "
            f"was killed; `{down_command(place.folder)}` ends it"
        )
    try:
        family, kind, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        raise ConfigError(f"host {place.host!r}: expected an address of this machine: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ConfigError(
                f"host {place.host!r}: expected an address of this machine: {error.strerror}; 127.0.0.1 is one"
            ) from error
        raise ConfigError(f"port {place.port}: expected it free: {error.strerror}; name another by --port") from error


def _enter(place: Place, site: Site) -> None:
    """Refuse what cannot come up; then this process has the settings of `place`."""
    check_free(place)
    place.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # Prefect makes its home, but not what is above it
    os.environ.update(place.environment())  # Prefect reads its settings from there when it is imported
    from flows.serving.deploying import check

    check(site)


def _start_worker(place: Place, site: Site) -> Child:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", site.work_pool, "--type", "process"]
    command += ["--name", f"wtl-{site.name}"]
    worker = Child("worker", command, place.environment(), log_file(place.folder, "worker"))
    worker.start()
    return worker


def _keep_up(children: list[Child], say: Callable[[str], object]) -> None:
    while True:
        for child in children:
            if not child.is_running():
                say(f"{child.name:<12} has ended, starting it again; why is in {child.log}")
                child.start()
        time.sleep(_RESTART_PAUSE_SECONDS)


def _write_state(place: Place) -> None:
    (place.folder / _STATE_FILE).write_text(
        json.dumps({"pid": os.getpid(), "address": place.address, "host": place.host, "port": place.port})
    )


def _read_state(folder: Path) -> psutil.Process | None:
    """The supervisor, if it is alive. After a power cut its number may belong to any process."""
    try:
        process = psutil.Process(int(json.loads((folder / _STATE_FILE).read_text())["pid"]))
        words = process.cmdline()
    except (OSError, ValueError, KeyError, psutil.Error):
        return None
    is_ours = "up" in words and any("wtl" in word or "flows.cli.main" in word for word in words)
    return process if is_ours and is_alive(process) else None


def _left(folder: Path) -> list[psutil.Process]:
    """What outlived its supervisor. A second server beside it would share its database."""
    return [*started_by(log_file(folder, "worker")), *started_by(log_file(folder, "server"))]


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
