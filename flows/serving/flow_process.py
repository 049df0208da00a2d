"""A flow run in this process: on a known server, or on one of its own.

The server is the one that PREFECT_API_URL or a profile of Prefect names, else the one that `wtl up` keeps, else one
that starts here and ends with this process. Seconds of a run whose work is light (10 labels came
back, 2,964 images; 2 cores, quiet before and beside some load now), until

| | before | now |
|---|---|---|
| the plan stands | 0.7 | 0.7 |
| Prefect, torch, LanceDB and the stages are imported | 4.7 | 3.7 |
| the flow runs | 5.5 | 3.9 |
| the result is printed | 8.5 | 5.7 |
| the command has ended | 10.3 | 6.1 |

So the own server starts before Prefect is imported here, and is asked once as soon as it answers. Memory is not
searched for garbage during the imports, which make a million objects that stay (0.9 s). The stages themselves waited
1.2 s for torchvision, of which only a library is loaded now (`images.decode`). A server within this process, without a
network, is no way out: its imports take 2 s of the same core, while a process of its own has the other core.
"""

import atexit
import gc
import logging
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from flows.serving import server, up
from flows.serving.processes import STOP_SECONDS, Child
from flows.serving.server import Place
from wtl_core.errors import TransientError

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "wtl_core",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
}
_ADDRESS = re.compile(r"PREFECT_API_URL|^\[(tool\.prefect\.)?api\]", re.MULTILINE)
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")

_lasting = ExitStack()
"""Prefect's settings that hold until this process ends."""

_logger = logging.getLogger("wtl_core.progress")


def is_watched() -> bool:
    """Whether a server shows the flow runs of this process: one is named somewhere, or `wtl up` keeps one.

    Files of Prefect's settings are searched for an address and not read by Prefect, which takes 0.6 s.
    """
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    for path in (profiles, Path(".env"), Path("prefect.toml"), Path("pyproject.toml")):
        with suppress(OSError):
            if _ADDRESS.search(path.read_text(errors="replace")):
                return True
    return up.running_place(_state_folder()) is not None


def _state_folder() -> Path:
    return Path(os.environ.get("WTL_STATE") or up.DEFAULT_STATE).expanduser().absolute()


def prepare() -> Callable[[], None]:
    """Call before a flow is imported: settings that the environment does not give, and the server.

    Returns:
        A function to call when the flow is imported: it waits for the server, which starts meanwhile, and raises
        TransientError if it does not answer.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if home := os.environ.get("PREFECT_HOME"):  # Prefect makes it, but not what is above it
        Path(home).expanduser().mkdir(parents=True, exist_ok=True)
    gc.disable()
    kept = own = None
    if not os.environ.get("PREFECT_API_URL"):
        kept = up.running_place(_state_folder())
        own = _start_own() if kept is None else None
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, get_current_settings, temporary_settings

    from tasks.prefect_side.device import OWN_SERVER

    if get_current_settings().api.url:  # of the environment, or of a profile, which is known only now, 0.6 s later
        if own is not None:
            _stop(*own)
        own = None
    elif own is not None:
        _use(own[1], {OWN_SERVER: "1"})
        # Whose end a run waits for, for up to a second; nobody listens to them on a server that ends with the run.
        _lasting.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
    elif kept is not None:
        _use(kept)
        _logger.info("server       %s, which `wtl up` keeps, shows this run", kept.address)

    def wait() -> None:
        gc.freeze()
        gc.enable()
        if not logging.getLogger("wtl_core").isEnabledFor(logging.DEBUG):  # as `--debug` sets it
            for handler in logging.getLogger().handlers:
                handler.addFilter(_is_of_no_run)
        if own is not None:
            server.wait(*own)

    return wait


def _is_of_no_run(record: logging.LogRecord) -> bool:
    """A failure of a run is raised as well, and the command line says it once; the server has these records."""
    return not record.name.startswith(_RUN_LOGGERS)


def _use(place: Place, more: dict[str, str] | None = None) -> None:
    """Let this process, and those that it starts, use the server at `place`."""
    from prefect.context import refresh_global_settings_context

    os.environ.update(place.client_environment() | (more or {}))
    refresh_global_settings_context()


def _start_own() -> tuple[Child, Place]:
    """A server in a session of its own, which ends with this process, also with one that is killed.

    A terminal's Ctrl-C, or `timeout`, reaches all that a command started, and a server that ends first is asked in vain
    for a minute.
    """
    place = Place(Path(tempfile.mkdtemp(prefix="wtl-server-")), port=_free_port(), is_own=True)
    started = server.start(place)
    atexit.register(_stop, started, place)  # after Prefect's threads have sent what they hold
    threading.Thread(target=_warm_up, args=(started, place), daemon=True).start()
    return started, place


def _warm_up(started: Child, place: Place) -> None:
    """Ask the server something while flows are imported: its first answer takes 0.3 s more than those that follow."""
    with suppress(TransientError, OSError):  # `prepare` raises what is wrong
        server.wait(started, place)
        urllib.request.urlopen(f"{place.address}/api/admin/version", timeout=5).close()  # noqa: S310, our own server


def _stop(started: Child, place: Place) -> None:
    """End the server. It starts no process itself, so the search for such ones, a second, is left out."""
    process = started.process
    if process is not None:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    shutil.rmtree(place.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
