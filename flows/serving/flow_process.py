"""A flow run in this process, on the server that PREFECT_API_URL names or on one of its own."""

import atexit
import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from flows.serving import server
from flows.serving.processes import Child
from flows.serving.server import Place

_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "wtl_core",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
}
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def prepare() -> Callable[[], None]:
    """Call before a flow is imported: settings that the environment does not give, and a server if it names none.

    Returns:
        A function to call when the flow is imported: it waits for the server, which starts meanwhile, and raises
        TransientError if it does not answer.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if home := os.environ.get("PREFECT_HOME"):  # Prefect makes it, but not what is above it
        Path(home).expanduser().mkdir(parents=True, exist_ok=True)
    from prefect.settings import get_current_settings

    started = None if get_current_settings().api.url else _start_own()

    def wait() -> None:
        if not logging.getLogger("wtl_core").isEnabledFor(logging.DEBUG):  # as `--debug` sets it
            for handler in logging.getLogger().handlers:
                handler.addFilter(_is_of_no_run)
        if started is not None:
            server.wait(*started)

    return wait


def _is_of_no_run(record: logging.LogRecord) -> bool:
    """A failure of a run is raised as well, and the command line says it once; the server has these records."""
    return not record.name.startswith(_RUN_LOGGERS)


def _start_own() -> tuple[Child, Place]:
    """A server in a session of its own, which ends with this process, also with one that is killed.

    A terminal's Ctrl-C, or `timeout`, reaches all that a command started, and a server that ends first is asked in vain
    for a minute.
    """
    from prefect.context import refresh_global_settings_context

    from tasks.prefect_side.device import OWN_SERVER

    place = Place(Path(tempfile.mkdtemp(prefix="wtl-server-")), port=_free_port(), is_own=True)
    started = server.start(place)
    atexit.register(_stop, started, place)  # after Prefect's threads have sent what they hold
    os.environ.update(place.client_environment() | {OWN_SERVER: "1"})
    refresh_global_settings_context()
    return started, place


def _stop(started: Child, place: Place) -> None:
    started.stop()
    shutil.rmtree(place.folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
