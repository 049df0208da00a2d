"""The drills of `test_drills.py` with PostgreSQL as the server's database, and that database gone for half a minute."""

import os
import shutil
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_stack import Stack, free_port, ranking_of, running, until

from tests.services.drill import PIXELS, at_rest, given, kill_in_each_stage, restart_the_server, stand_still

pytestmark = [pytest.mark.services, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Postgres"]:
    if not Postgres.is_installed():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    server = Postgres(Path("/tmp") / f"wtl-postgres-{time.time_ns()}")
    try:
        server.create()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


class Postgres:
    """A PostgreSQL server of its own, run by a user who is not root."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/prefect"

    @staticmethod
    def is_installed() -> bool:
        return bool(_postgres_folder())

    def create(self) -> None:
        self.folder.mkdir(mode=0o700)
        if _is_root():
            shutil.chown(self.folder, "postgres", "postgres")
        self._call("initdb", "-D", str(self.folder / "data"), "-U", "postgres", "--auth=trust", "-N")
        self.start()
        self._call("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "prefect")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        self._call("pg_ctl", "-D", data, "-l", log, "-w", "-o", options, "start")

    def stop(self) -> None:
        self._call("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop", check=False)

    def _call(self, name: str, *arguments: str, check: bool = True) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if _is_root() else []
        command = [*as_user, str(Path(_postgres_folder()) / name), *arguments]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120, cwd="/")
        assert not check or done.returncode == 0, command


def _is_root() -> bool:
    return os.geteuid() == 0


def _postgres_folder() -> str:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    named = shutil.which("initdb")
    return str(found[-1].parent) if found else str(Path(named).parent) if named else ""


@pytest.fixture(scope="module")
def quiet(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("on-postgresql")
    with running(Stack(folder, sources=[str(folder)], database=postgres.url)) as stack, at_rest(stack):
        yield stack


def test_killed_in_each_stage_the_next_run_ends_the_same(
    quiet: Stack, undisturbed_in_parts: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, expected = undisturbed_in_parts
    kill_in_each_stage(quiet, source, tmp_path / "workspace")
    assert ranking_of(tmp_path / "workspace") == expected


def test_the_server_may_restart_in_mid_run(quiet: Stack, undisturbed: tuple[Path, bytes], tmp_path: Path) -> None:
    source, expected = undisturbed
    restart_the_server(quiet, source, tmp_path / "workspace")
    assert ranking_of(tmp_path / "workspace") == expected


def test_the_database_may_be_gone_for_half_a_minute(
    quiet: Stack, postgres: Postgres, undisturbed: tuple[Path, bytes], tmp_path: Path
) -> None:
    source, expected = undisturbed
    workspace = tmp_path / "workspace"
    run_id, marker = stand_still(quiet, source, workspace, "wtl_core.pipeline:select", PIXELS)
    postgres.stop()
    time.sleep(15)
    marker.unlink()  # the run goes on, and its server has no database
    time.sleep(15)
    postgres.start()
    run = until(lambda: ended(quiet, run_id), seconds=180, what="the run ends")
    if run["state"]["type"] != "COMPLETED":  # what it could not tell the server, the next run does again
        quiet.finish("refresh", **given(source, workspace, PIXELS))
    assert ranking_of(workspace) == expected


def ended(stack: Stack, run_id: str) -> dict[str, object] | None:
    try:
        run = stack.run(run_id)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None
    return run if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED") else None
