"""Which engine a machine's settings name."""

from wtl_core.engines.engine import Engine
from wtl_core.engines.local import LocalEngine
from wtl_core.machine import Machine


def open_engine(machine: Machine) -> Engine:
    """The engine that the machine is set to use; opening it starts nothing yet."""
    return LocalEngine(machine.workers, gpus=machine.devices if machine.device.startswith("cuda") else 0)
