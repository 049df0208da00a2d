"""Prefect's settings for a run in this process, on the server that PREFECT_API_URL names or on an embedded one."""

import logging
import os
import subprocess
from types import SimpleNamespace
from typing import Any

from flows.cli import terminal

_SETTINGS = {
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "wtl_core",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
}

_UVICORN = """
import os, runpy, signal, sys, threading, time
parent = int(sys.argv.pop(1))
def leave_with_parent():
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=leave_with_parent, daemon=True).start()
runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)
"""
"""uvicorn, which is told to end once the process that started it is gone."""


def prepare(*, is_debug: bool) -> None:
    """Call before prefect is imported: settings that the environment does not give, and refusals without tracebacks."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if not is_debug:
        for name in ("prefect.flow_runs", "prefect.task_runs"):
            logging.getLogger(name).addFilter(terminal.ExpectedRefusals())
    from prefect.settings import get_current_settings

    if not get_current_settings().api.url:
        _keep_from_signals()


def _keep_from_signals() -> None:
    """Start the embedded server in a session of its own; it ends with this process, also one that is killed.

    A terminal's Ctrl-C, or `timeout`, reaches all that a command started, and a server that ends first is asked in vain
    for a minute.
    """
    from prefect.server.api import server

    # Prefect has no setting for it
    vars(server)["subprocess"] = SimpleNamespace(**{**vars(subprocess), "Popen": _start})


def _start(args: list[str], **more: Any) -> subprocess.Popen[bytes]:
    """What Prefect starts its server by: `python -m uvicorn ...`."""
    if args[1:3] == ["-m", "uvicorn"]:
        args = [args[0], "-c", _UVICORN, str(os.getpid()), *args[3:]]
    return subprocess.Popen(args, start_new_session=True, **more)  # noqa: S603, Prefect's own command
