"""Crashes that come again and again: after some in a row no event starts a refresh, a person or the night does.

A crashed refresh is started again by an automation, which helps after a lost machine, and never after a lack of memory.
"""

from uuid import UUID

from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.runtime import deployment, flow_run

from tasks.prefect_side.retries import STAGE
from wtl_core.errors import CrashLoopError

CRASHES = 3


@task(name="check-crashes", **STAGE)
def check_crashes() -> None:
    """Refuse a run that an event started when the last `CRASHES` runs of its deployment crashed.

    A run that completed ends the row; failed and cancelled ones do not count. Runs by schedule or by hand always try.

    Raises:
        CrashLoopError: it is one crash too many.
    """
    mine, of_deployment = flow_run.get_id(), deployment.get_id()
    if mine is None or of_deployment is None:
        return
    with get_client(sync_client=True) as client:
        if is_started_by_event(client.read_flow_run(UUID(str(mine)))):
            _refuse_another(_last_ends(client, UUID(str(of_deployment))))


def is_started_by_event(run: FlowRun) -> bool:
    """Whether an automation made the run."""
    return run.created_by is not None and run.created_by.type == "AUTOMATION"


def _last_ends(client: SyncPrefectClient, of_deployment: UUID) -> list[FlowRun]:
    kinds = [StateType.CRASHED, StateType.COMPLETED]
    return client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[of_deployment])),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds))),
        sort=FlowRunSort.END_TIME_DESC,
        limit=CRASHES,
    )


def _refuse_another(ends: list[FlowRun]) -> None:
    crashed = [run for run in ends if run.state_type == StateType.CRASHED]
    if len(crashed) == CRASHES:
        raise CrashLoopError(
            f"the last {CRASHES} runs of this deployment crashed, most often for want of memory, and no event starts "
            f"another; read the worker's log and the system's about {crashed[0].name!r}, give the run more memory or "
            "fewer WTL_WORKERS, then start one by hand: once it completes, events start runs again"
        )
