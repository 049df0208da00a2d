"""Drills that are the same on every database of the server: kills in each stage, a server that restarts in mid-run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lancedb
from service_stack import Stack, last_commit, until

STAGES = {
    "ingest": ("wtl_core.pool.ingest:run", "after"),
    "encoder": ("wtl_core.pipeline:ensure_encoder", "after"),
    "embedding": ("wtl_core.pipeline:embed_chunk", "after"),
    "selection": ("wtl_core.pipeline:select", "after"),
    "commit": ("wtl_core.workspace.commits:write", "before"),
}
"""Where the drill stands still: a part's or the stage's work is on disk, and nobody has been told.

`run` makes one part and `embed_chunk` embeds one chunk, so with `IN_PARTS` these stages are killed half-way.
"""

PIXELS: dict[str, Any] = {"encoder": {"name": "pixels"}}
IN_PARTS: dict[str, Any] = {
    "encoder": {"name": "ssl", "epochs": 1, "side_px": 16, "width": 8},
    "ingest": {"part_images": 60},
}
"""An encoder that is trained, and several parts in each stage: with `PART_ENVIRONMENT`, and 150 images."""
PART_ENVIRONMENT = {"WTL_EMBEDDING_PART_IMAGES": "64"}


def given(source: Path, workspace: Path, recipe: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A refresh's parameters; the sources of a drill are at rest, so it waits for no quiet."""
    return {"workspace": str(workspace), "sources": [str(source)], "recipe": recipe, "quiet_seconds": 0, **more}


def stand_still(
    stack: Stack, source: Path, workspace: Path, function: str, recipe: dict[str, Any], *, when: str = "after"
) -> tuple[str, Path]:
    """A run that stands still at a function of the core, and the marker whose end lets it go on."""
    env = {**stack.stall(function, workspace.parent, when=when), **PART_ENVIRONMENT}
    marker = Path(env.pop("marker"))
    run_id = stack.start_run("refresh", job_env=env, **given(source, workspace, recipe))
    until(marker.exists, seconds=150, what=f"the run stands still at {function}", every=0.1)
    return run_id, marker


def kill_in_each_stage(stack: Stack, source: Path, workspace: Path) -> None:
    """A run that is killed with its worker in each stage, by `IN_PARTS`; then one that nobody disturbs.

    Of several parts one is done when the kill comes, in ingest and in embedding; the encoder is trained.
    """
    parts, embedded = {}, {}
    for stage, (function, when) in STAGES.items():
        run_id, _ = stand_still(stack, source, workspace, function, IN_PARTS, when=when)
        stack.kill_worker()
        stack.call_crashed(run_id)
        stack.worker.start()
        assert last_commit(workspace) is None, stage
        parts[stage] = len(list((workspace / "pool").glob("*.parquet")))
        embedded[stage] = sum(_rows_of(table) for table in (workspace / "vectors").glob("*.lance"))
    stack.finish("refresh", **given(source, workspace, IN_PARTS))
    assert 0 < parts["ingest"] < parts["commit"]
    assert 0 < embedded["embedding"] < embedded["commit"] == 150


def restart_the_server(stack: Stack, source: Path, workspace: Path) -> str:
    """The server is killed while a run is in ingest, and is back some seconds later; the run, which ended well."""
    run_id, marker = stand_still(stack, source, workspace, "wtl_core.pool.ingest:run", PIXELS)
    assert stack.server.process is not None
    stack.server.process.kill()
    stack.server.process.wait()
    stack.server.stop()
    time.sleep(3)
    stack.start_server()
    marker.unlink()
    run = stack.wait(run_id, seconds=180)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    return run_id


@contextmanager
def at_rest(stack: Stack) -> Iterator[Stack]:
    """The stack without its watch and without runs started again by themselves."""
    with stack.paused("watch"):
        stack.enable_automations("wtl-crashed", enabled=False)
        yield stack
        stack.enable_automations("wtl-crashed", enabled=True)


def _rows_of(table: Path) -> int:
    return int(lancedb.connect(table.parent).open_table(table.stem).count_rows())
