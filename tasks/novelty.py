"""Whether new images are different enough to start a refresh, as a task. Loads the network only when it is asked."""

from prefect import task

from tasks.prefect_side.device import device_tags
from tasks.prefect_side.retries import STAGE
from tasks.settings import machine
from wtl_core.refresh import arrivals
from wtl_core.refresh.arrivals import Arrivals
from wtl_core.workspace.storage import Store


@task(name="novelty", tags=device_tags(), **STAGE)
def is_novel_enough(store: Store, seen: Arrivals, at_least: float) -> bool:
    """Whether at least that share of the arrivals is far from the labelled set."""
    from wtl_core.refresh import novelty  # imports torch, which a watch by count does without

    return novelty.share(store, arrivals.arrived(store, seen.sources), machine()) >= at_least
