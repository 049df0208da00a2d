"""What a failed run shows first: a name and an artifact that say what failed, where, and what to do."""

import html
import traceback
from typing import Any

from prefect import Task
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.events import emit_event

from tasks.prefect_side.event_resources import workspace_resource
from tasks.prefect_side.run_names import rename_run
from wtl_core.errors import (
    BusyError,
    ConfigError,
    CorruptArtifactError,
    CrashLoopError,
    InputError,
    LostWorkersError,
    QuarantineBudgetError,
    TimeLimitError,
    TransientError,
    WtlError,
)
from wtl_core.refresh.sources import source_uri

FAILED, QUARANTINE = "wtl.refresh.failed", "wtl.quarantine.exceeded"
WATCH_FAILED, LABELLING_FAILED = "wtl.watch.failed", "wtl.labelling.failed"
_EVENTS = {"watch": WATCH_FAILED, "hand-out": LABELLING_FAILED, "take-back": LABELLING_FAILED}
"""Of flows that run all day: one failure of theirs is not worth a message."""

_ADVICE: tuple[tuple[type[BaseException], str], ...] = (
    (
        QuarantineBudgetError,
        "Look at the reasons in the workspace's `quarantine/`, mend the shards, or raise the budget.",
    ),
    (
        CrashLoopError,
        "Give the run more memory or fewer `WTL_WORKERS`, then start it by hand; events wait until it completes.",
    ),
    (TimeLimitError, "Mend what hangs, or raise `time_limit_hours` in the site file and `wtl deploy`; then run again."),
    (ConfigError, "Change the deployment's parameters or the recipe; a retry cannot help."),
    (InputError, "Change the data as the message says; a retry cannot help."),
    (CorruptArtifactError, "Delete the file that the message names, and run again."),
    (BusyError, "Wait until the other run ends, and run again; nothing was changed."),
    (LostWorkersError, "Give the workers more memory, or let fewer share a machine; then run again."),
    (TransientError, "The store or the network failed several times in a row; run again when it is back."),
)


def show_failure(flow: Any, flow_run: FlowRun, state: State[Any]) -> None:
    """A hook for `on_failure`: rename the run, publish the artifact `failure`, and send an event for automations."""
    error = _error_of(state)
    stage = stage_of(error)
    what = str(error) if isinstance(error, WtlError) else f"{type(error).__name__}: {error}"
    rename_run(str(flow_run.id), f"failed in {stage}: {what}")
    target = source_uri(_target_of(flow_run))
    resource = {"prefect.resource.id": workspace_resource(target), "prefect.resource.name": target}
    payload = {"stage": stage, "kind": type(error).__name__, "message": what}
    emit_event(_EVENTS.get(flow.name, FAILED), resource=resource, payload=payload)
    if isinstance(error, QuarantineBudgetError):
        emit_event(QUARANTINE, resource=resource, payload=payload)
    create_markdown_artifact(key="failure", description=f"Failed in {stage}", markdown=_page(stage, what, error))


def _target_of(flow_run: FlowRun) -> str:
    """The run's workspace; a benchmark has an output folder instead."""
    return str(flow_run.parameters.get("workspace") or flow_run.parameters.get("output") or "")


def _page(stage: str, what: str, error: BaseException) -> str:
    advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "Read the traceback in the run's log.")
    return (
        f"## Failed in {html.escape(stage)}\n\n**What:** {html.escape(what)}\n\n**What to do:** {advice}\n\n"
        "What was finished is kept; the next run goes on from there, and the last result stands.\n"
    )


def _error_of(state: State[Any]) -> BaseException:
    try:
        state.result()
    except BaseException as error:  # noqa: BLE001, shown, not handled
        return error
    return RuntimeError(state.message or "unknown")


def stage_of(error: BaseException) -> str:
    """The innermost task that the error came through, or else the innermost function that a flow calls.

    Read from the traceback, since the server learns of failed tasks too late.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [(frame, str(frame.f_globals.get("__name__")).split(".")) for frame in frames]
    ours = [(frame, module) for frame, module in modules if module[0] == "tasks"]
    tasks = [found.name for frame, _ in ours if isinstance(found := frame.f_globals.get(frame.f_code.co_name), Task)]
    names = [frame.f_code.co_name for frame, module in ours if len(module) == 2]  # not of `tasks.prefect_side`
    called = [name.replace("_", "-") for name in names if not name.startswith("_")]
    return (tasks or called or ["the flow"])[-1]
