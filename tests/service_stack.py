"""A real Prefect server and worker for tests: started on free ports with a home of their own, spoken to over HTTP."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from flows.serving.processes import Child, descendants
from flows.serving.server import Place

STALL = Path(__file__).parent / "services" / "stall"
OUTPUT = Path(__file__).parent.parent / "test-output"
_START_SECONDS = 180
_UNFINISHED = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING"]


def free_port() -> int:
    """A port that is free now, and that the system gives to nobody until it is used: below its own range."""
    while True:
        port = random.randrange(15_000, 32_768)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(is_true: Callable[[], Any], *, seconds: float, what: str, every: float = 0.5) -> Any:
    """The first true answer; an AssertionError that names `what` when the time is over.

    A question costs a server 7 ms of a core: asked five times a second by four tests, a seventh of a core.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := is_true():
            return answer
        time.sleep(every)
    raise AssertionError(f"not within {seconds} s: {what}")


class Stack:
    """Server, worker and the deployments of one site."""

    def __init__(
        self,
        folder: Path,
        *,
        sources: list[str],
        env: dict[str, str] | None = None,
        database: str | None = None,
        new_database: Path | None = None,
    ):
        """The server's database is at the URL `database`, a copy of the file `new_database`, or made by the server."""
        folder.mkdir(exist_ok=True)
        if new_database is not None:
            (folder / "state").mkdir()
            shutil.copy(new_database, folder / "state")
        self.folder = folder
        self.workspace = folder / "workspace"
        self.place = Place(folder / "state", port=free_port(), database_url=database)
        self.environment = {**self.place.environment(), "OMP_NUM_THREADS": "1", "WTL_WORKERS": "2", **(env or {})}
        self.site = folder / "site.toml"
        listed = json.dumps(sources)
        self.site.write_text(
            f'name = "test"\nworkspace = "{self.workspace}"\nsources = {listed}\nquiet_seconds = 3\n'
            "watch_seconds = 10\n"  # at 2 s cancelled looks kept SQLite locked for minutes
            "device_limit = 9\n"  # a killed run keeps its place for a minute, which the tests need not wait
            '[recipe.encoder]\nname = "pixels"\n'
        )
        python = [sys.executable, "-m", "prefect"]
        # Every stack's own: what bears the mark of a log that another stack shares would be ended with it.
        logs = OUTPUT / "logs" / f"{folder.parent.name}-{folder.name}"
        shutil.rmtree(logs, ignore_errors=True)
        self.server = Child("server", [*python, "server", "start"], self.environment, logs / "server.log")
        worker = [*python, "worker", "start", "--pool", "wtl", "--type", "process", "--name", "test"]
        self.worker = Child("worker", worker, self.environment, logs / "worker.log")

    def start(self) -> None:
        self.start_server()
        self.wtl("deploy", "--site", self.site)
        self.worker.start()

    def start_server(self) -> None:
        self.server.start()
        until(self._answers, seconds=_START_SECONDS, what=f"the server answers; see {self.server.log}", every=0.2)

    def stop(self) -> None:
        self.worker.stop()
        self.server.stop()

    @staticmethod
    def program(name: str) -> str:
        """A program of the environment that the tests run in."""
        return str(Path(sys.executable).with_name(name))

    def wtl(
        self, *args: object, check: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [self.program("wtl"), *map(str, args)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=240, env={**self.environment, **(env or {})}
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def api(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self.place.address}/api{path}", data, {"Content-Type": "application/json"}, method=method
        )
        text = self._answer(request)
        return json.loads(text) if text else None

    def _answer(self, request: urllib.request.Request) -> bytes:
        """As every client of a server does: 503 says that SQLite is busy, and to come again."""
        for pause in (1, 2, 4, 8, None):
            try:
                with urllib.request.urlopen(request, timeout=90) as answer:
                    text: bytes = answer.read()
                return text
            except urllib.error.HTTPError as error:
                if error.code != 503 or pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError

    def deployment(self, flow: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/deployments/name/{flow}/{flow}-test")
        return found

    @contextmanager
    def paused(self, flow: str) -> Iterator[None]:
        """As a person pauses a deployment in the UI: its schedule starts no run, and none is under way at first."""
        was_paused = self.deployment(flow)["paused"]
        self._pause(flow)
        try:
            yield
        finally:
            if not was_paused:
                self._change(flow, "resume_deployment")

    @contextmanager
    def resumed(self, flow: str) -> Iterator[None]:
        """The other way round: runs by its schedule, of a deployment that is paused before and after."""
        self._change(flow, "resume_deployment")
        try:
            yield
        finally:
            self._pause(flow)

    def _pause(self, flow: str) -> None:
        # A PATCH of `paused` would keep scheduled runs that are due already: they began in the middle of a test.
        self._change(flow, "pause_deployment")
        until(lambda: not self.unfinished(flow), seconds=90, what=f"no run of {flow} is under way")

    def _change(self, flow: str, to: str) -> None:
        self.api("POST", f"/deployments/{self.deployment(flow)['id']}/{to}")

    def wait_for_a_look(self) -> None:
        """Until the watch has made a look that began after this call."""
        since = now()

        def has_ended() -> bool:
            runs = [run for run in self.runs("watch") if run["state"]["type"] == "COMPLETED"]
            return any(_time(run["start_time"]) > since for run in runs)

        until(has_ended, seconds=120, what="a look of the watch ends")

    def unfinished(self, flow: str) -> list[dict[str, Any]]:
        """Runs of a flow that are at work or wait to be, but not those that its schedule foresees for later."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": _UNFINISHED}}}}
        found: list[dict[str, Any]] = self.api("POST", "/flow_runs/filter", wanted)
        return [run for run in found if not run["auto_scheduled"] or _time(run["expected_start_time"]) < now()]

    def enable_automations(self, prefix: str, *, enabled: bool) -> None:
        for automation in self.api("POST", "/automations/filter", {}):
            if automation["name"].startswith(prefix):
                self.api("PATCH", f"/automations/{automation['id']}", {"enabled": enabled})

    def runs(self, flow: str, *, since: datetime | None = None) -> list[dict[str, Any]]:
        """Runs of a flow that began or ended, oldest first."""
        wanted = {"flows": {"name": {"any_": [flow]}}, "limit": 200, "sort": "EXPECTED_START_TIME_DESC"}
        wanted["flow_runs"] = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
        found = self.api("POST", "/flow_runs/filter", wanted)
        return sorted(
            (run for run in found if since is None or _time(run["created"]) >= since),
            key=lambda run: str(run["created"]),
        )

    def events(self, name: str, resource: str, *, since: datetime | None = None) -> list[dict[str, Any]]:
        """Events of a name about a resource, newest first."""
        wanted: dict[str, Any] = {"event": {"name": [name]}, "resource": {"id": [resource]}}
        if since is not None:
            wanted["occurred"] = {"since": since.isoformat()}
        found: list[dict[str, Any]] = self.api("POST", "/events/filter", {"filter": wanted})["events"]
        return found

    def start_run(
        self, flow: str, *, job_env: dict[str, str] | None = None, in_seconds: float = 0, **parameters: Any
    ) -> str:
        due = (now() + timedelta(seconds=in_seconds)).isoformat()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}
        body: dict[str, Any] = {"parameters": parameters, "state": state}
        if job_env:
            body["job_variables"] = {"env": job_env}
        return self.start_run_of(self.deployment(flow)["id"], body)

    def start_run_of(self, deployment_id: str, body: dict[str, Any] | None = None) -> str:
        run = self.api("POST", f"/deployments/{deployment_id}/create_flow_run", body or {})
        return str(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/flow_runs/{run_id}")
        return found

    def state_of(self, run_id: str) -> str:
        return str(self.run(run_id)["state"]["name"])

    def wait(self, run_id: str, *, seconds: float = 120) -> dict[str, Any]:
        """The run, once it has ended."""

        def ended() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None

        done: dict[str, Any] = until(ended, seconds=seconds, what=f"run {run_id} ends")
        return done

    def finish(self, flow: str, **parameters: Any) -> dict[str, Any]:
        run = self.wait(self.start_run(flow, **parameters))
        assert run["state"]["type"] == "COMPLETED", run["state"]
        return run

    def stall(self, function: str, folder: Path, *, when: str = "after") -> dict[str, str]:
        """Environment of a run that stands still before or after a function of `wtl_core`.

        It says so in the file named by `marker`, and goes on when that is deleted.
        """
        marker = folder / f"stalled-{function.replace('.', '-').replace(':', '-')}-{when}"
        marker.unlink(missing_ok=True)
        plan = {"function": function, "when": when, "marker": str(marker)}
        return {"PYTHONPATH": str(STALL), "WTL_TEST_STALL": json.dumps(plan), "marker": str(marker)}

    def kill_worker(self) -> None:
        """SIGKILL to the worker and everything below it, as a machine that goes away does."""
        assert self.worker.process is not None
        below = descendants(self.worker.process.pid)
        self.worker.process.kill()
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.worker.process.wait()

    def call_crashed(self, run_id: str) -> None:
        """What the automation `wtl-lost-runs` does after 90 seconds without a heartbeat."""
        state = {"type": "CRASHED", "name": "Crashed", "message": "killed by the test"}
        self.api("POST", f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})

    def _answers(self) -> bool:
        assert self.server.is_running(), self.server.log.read_text()[-2000:]
        try:
            return self.api("GET", "/health") is True
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return False


def artifact(stack: Stack, run_id: str, key: str) -> dict[str, Any]:
    """The only artifact of a run with that key; a failed run's hook makes its own after the run has its state."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}}
    found: list[dict[str, Any]] = until(
        lambda: stack.api("POST", "/artifacts/filter", wanted), seconds=20, what=f"artifact {key} of run {run_id}"
    )
    assert len(found) == 1, (key, found)
    return found[0]


def failed_run(stack: Stack, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The run, once it has failed and its hook has named it, and the artifact that the hook makes after that."""
    run = stack.wait(run_id)
    assert run["state"]["type"] == "FAILED", run["state"]
    page = artifact(stack, run_id, "failure")
    return stack.run(run_id), page


def plain_ranking(source: Path | str, folder: Path, recipe: dict[str, Any]) -> bytes:
    """`ranking.parquet` as an undisturbed plain script makes it."""
    script = (
        "import json, sys\nfrom wtl_core import pipeline\nfrom wtl_core.workspace import storage\n"
        "from wtl_core.recipe.recipe import build_recipe\n"
        "store = storage.open_store(sys.argv[2])\n"
        "recipe = build_recipe(json.loads(sys.argv[3]), name='test')\n"
        "commit = pipeline.refresh_workspace(store, [sys.argv[1]], recipe, pipeline.Machine(workers=2))\n"
        "print(store.path(commit.selection))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(folder), json.dumps(recipe)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # as in the stack: sums of a training follow it
    )
    assert done.returncode == 0, done.stderr
    return (Path(done.stdout.strip()) / "ranking.parquet").read_bytes()


def last_commit(workspace: Path) -> dict[str, Any] | None:
    names = sorted((workspace / "refreshes").glob("*.json")) if (workspace / "refreshes").is_dir() else []
    return json.loads(names[-1].read_text()) if names else None


def ranking_of(workspace: Path) -> bytes:
    commit = last_commit(workspace)
    assert commit is not None
    return (workspace / commit["selection"] / "ranking.parquet").read_bytes()


def note(name: str, values: dict[str, Any]) -> None:
    """Keep measured figures as test output."""
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def now() -> datetime:
    return datetime.now(UTC)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def seconds_between(start: datetime, text: str) -> float:
    return (_time(text) - start).total_seconds()
