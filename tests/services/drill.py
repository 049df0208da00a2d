"""A kill in the middle of a refresh, as drills need it."""

from pathlib import Path
from typing import Any

from service_stack import Stack, until

STAGES = {
    "ingest": ("wtl_core.ingest:run", "after"),
    "encoder": ("wtl_core.pipeline:ensure_encoder", "after"),
    "embedding": ("wtl_core.pipeline:embed_part", "after"),
    "selection": ("wtl_core.pipeline:select", "after"),
    "commit": ("wtl_core.commits:write", "before"),
}
"""Where the drill stands still: a part's or the stage's work is on disk, and nobody has been told.

`run` makes one part and `embed_part` embeds one, so with `IN_PARTS` these stages are killed half-way.
"""

PIXELS: dict[str, Any] = {"encoder": {"name": "pixels"}}
IN_PARTS: dict[str, Any] = {
    "encoder": {"name": "ssl", "epochs": 1, "side_px": 16, "width": 8},
    "ingest": {"part_images": 60},
}
"""An encoder that is trained, and several parts in each stage: with `PART_ENVIRONMENT`, and 150 images."""
PART_ENVIRONMENT = {"WTL_EMBEDDING_PART_IMAGES": "64"}


def drill(stack: Stack, source: Path, workspace: Path, stage: str, recipe: dict[str, Any]) -> None:
    """A run that is killed, with its worker, while it stands still in `stage`."""
    function, when = STAGES[stage]
    env = {**stack.stall(function, workspace.parent, when=when), **PART_ENVIRONMENT}
    marker = Path(env.pop("marker"))
    run_id = stack.start_run("refresh", job_env=env, workspace=str(workspace), sources=[str(source)], recipe=recipe)
    until(marker.exists, seconds=150, what=f"the run stands still in {stage}", every=0.1)
    stack.kill_worker()
    stack.call_crashed(run_id)
    stack.worker.start()
