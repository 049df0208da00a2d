"""The tag of tasks that take the device, by which a server limits how many run at once."""

from prefect.settings import get_current_settings

DEVICE_TAG = "wtl-device"


def device_tags() -> list[str]:
    """The tag, where a server is named; read when tasks are defined.

    An embedded server has no limits, and to be asked for them costs a task some two seconds: SQLite is locked by the
    events of the task before, and Prefect's client tries again after that long.
    """
    return [DEVICE_TAG] if get_current_settings().api.url else []
