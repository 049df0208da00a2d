"""Ways in which the tests call `wtl`: in a process or in this one, with a server of its own or on one that is up."""

import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest
from service_stack import free_port

from flows.cli.main import main
from flows.serving import server
from flows.serving.server import Place
from tasks.settings import settings

Wtl: TypeAlias = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def prefect_home(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One Prefect home for the session, whose database is there already."""
    home = tmp_path_factory.mktemp("prefect")
    shutil.copy(prefect_database, home)
    return home


@pytest.fixture
def wtl_alone(prefect_home: Path) -> Wtl:
    """`wtl ARGS...` in a process of its own, whose runs bring a server: some ten seconds for each run."""
    environment = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    environment |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    environment |= {"PREFECT_HOME": str(prefect_home), "WTL_STATE": str(prefect_home / "no-server-is-kept-here")}

    def call(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name("wtl")), *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, timeout=240, env={**environment, **(env or {})})

    return call


@pytest.fixture(scope="session")
def server_address(prefect_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the API of a server that all tests of this session share; one as a run without any brings along.

    It has none of the services that schedule and watch runs, which would be at work beside all these tests.
    """
    place = Place(tmp_path_factory.mktemp("server"), port=free_port(), is_own=True)
    home = tmp_path_factory.mktemp("server-home")
    shutil.copy(prefect_database, home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        started = server.start(place)
    try:
        server.wait(started, place)
        yield f"{place.address}/api"
    finally:
        started.stop()


@pytest.fixture
def wtl(wtl_here: Wtl, server_address: str) -> Wtl:
    """`wtl ARGS...` by its entry point in this process, whose runs are on the shared server: a second for each run."""
    from prefect.context import refresh_global_settings_context
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    def call(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        given = {"PREFECT_API_URL": server_address, **(env or {})}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            refresh_global_settings_context()
            done = wtl_here(*args)
            for service in (EventsWorker, APILogWorker):  # which would send what they hold when the server is gone
                service.drain_all()
        refresh_global_settings_context()
        return done

    return call


@pytest.fixture
def wtl_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Wtl:
    """`wtl ARGS...` by its entry point in this process, for what starts no flow.

    After each call the environment, the signal handlers and the loggers are what they were.
    """
    import prefect  # noqa: F401, which reads its settings once: here, and not in a call that changes the environment

    def call(*args: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = ["wtl", *map(str, args)]
        before, logger = dict(os.environ), logging.getLogger("wtl_core")
        handlers, level, propagate = logger.handlers[:], logger.level, logger.propagate
        filters = [(handler, handler.filters[:]) for handler in logging.getLogger().handlers]
        signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        capsys.readouterr()
        settings.cache_clear()
        try:
            os.environ.update(env or {})
            monkeypatch.setattr(sys, "argv", command)
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            gc.enable()  # which a run that is refused while flows are imported leaves off
            os.environ.clear()
            os.environ.update(before)
            settings.cache_clear()
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
            for handler, before_it in filters:
                handler.filters[:] = before_it
            for number, handler in signals.items():
                signal.signal(number, handler)
        shown = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(command, ended.value.code, shown.out, shown.err)

    return call
