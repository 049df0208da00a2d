"""What the machine offers, how progress is reported, and wall clock by stage. Imports no torch until it is asked."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from wtl_core.errors import ConfigError

CGROUP = Path("/sys/fs/cgroup")
"""Where a container finds its own limits."""
_setting_threads = threading.Lock()


class Stopwatch:
    """Seconds since the last lap, by the name of the stage that ended with it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str, *, before_seconds: float = 0.0) -> None:
        """End the stage that ran since the last lap; `before_seconds` is what it took before the clock started."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._last + before_seconds
        self._last = now


def duration(seconds: float) -> str:
    """In words, as `40 s`, `3 min` or `5.2 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"


Progress = Callable[[int, int], None]
"""Called with (done, total), in the unit of the stage: bytes, images or steps."""

Stage = Callable[[str, str], AbstractContextManager[Progress]]
"""Called with a stage's name and unit; what it gives shows that stage's progress while a block lasts."""


@contextmanager
def silent(name: str, unit: str) -> Iterator[Progress]:  # noqa: ARG001, as `Stage` has it
    """A stage that shows nothing."""
    yield lambda _done, _total: None


@dataclass(frozen=True)
class Machine:
    """What the machine offers.

    None of it changes the ranking by a given encoder. An encoder trained here depends on `device` and `devices`.

    Attributes:
        workers: Processes that decode at ingest, and threads that decode for the network.
        device: Name of a torch device, such as `cpu` or `cuda`; never `auto`.
        devices: How many devices of that kind work together.
        embedding_part_images: Images in one embedding task, for each device.
        engine: What runs the many pieces of a stage: `local` for this machine's processes, or `ray`.
        ray_address: The Ray cluster to use; None for one that is started on this machine for the run.
        ray_worker_cpus: Cores that a worker of the Ray engine takes to embed or to rank.
        ray_worker_gpus: GPUs that it takes, or a share of one; 0 for none.
    """

    workers: int = 1
    device: str = "cpu"
    devices: int = 1
    embedding_part_images: int = 32_768
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    ray_worker_cpus: int = 1
    ray_worker_gpus: float = 0


def free_memory() -> int:
    """Bytes that processes can still take: of the machine, or of this container where its limit leaves less."""
    free = int(psutil.virtual_memory().available)
    try:
        limit = int((CGROUP / "memory.max").read_text())
        [held] = [line.split()[1] for line in (CGROUP / "memory.stat").read_text().splitlines() if line[:5] == "anon "]
    except (OSError, ValueError):  # not in a container, or in one without a limit, which says `max`
        return free
    return min(free, limit - int(held))  # without what files hold there: that is given up when memory is asked for


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: sums over rows, split among threads, would depend on their number.

    The setting is the whole process's: one at a time changes it.
    """
    import torch

    with _setting_threads:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def this_machine(*, workers: int | None = None, device: str = "auto", embedding_part_images: int = 32_768) -> Machine:
    """This machine, with a worker for each core if None, and all GPUs for `auto` if there are any.

    Raises ConfigError where torch does not have the device here.
    """
    import torch

    try:
        found = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        torch.empty(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device}: expected auto, cpu, or a device that torch has here: {error}") from error
    return Machine(
        workers=workers or os.cpu_count() or 1,
        device=str(found),
        devices=torch.cuda.device_count() if str(found) == "cuda" else 1,  # all where none is named by its number
        embedding_part_images=embedding_part_images,
    )
