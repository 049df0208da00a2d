"""A kill in the middle of a refresh, as drills need it."""

from pathlib import Path

from service_stack import Stack, until

STAGES = {
    "ingest": ("wtl_core.ingest:run_many", "after"),
    "encoder": ("wtl_core.pipeline:ensure_encoder", "after"),
    "embedding": ("wtl_core.pipeline:embed_part", "after"),
    "selection": ("wtl_core.pipeline:select", "after"),
    "commit": ("wtl_core.commits:write", "before"),
}
"""Where the drill stands still: the stage's work is on disk, and nobody has been told."""

PIXELS = {"encoder": {"name": "pixels"}}


def drill(stack: Stack, source: Path, workspace: Path, stage: str) -> None:
    """A run that is killed, with its worker, while it stands still in `stage`."""
    function, when = STAGES[stage]
    env = stack.stall(function, workspace.parent, when=when)
    marker = Path(env.pop("marker"))
    run_id = stack.start_run("refresh", job_env=env, workspace=str(workspace), sources=[str(source)], recipe=PIXELS)
    until(marker.exists, seconds=150, what=f"the run stands still in {stage}", every=0.1)
    stack.kill_worker()
    stack.call_crashed(run_id)
    stack.worker.start()
