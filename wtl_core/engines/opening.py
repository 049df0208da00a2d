"""Which engine the settings of a machine name, and whether it is installed."""

import importlib.util

from wtl_core.engines.engine import Engine, Needs
from wtl_core.engines.local import LocalEngine
from wtl_core.errors import ConfigError
from wtl_core.machine import Machine

_MISSING = "WTL_ENGINE=ray: expected the package ray, found none; pip install 'wtl[ray]', or unset WTL_ENGINE"


def check_installed(engine: str) -> None:
    """Raise ConfigError where an engine's package is not installed. Imports nothing."""
    if engine == "ray" and importlib.util.find_spec("ray") is None:
        raise ConfigError(_MISSING)


def worker_needs(machine: Machine) -> Needs:
    """What a worker takes that runs a network or compares vectors, on GPUs where the settings say so."""
    if machine.engine == "ray":
        gpus = machine.ray_worker_gpus
        return Needs(cpus=machine.ray_worker_cpus, gpus=gpus, device="cuda" if gpus else "cpu")
    return Needs(gpus=1 if machine.device.startswith("cuda") else 0, device=machine.device)


def open_engine(machine: Machine) -> Engine:
    """The engine that the machine is set to use; opening it starts nothing yet. Raises what `check_installed` does."""
    check_installed(machine.engine)
    gpus = machine.devices if machine.device.startswith("cuda") else 0
    if machine.engine == "ray":
        from wtl_core.engines.ray import RayEngine

        return RayEngine(machine.ray_address, cpus=machine.workers, gpus=gpus)
    return LocalEngine(machine.workers, gpus=gpus)
