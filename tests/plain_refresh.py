"""A refresh as a plain script makes it, and what it leaves in its workspace."""

from pathlib import Path

import polars as pl

from wtl_core import pipeline
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import commits, selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

PIXELS = Recipe.model_validate({"encoder": {"name": "pixels"}})


def refresh(root: Path, *sources: Path, recipe: Recipe | None = PIXELS, **more: object) -> Commit:
    """A refresh by one process, or by `workers`, with 32 images in an embedding part, or `part_images`."""
    workers, part_images = more.pop("workers", 1), more.pop("part_images", 32)
    machine = Machine(workers=workers, embedding_part_images=part_images)  # type: ignore[arg-type]
    return pipeline.refresh_workspace(Store(str(root)), [str(s) for s in sources], recipe, machine, **more)  # type: ignore[arg-type]


def ranking(root: Path) -> pl.DataFrame:
    """The ranking of the latest refresh."""
    store = Store(str(root))
    last = commits.latest(store)
    assert last is not None
    return selections.read_ranking(store, last.selection)


def files(root: Path) -> dict[str, bytes]:
    """The content of every file below a folder."""
    return {str(f.relative_to(root)): f.read_bytes() for f in sorted(root.rglob("*")) if f.is_file()}


SSL = {"encoder": {"name": "ssl", "epochs": 60, "side_px": 32, "width": 8, "batch_images": 16}}
