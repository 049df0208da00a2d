"""The local engine: worker processes of this machine, or this process alone where one worker is enough."""

import logging
import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any

from wtl_core.engines.engine import Item, Losses, Needs, Result, heaviest_first
from wtl_core.errors import ConfigError
from wtl_core.machine import free_memory

_log = logging.getLogger(__name__)

_GPUS = "CUDA_VISIBLE_DEVICES"

_make_worker: Callable[[], Callable[[Any], Any]] | None = None
_worker: Callable[[Any], Any] | None = None
"""In a worker process: what makes its worker, and the worker once it has been made."""


class LocalEngine:
    """Processes of this machine, `workers` at most, each with one item at a time; they end with this process.

    Of several `gpus` each worker sees the one that it shares with the fewest others.
    """

    def __init__(self, workers: int, *, gpus: int = 0) -> None:
        self.workers, self.gpus = workers, gpus

    def run(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        *,
        needs: Needs = Needs(),  # noqa: B008, frozen
        weights: Sequence[float] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Do all items, as `Engine.run` says; in this process if there is work or room for one worker alone.

        Raises:
            ConfigError: processes are started from a script without `if __name__ == "__main__":`.
        """
        waiting = deque(heaviest_first(len(items), weights))
        workers = self._room(needs, len(items))
        if workers < 2:
            worker = make_worker() if waiting else None
            for number in waiting:
                assert worker is not None
                yield number, worker(items[number])
            return
        _check_main_guard()
        losses = Losses("run again, with fewer workers")
        processes = [_Process(make_worker, needs.cpus, self._gpu(needs, place, workers)) for place in range(workers)]
        free, at_work = list(processes), dict[Future[Any], tuple[_Process, int]]()
        try:
            while waiting or at_work:
                while waiting and free:
                    process, number = free.pop(), waiting.popleft()
                    at_work[process.submit(items[number])] = (process, number)
                for future in wait(at_work, return_when=FIRST_COMPLETED).done:
                    process, number = at_work.pop(future)
                    free.append(process)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        waiting.appendleft(number)
                        losses.add(number, "its process was killed")
                        _log.warning("a worker process was killed; what it was at is begun again")
                    else:
                        yield number, result
        finally:
            for process in processes:
                process.end(joins=not at_work)

    def _room(self, needs: Needs, items: int) -> int:
        """How many workers fit and have work."""
        room = min(items, self.workers // needs.cpus)
        if needs.gpus:
            room = min(room, int(self.gpus / needs.gpus))
        if room > 1 and (fit := free_memory() // needs.memory_bytes) < room:
            _log.info("free memory is enough for %d workers of %d", max(1, fit), room)
            room = fit
        return room

    def _gpu(self, needs: Needs, place: int, workers: int) -> str | None:
        """The GPU of one of the workers, as `CUDA_VISIBLE_DEVICES` names it; None where there is no choice."""
        if not needs.gpus or self.gpus < 2:
            return None
        seen = os.environ.get(_GPUS) or ",".join(map(str, range(self.gpus)))
        return seen.split(",")[place * self.gpus // workers]


class _Process:
    """A worker process, which starts with its first item, and again with the next one after it was killed."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], threads: int, gpu: str | None) -> None:
        self.arguments = (make_worker, threads, gpu)
        self.executor: ProcessPoolExecutor | None = None

    def submit(self, item: Any) -> Future[Any]:
        """Begin an item; its future raises BrokenProcessPool if the process is killed over it."""
        if self.executor is not None:
            try:
                return self.executor.submit(_do, item)
            except BrokenProcessPool:  # with the item before, or while it had none
                pass
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", __name__, self.arguments[0].__module__])  # once, not in each worker
        self.executor = ProcessPoolExecutor(
            1, mp_context=context, initializer=_start_worker, initargs=self.arguments
        )  # one each: a pool of several ends as a whole when one is killed
        return self.executor.submit(_do, item)

    def end(self, *, joins: bool) -> None:
        """End the process after what it is at, and wait for that if it `joins`."""
        if self.executor is not None:
            self.executor.shutdown(wait=joins, cancel_futures=True)


def _do(item: Any) -> Any:
    """Do an item in a worker process."""
    global _worker  # noqa: PLW0603, what a process holds from item to item
    if _worker is None:
        assert _make_worker is not None
        _worker = _make_worker()  # not as the process starts: what it raises would be lost there
    return _worker(item)


def _start_worker(make_worker: Callable[[], Callable[[Any], Any]], threads: int, gpu: str | None) -> None:
    global _make_worker  # noqa: PLW0603, what a process holds from item to item
    _make_worker = make_worker
    if gpu is not None:
        os.environ[_GPUS] = gpu

    import torch  # here: an engine without processes needs none

    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)  # a worker outliving a killed run would write into a workspace that another run may own by now

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _check_main_guard() -> None:
    """Refuse a main script whose import would run it again: each worker process imports it before it does its work."""
    path = getattr(sys.modules["__main__"], "__file__", None)
    if path is None or not path.endswith(".py"):  # a notebook, or a command with a guard of its own
        return
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return
    if "__name__" not in text:
        raise ConfigError(
            f'{path}: expected `if __name__ == "__main__":` before what the script does, found no such line. A refresh '
            "starts worker processes, which import the script; put its work behind that line, or use one worker"
        )
