"""The Ray engine: workers are Ray actors, on a cluster that has an address or on one that is started here for the run.

Ray places actors, restarts nothing and stores nothing for us: an actor that is lost is replaced by a new one, wherever
there is room by then. Not here: what the actors do. `ray` is imported when the engine is first used.
"""

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from typing import Any

from wtl_core.engines.engine import Item, Losses, Needs, Result, heaviest_first
from wtl_core.errors import ConfigError, TransientError

_log = logging.getLogger(__name__)

SPARE = 16
"""Actors beyond the cluster's room, which wait for a place. An autoscaler sees our need by them, and where one is lost
another has its place at once. Those that never get a place cost nothing."""
_WAIT_SECONDS = 1.0
"""Between two looks: signals are heeded, and the patience below is measured."""
TELL_SECONDS, PATIENCE_SECONDS = 60.0, 600.0
"""Without any actor at work, that long until it is told, and until the run is ended: an autoscaler takes minutes."""
TOGETHER_SECONDS = 10.0
"""Actors that are lost within it as they start count once: a node takes all that load on it along."""
_STORE_BYTES = 100 * 2**20
"""Ray's object store, of a cluster started here: items and results are small."""
_SAME_PACKAGES = (
    *("wtl", "torch", "torchvision", "numpy", "numba", "pyarrow"),
    *("pillow", "pillow-heif", "simplejpeg", "timm", "openvino"),
)
"""Packages that decide what becomes of an image: other versions could give other pixels or vectors, or none."""


class RayEngine:
    """Actors of a Ray cluster.

    Attributes:
        address: `HOST:PORT` of the cluster, or `auto` on one of its nodes; None for a cluster of this machine alone,
            which is started when it is first used, and ends with this process.
        cpus: Cores of a cluster that is started here.
        gpus: GPUs of a cluster that is started here.
    """

    def __init__(self, address: str | None, *, cpus: int, gpus: int) -> None:
        self.address, self.cpus, self.gpus = address, cpus, gpus

    def run(
        self,
        make_worker: Callable[[], Callable[[Item], Result]],
        items: Sequence[Item],
        *,
        needs: Needs = Needs(),  # noqa: B008, frozen
        weights: Sequence[float] | None = None,
    ) -> Iterator[tuple[int, Result]]:
        """Do all items, as `Engine.run` says. An actor has one item at a time.

        Raises:
            ConfigError: the cluster is not one of which this machine is a node, or a node has other packages.
            TransientError: no cluster answers, or for ten minutes no node had room for an actor.
            LostWorkersError: also if `MOST_LOSSES` times actors are lost as they start, and none is at work.
        """
        waiting = deque(heaviest_first(len(items), weights))
        if not waiting:
            return
        losses = Losses("give nodes more memory, or let fewer workers share one")
        actors = _Actors(self._connected(), make_worker, needs, losses)
        try:
            while waiting or actors.at_work:
                actors.ask_for(len(waiting))
                for actor, done, result in actors.ended():
                    if isinstance(result, _Lost):
                        if done is not None:
                            waiting.appendleft(done)
                            losses.add(done, result.why)
                        continue
                    if waiting:
                        number = waiting.popleft()
                        actors.give(actor, number, items[number])
                    else:
                        actors.dismiss(actor)
                    if done is not None:
                        yield done, result
        finally:
            actors.dismiss_all()

    def _connected(self) -> Any:
        """The package `ray`, connected to the cluster."""
        ray = _imported(is_local=self.address is None)
        if ray.is_initialized():
            return ray
        if self.address not in (None, "auto"):
            _check_answers(self.address)
        handler = signal.getsignal(signal.SIGTERM)
        started = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # LanceDB's, of the forks that start Ray's processes
                ray.init(**self._init_options())
        except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as error:
            if self.address is None:
                text = f"Ray: expected a cluster to start on this machine, found: {_first_line(error)}"
                raise TransientError(text) from error
            raise ConfigError(
                f"WTL_RAY_ADDRESS={self.address}: expected a Ray cluster of which this machine is a node, found: "
                f"{_first_line(error)}; see `ray status`, and run `wtl` on a node of the cluster, with its token"
            ) from error
        finally:
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray sets its own, which would end us without a word
        found = ray.cluster_resources()
        nodes = sum(node["Alive"] for node in ray.nodes())
        page = dashboard()
        _log.info(
            "ray: %d nodes, %d CPUs, %d GPUs, connected in %.0f s%s",
            nodes,
            found.get("CPU", 0),
            found.get("GPU", 0),
            time.monotonic() - started,
            f"; dashboard {page}" if page else "",
        )
        return ray

    def _init_options(self) -> dict[str, Any]:
        quiet = {"configure_logging": False, "log_to_driver": False}
        if self.address is not None:
            return {"address": self.address, **quiet}
        return {
            "address": "local",
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "object_store_memory": _STORE_BYTES,
            **quiet,
        }


def _check_answers(address: str) -> None:
    """Raise TransientError where nothing listens; `ray.init` takes minutes to say so."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_WAIT_SECONDS * 10).close()
    except OSError as error:
        raise TransientError(
            f"WTL_RAY_ADDRESS={address}: expected a Ray cluster, found no answer: {error}; see that its head node "
            "is up, or correct the address"
        ) from error


def dashboard() -> str | None:
    """The address of the page that shows the cluster at work; None without a connection or without such a page."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    url = ray._private.worker.get_dashboard_url()  # `ray.init` returns it too, but is called once
    return f"http://{url}" if url else None


def _imported(*, is_local: bool) -> Any:
    """The package `ray`, quiet. It reads its settings when it is imported, so they are made before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if is_local and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        # Only who has the token can make a cluster run something: one for this cluster alone, and in no file.
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    import ray
    from ray._private import worker

    # What raylets tell of lost workers would go to stdout, where nothing but results belongs; we tell it ourselves.
    worker.print_to_stdstream = lambda data, **_: _log.debug("ray: %s", data)
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


class _Lost:
    """What an actor ends with if it or its node was lost; `why` as Ray says it."""

    def __init__(self, why: str) -> None:
        self.why = why


class _Actors:
    """The actors of one run: those that wait for a place or are loading, and those that are at work."""

    def __init__(self, ray: Any, make_worker: Callable[[], Callable[[Any], Any]], needs: Needs, losses: Losses) -> None:
        self.ray, self.needs, self.losses = ray, needs, losses
        self.make_worker = ray.put(make_worker)  # once, not for each actor
        self.kind = ray.remote(_Actor).options(
            num_cpus=needs.cpus, num_gpus=needs.gpus, memory=needs.memory_bytes, max_restarts=0
        )
        self.environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self.all = dict[Any, None]()
        self.starting: dict[Any, Any] = {}
        self.at_work: dict[Any, tuple[Any, int]] = {}
        self.start_lost_at = -TOGETHER_SECONDS
        self.idle_since = time.monotonic()
        self.is_told = False

    def ask_for(self, items: int) -> None:
        """See that actors load or wait for a place: one for each item, up to some more than have room."""
        most = SPARE + max(0, self._room() - len(self.at_work))
        while len(self.starting) < min(items, most):
            actor = self.kind.remote()
            self.all[actor] = None
            begun = actor.start.remote(self.make_worker, self.needs.cpus, self.environment, _versions())
            self.starting[begun] = actor
        while len(self.starting) > items:
            self.dismiss(self.starting.popitem()[1])

    def _room(self) -> int:
        """How many actors the cluster has room for at most, were its nodes one and nobody else on it."""
        has = self.ray.cluster_resources()
        takes = {"CPU": self.needs.cpus, "GPU": self.needs.gpus, "memory": self.needs.memory_bytes}
        return int(min(has.get(kind, 0) / amount for kind, amount in takes.items() if amount))

    def give(self, actor: Any, number: int, item: Any) -> None:
        """Let an actor do an item."""
        self.at_work[actor.do.remote(item)] = (actor, number)

    def ended(self) -> Iterator[tuple[Any, int | None, Any]]:
        """Actors that are free, each with the number and the result of the item that it did, or None if it is new.

        Instead of a result `_Lost` if it was lost, so that it is not free. Waits a moment if there is none.
        """
        ready, _ = self.ray.wait([*self.starting, *self.at_work], timeout=_WAIT_SECONDS)
        self._check_patience()
        for reference in ready:
            is_new = reference in self.starting
            actor, number = (self.starting.pop(reference), None) if is_new else self.at_work.pop(reference)
            result = self._result(reference)
            if isinstance(result, _Lost):
                self.dismiss(actor)  # one that only cannot be reached may live
                _log.warning("ray: a worker was lost%s: %s", "" if is_new else "; its work is begun again", result.why)
            if is_new:
                self._count_start(result)
            yield actor, number, result

    def _count_start(self, result: Any) -> None:
        """Count an actor that was lost as it started, unless others are at work; those lost together count once."""
        now = time.monotonic()
        if not isinstance(result, _Lost):
            self.losses.forget(None)
        elif not self.at_work and now - self.start_lost_at >= TOGETHER_SECONDS:
            self.start_lost_at = now
            self.losses.add(None, result.why)

    def dismiss(self, actor: Any) -> None:
        """End an actor at once; its place is free."""
        del self.all[actor]
        self.ray.kill(actor)

    def dismiss_all(self) -> None:
        """End all actors."""
        for actor in list(self.all):
            self.dismiss(actor)

    def _result(self, reference: Any) -> Any:
        errors = self.ray.exceptions
        try:
            return self.ray.get(reference)
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError as error:  # of the actor, its node, or the way to it
            return _Lost(_first_line(error))

    def _check_patience(self) -> None:
        """Raise TransientError if nothing has been at work for long."""
        now = time.monotonic()
        if self.at_work:
            self.idle_since, self.is_told = now, False
            return
        waited = now - self.idle_since
        if waited < TELL_SECONDS or (self.is_told and waited < PATIENCE_SECONDS):
            return
        has = ", ".join(f"{self.ray.cluster_resources().get(kind, 0):g} {kind}s" for kind in ("CPU", "GPU"))
        text = (
            f"Ray: expected a worker to be at work, found none for {waited:.0f} s; it takes {self.needs.cpus} CPUs, "
            f"{self.needs.gpus:g} GPUs and {self.needs.memory_bytes / 2**30:.1f} GiB of one node, and the cluster has "
            f"{has} in all; `ray status` shows who has them"
        )
        if waited >= PATIENCE_SECONDS:
            raise TransientError(text)
        _log.warning("%s; waiting", text)
        self.is_told = True


class _Actor:
    """What runs on a node: one worker."""

    def start(
        self,
        make_worker: Callable[[], Callable[[Any], Any]],
        threads: int,
        environment: dict[str, str],
        versions: dict[str, str],
    ) -> None:
        """Make the worker, with the store's credentials of the machine that runs the refresh.

        They come as an argument: what a runtime environment holds is kept with the job, where Ray's pages show it.
        """
        import torch

        if (found := _versions()) != versions:
            listed = ", ".join(
                f"{name} {found.get(name, 'missing')} for {versions.get(name, 'none')}"
                for name in sorted({*found, *versions})
                if found.get(name) != versions.get(name)
            )
            raise ConfigError(
                f"Ray node {socket.gethostname()}: expected the same packages as on the machine that runs the refresh, "
                f"found {listed}; install the same versions on all nodes"
            )
        os.environ.update(environment)
        torch.set_num_threads(threads)
        self.worker = make_worker()

    def do(self, item: Any) -> Any:
        """Do an item."""
        return self.worker(item)


def _versions() -> dict[str, str]:
    """Versions of `_SAME_PACKAGES`, without what tells a build for GPUs from one for processors."""
    found = {}
    for name in _SAME_PACKAGES:
        try:
            found[name] = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            continue
    return found


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
