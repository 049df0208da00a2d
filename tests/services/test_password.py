"""`wtl up` at an address that other machines reach: nobody without the password, and all of ours with it."""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from service_stack import free_port, last_commit, until

from tests.conftest import build_source

pytestmark = [pytest.mark.services, pytest.mark.timeout(500)]


def wtl(*words: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("wtl")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)


def ask(address: str, path: str, password: str | None) -> tuple[int, bytes]:
    """The status and the answer of a request for all of something."""
    headers = {"Content-Type": "application/json"}
    if password is not None:
        headers["Authorization"] = f"Basic {base64.b64encode(password.encode()).decode()}"
    request = urllib.request.Request(f"{address}/api{path}", b"{}", headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_server_that_others_reach_refuses_who_has_no_password(tmp_path: Path) -> None:
    build_source(tmp_path / "shards")
    site = tmp_path / "site.toml"
    site.write_text('quiet_seconds = 1\nwatch_seconds = 20\n[recipe.encoder]\nname = "pixels"\n')
    state, port = tmp_path / "above" / "state", free_port()
    unset = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"WTL_WORKERS": "1", "OMP_NUM_THREADS": "1", "PREFECT_HOME": str(tmp_path / "home")}
    words = ["up", tmp_path / "shards", "-w", tmp_path / "w", "--site", site, "--state", state, "--detach"]
    words += ["--host", "0.0.0.0", "--port", port]
    try:
        done = wtl(*words, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "home directory" not in done.stderr, "Prefect found no folder above its home"
        address = f"http://127.0.0.1:{port}"
        password = (state / "server-password").read_text().strip()
        said = f"export PREFECT_API_URL={address}/api PREFECT_API_AUTH_STRING=$(cat {state / 'server-password'})"
        assert said in done.stdout, "no terminal: the password itself may end in a log"
        assert password not in done.stdout + done.stderr
        assert f"wtl down --state {state}" in done.stdout
        for path in ("/flow_runs/filter", "/deployments/filter", "/variables/filter", "/block_documents/filter"):
            assert ask(address, path, None)[0] == 401, path
            assert ask(address, path, "wtl:guess")[0] == 401, path
            assert ask(address, path, password)[0] == 200, path
        until(lambda: last_commit(tmp_path / "w"), seconds=200, what="the watch and the worker have made a ranking")

        def names() -> set[str]:
            return {run["name"] for run in json.loads(ask(address, "/flow_runs/filter", password)[1])}

        until(lambda: any("64 new images" in name for name in names()), seconds=60, what="its run has ended well")
        client = {**env, "PREFECT_API_URL": f"{address}/api"}
        deploy = ["deploy", tmp_path / "shards", "-w", tmp_path / "w"]
        refused = wtl(*deploy, env=client)
        assert (refused.returncode, "set PREFECT_API_AUTH_STRING" in refused.stderr) == (2, True), refused.stderr
        taken = wtl(*deploy, env={**client, "PREFECT_API_AUTH_STRING": password})
        assert taken.returncode == 0, taken.stderr
        logs = "".join(log.read_text(errors="replace") for log in (state / "logs").glob("*.log"))
        assert password.split(":")[1] not in logs
    finally:
        ended = wtl("down", "--state", state, env=env)
    assert "has ended" in ended.stdout
