"""The tag of tasks that use the GPU; a server limits how many of them run at once."""

import os

from prefect.settings import get_current_settings

DEVICE_TAG = "wtl-device"
OWN_SERVER = "WTL_OWN_SERVER"
"""In the environment of a run that brought its own server."""


def device_tags() -> list[str]:
    """The tag, where a server is shared; read when tasks are defined.

    A run's own server has no limits, and to be asked for them costs a task some two seconds: SQLite is locked by the
    events of the task before, and Prefect's client tries again after that long.
    """
    return [DEVICE_TAG] if get_current_settings().api.url and OWN_SERVER not in os.environ else []
