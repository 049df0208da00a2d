"""Circuit breaker: after three crashes in a row only scheduled and manual runs start, until one completes.

An automation starts a crashed refresh again, which helps if a machine was lost, but not if it runs out of memory.
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
"""The second attempt may meet the same short-lived cause, such as a machine that restarts; a third one hardly does."""


@task(name="check-crashes", **STAGE)
def check_crashes() -> None:
    """Refuse a run that an event started if the last `CRASHES` runs of its deployment crashed.

    Only crashed and completed runs count; failed and cancelled ones are passed over. Scheduled and manual runs are
    never refused.

    Raises:
        CrashLoopError: the last `CRASHES` of those runs crashed.
    """
    mine, of_deployment = flow_run.get_id(), deployment.get_id()
    if mine is None or of_deployment is None:
        return
    with get_client(sync_client=True) as client:
        if is_started_by_event(client.read_flow_run(UUID(str(mine)))):
            _refuse_another(_last_ends(client, UUID(str(of_deployment))))


def is_started_by_event(run: FlowRun) -> bool:
    """Whether an automation created the run."""
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
            f"the last {CRASHES} runs of this deployment crashed, most often for lack of memory, so events start no "
            f"further run; read the worker's log and the system's about {crashed[0].name!r}, give the run more memory "
            "or fewer WTL_WORKERS, then start one by hand: once it completes, events start runs again"
        )
