"""A workspace at the edge of a flow: its store, and the right to write to it. Imports no torch: `watch` is cheap."""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tasks.settings import settings
from wtl_core.errors import BusyError
from wtl_core.workspace import lease, marker
from wtl_core.workspace.lease import Lease
from wtl_core.workspace.storage import Store

_TRY_SECONDS = 5.0
"""Between two attempts to take a lease that another process holds."""

_logger = logging.getLogger("wtl_core.workspaces")


def open_existing(uri: str) -> Store:
    """The store of a workspace that is there; from here on the core's lines reach the run's log."""
    _listen_to_core()
    settings()  # makes the S3 address known
    return marker.open_workspace(uri)


def _listen_to_core() -> None:
    core = logging.getLogger("wtl_core")
    if core.level == logging.NOTSET:  # as a worker starts it: prefect adds its handler and leaves the level alone
        core.setLevel(logging.INFO)


def open_for_refresh(uri: str) -> Store:
    """The store of a workspace that is there or can be made; from here on the core's lines reach the run's log."""
    _listen_to_core()
    settings()  # makes the S3 address known
    return marker.probe_workspace(uri)


@contextmanager
def hold(store: Store, patience_seconds: float = 0) -> Iterator[Lease]:
    """Hold the workspace's lease for the block: be its only writer.

    Raises:
        BusyError: another live process has held it for `patience_seconds`.
    """
    with ExitStack() as stack:
        yield _enter(stack, store, time.monotonic() + patience_seconds)


def _enter(stack: ExitStack, store: Store, deadline: float) -> Lease:
    is_logged = False
    while True:
        try:
            return stack.enter_context(lease.hold(store))
        except BusyError as error:
            if time.monotonic() >= deadline:
                raise
            if not is_logged:
                _logger.info("waiting: %s", error)
                is_logged = True
            time.sleep(_TRY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311, spreads waiters apart
