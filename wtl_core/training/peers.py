"""Experimental: several devices train one encoder by `torch.distributed`, one process each. Not yet run on GPUs.

Each computes its share of a step's pieces. All begin with the same weights and add up the same gradients, so all hold
the same weights after each step. NCCL between GPUs, gloo between processors; with gloo two processes are tested on one
processor (`tests/core/test_encoders_training.py`).
"""

import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing, nn

from wtl_core.errors import TransientError


@dataclass(frozen=True)
class Peers:
    """This process among those that train together: `rank` of `size`, from 0."""

    rank: int = 0
    size: int = 1

    def add_up(self, modules: list[nn.Module], loss: torch.Tensor) -> torch.Tensor:
        """Sum gradients and loss over all processes, and average running statistics. Every process must call it.

        Returns the sum of the losses; gradients and statistics of `modules` are changed in place.
        """
        if self.size == 1:
            return loss
        gradients = [value.grad for module in modules for value in module.parameters() if value.grad is not None]
        _reduce([*gradients, loss])
        statistics = [value for module in modules for value in module.buffers() if value.is_floating_point()]
        _reduce(statistics)
        for value in statistics:
            value.div_(self.size)
        return loss


ALONE = Peers()
_PATIENCE = timedelta(minutes=5)
"""How long to wait for the other processes to appear, and in each exchange: one that hangs must end the training."""


_LOSS_SECONDS = 10.0
"""From a broken exchange to the end of the process that broke it; a busy machine took more than one."""


def _reduce(tensors: list[torch.Tensor]) -> None:
    """Sum each tensor over all processes, by one exchange."""
    together = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
    distributed.all_reduce(together)
    parts = torch.split(together, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view(tensor.shape))


@contextmanager
def joined(size: int, device: torch.device, follow: Callable[..., None], *arguments: Any) -> Iterator[Peers]:
    """This process as the first of `size`; the others run `follow(peers, device, *arguments)` meanwhile.

    Raises:
        TransientError: another process was lost.
    """
    if size == 1:
        yield ALONE
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="wtl-peers-") as folder:
        meeting = f"file://{Path(folder) / 'meeting'}"
        others = [
            context.Process(target=_join, args=(meeting, rank, size, device.type, follow, arguments), daemon=True)
            for rank in range(1, size)
        ]
        for other in others:
            other.start()
        try:
            _meet(meeting, device.type, 0, size)
            yield Peers(0, size)
            for other in others:
                other.join(60)
        except RuntimeError as error:
            connection.wait([other.sentinel for other in others], _LOSS_SECONDS)
            for other in others:
                other.join(1)  # a sentinel closes moments before the exit code can be read
            if all(other.exitcode in (None, 0) for other in others):
                raise
            raise TransientError(f"training: one of {size} processes was lost ({error}); run again") from error
        finally:
            for other in others:
                other.kill()
                other.join()
            if distributed.is_initialized():
                distributed.destroy_process_group()


def _join(
    meeting: str, rank: int, size: int, kind: str, follow: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    # A terminal sends Ctrl-C to all processes; the first one ends the others once its steps are kept.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    device = torch.device(kind, rank) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(1)
    _meet(meeting, kind, rank, size)
    follow(Peers(rank, size), device, *arguments)
    distributed.destroy_process_group()


def _meet(meeting: str, kind: str, rank: int, size: int) -> None:
    backend = "nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(backend, init_method=meeting, rank=rank, world_size=size, timeout=_PATIENCE)
