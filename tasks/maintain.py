"""House-keeping as a task; an artifact lists what was deleted."""

from dataclasses import asdict

from prefect import task
from prefect.artifacts import create_table_artifact

from tasks.prefect_side import run_names
from tasks.prefect_side.retries import STAGE
from wtl_core.upkeep import maintenance
from wtl_core.upkeep.maintenance import Maintained
from wtl_core.workspace.lease import Lease
from wtl_core.workspace.storage import Store


@task(name="maintain", **STAGE)
def maintain_workspace(store: Store, held: Lease, *, keep: int, keep_days: float) -> Maintained:
    """Delete what the last refreshes do not need; compact the tables."""
    held.check()
    done = maintenance.run(store, keep=keep, keep_days=keep_days)
    rows = [{"what": name.replace("_", " "), "count": str(count)} for name, count in asdict(done).items()]
    create_table_artifact(key="maintained", table=rows, description="What house-keeping did")
    run_names.name_maintenance(done)
    return done
