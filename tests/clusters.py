"""Ray clusters of several nodes, all of them on this machine, for tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

# Ray reads them when it is imported. With a token of ours it writes none to the home folder.
os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64, RAY_USAGE_STATS_ENABLED="0")

STORE_BYTES = 80 * 2**20


class Nodes:
    """A cluster with two nodes of one core each; more can join and be lost."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "num_gpus": 0,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                # a lost node is known to be after two seconds and not after fifteen
                "_system_config": {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500},
            },
        )
        self.address = str(self.cluster.address)
        self.join()

    def join(self, cpus: int = 1) -> Any:
        """Add a node."""
        return self.cluster.add_node(num_cpus=cpus, num_gpus=0, object_store_memory=STORE_BYTES)

    def lose(self, node: Any) -> None:
        """Kill the processes of a node."""
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def running_nodes() -> Iterator[Nodes]:
    """A cluster while the block lasts."""
    nodes = Nodes()
    try:
        yield nodes
    finally:
        disconnect()
        nodes.cluster.shutdown()


def disconnect() -> None:
    """Leave the cluster that this process is connected to: it stays with it otherwise."""
    import ray

    ray.shutdown()


def actors_of(process: psutil.Process) -> list[psutil.Process]:
    """The actors at work on clusters that a process started."""
    found = []
    for child in process.children(recursive=True):
        try:
            if child.cmdline()[:1] and child.cmdline()[0].startswith("ray::_Actor"):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found
