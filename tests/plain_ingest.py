"""Ingest as a plain script calls it, for several test modules."""

import io
import tarfile
from pathlib import Path

from wtl_core.machine import Machine
from wtl_core.pool import ingest, live_pool
from wtl_core.pool.part_plan import PartPlan, plan_parts, snapshot_rows
from wtl_core.recipe.ingest import IngestParams
from wtl_core.shards import discover
from wtl_core.workspace.storage import Store, open_store

PARAMS = IngestParams()


def plans_of(source: Path, params: IngestParams = PARAMS) -> list[PartPlan]:
    return plan_parts(discover.list_source(str(source)), params)


def refresh(
    source: Path, workspace: Path, params: IngestParams = PARAMS, workers: int = 1
) -> tuple[Store, live_pool.Pool]:
    store = open_store(str(workspace))
    plans = plans_of(source, params)
    ingest.run_many(plans, store, params, Machine(workers=workers))
    return store, live_pool.load(store, snapshot_rows(plans), filters=params.filters)


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def parts_of(workspace: Path) -> dict[str, bytes]:
    return {str(f.relative_to(workspace)): f.read_bytes() for f in sorted(workspace.rglob("*.parquet"))}
