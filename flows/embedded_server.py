"""Prefect's settings for a run in this process, on the server that PREFECT_API_URL names or on an embedded one."""

import logging
import os
import subprocess
from functools import partial
from types import SimpleNamespace

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
        _keep_from_signals()


def _keep_from_signals() -> None:
    """Start the embedded server in a session of its own; it ends with this process, by Prefect's exit handler.

    A terminal's Ctrl-C, or `timeout`, reaches all that a command started, and a server that ends first is asked in vain
    for a minute.
    """
    from prefect.server.api import server

    in_session = partial(subprocess.Popen, start_new_session=True)
    # Prefect has no setting for it
    vars(server)["subprocess"] = SimpleNamespace(**{**vars(subprocess), "Popen": in_session})
