"""The local engine: worker processes of this machine, or this process alone where one worker is enough."""

import logging
import multiprocessing
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any

from wtl_core.engines.engine import MOST_LOSSES, Item, Needs, Result, heaviest_first
from wtl_core.errors import ConfigError, TransientError

_log = logging.getLogger(__name__)

_worker: Callable[[Any], Any] | None = None
"""In a worker process: what does its items, once it has been made."""


class LocalEngine:
    """Processes of this machine, `workers` at most, each with one item at a time; they end with this process."""

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
        left = dict.fromkeys(heaviest_first(len(items), weights))
        workers = min(len(items), self._room(needs))
        if workers < 2:
            worker = make_worker() if left else None
            for number in left:
                assert worker is not None
                yield number, worker(items[number])
            return
        _check_main_guard()
        losses: Counter[int] = Counter()
        while left:
            pool = _Pool(make_worker, workers, needs.cpus)
            try:
                for number, result in pool.run(tuple(left), items):
                    del left[number]
                    yield number, result
            except BrokenProcessPool as error:
                losses.update(pool.under_way)
                if losses.most_common(1)[0][1] >= MOST_LOSSES:
                    raise TransientError(
                        f"expected a worker process to end its work, it was killed {MOST_LOSSES} times, most likely "
                        "because memory ran out; run again, with fewer workers"
                    ) from error
                _log.warning("a worker process was killed; what it was at is begun again")

    def _room(self, needs: Needs) -> int:
        """How many workers fit."""
        room = self.workers // needs.cpus
        return min(room, int(self.gpus / needs.gpus)) if needs.gpus else room


class _Pool:
    """Worker processes until one of them is killed: the others then end too."""

    def __init__(self, make_worker: Callable[[], Callable[[Any], Any]], workers: int, threads: int) -> None:
        self.make_worker, self.workers, self.threads = make_worker, workers, threads
        self.under_way: set[int] = set()

    def run(self, numbers: Sequence[int], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Do these items, no more of them under way than there are workers. Raises BrokenProcessPool."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", __name__, self.make_worker.__module__])  # once, not in each worker
        waiting = deque(numbers)
        futures: dict[Future[Any], int] = {}
        with ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=_start_worker, initargs=(self.threads,)
        ) as pool:
            try:
                while waiting or futures:
                    while waiting and len(futures) < self.workers:
                        number = waiting.popleft()
                        futures[pool.submit(_do, self.make_worker, items[number])] = number
                        self.under_way.add(number)
                    for future in wait(futures, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        number = futures.pop(future)
                        self.under_way.remove(number)
                        yield number, result
            except BrokenProcessPool:
                raise
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _do(make_worker: Callable[[], Callable[[Any], Any]], item: Any) -> Any:
    """Do an item in a worker process."""
    global _worker  # noqa: PLW0603, what a process holds from item to item
    if _worker is None:
        _worker = make_worker()
    return _worker(item)


def _start_worker(threads: int) -> None:
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
