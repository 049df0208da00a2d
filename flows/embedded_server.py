"""Prefect's settings for a run in this process, on the server that PREFECT_API_URL names or on an embedded one."""

import logging
import os
import signal
import subprocess
from typing import Any

from flows import terminal

_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "wtl_core",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
}


def prepare(*, is_debug: bool) -> None:
    """Call before prefect is imported: settings that the environment does not give, and refusals without tracebacks."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not is_debug:
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(terminal.ExpectedRefusals())
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        _keep_from_ctrl_c()


def _keep_from_ctrl_c() -> None:
    """A terminal interrupts all that a command started, and a server that ends first is asked in vain for a minute.

    uvicorn sets a handler of its own, so that SIGINT has to be blocked, which a process inherits, instead of ignored.
    """
    from prefect.server.api.server import SubprocessASGIServer

    class _Server(SubprocessASGIServer):
        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                return super()._run_uvicorn_command()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    _Server()  # Prefect keeps one server for each port, and its client asks for the one of the default
