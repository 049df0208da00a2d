"""When a failed task is retried: for transient errors only, three times, with jitter."""

from typing import Any, TypedDict

import httpx
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from wtl_core.errors import TransientError


class TaskLimits(TypedDict):
    """Arguments that the tasks of all stages share. No result cache: the workspace alone says what is finished."""

    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Any
    cache_policy: Any


def is_transient(task: object, run: object, state: State[Any]) -> bool:
    """Whether a failed task may be retried."""
    try:
        state.result()
    except (TransientError, httpx.TransportError):
        return True  # a transport error is Prefect's server, which may be restarting
    except BaseException:  # noqa: BLE001, the failure itself is handled by the engine
        return False
    return False


STAGE: TaskLimits = {
    "retries": 3,
    "retry_delay_seconds": [2, 10, 30],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,
}
