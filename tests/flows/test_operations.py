"""The deployments' files agree with the code; the commands of operations refuse what is wrong, in one line."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from datetime import timedelta
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
import yaml
from service_stack import free_port

from flows.cli.operations_commands import next_params
from flows.serving import processes, server, up
from flows.serving.deploying import automations
from flows.serving.site_values import FOLDER, Labelling, Site, read_settings, read_site, read_template
from tasks.prefect_side.failures import show_failure
from tests.flows.conftest import Wtl
from wtl_core import pipeline
from wtl_core.errors import ConfigError
from wtl_core.labelling.tools.params import ToolParams
from wtl_core.machine import Machine
from wtl_core.recipe.recipe import build_recipe
from wtl_core.workspace import storage


@pytest.fixture(scope="module")
def deployments() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(read_template("prefect", Site(name="my-site")))["deployments"]
    return found


def test_all_are_deployed_one_run_at_a_time(deployments: list[dict[str, Any]]) -> None:
    names = {deployment["name"].removesuffix("-my-site") for deployment in deployments}
    assert names == {"refresh", "watch", "hand-out", "take-back", "train-encoder", "benchmark", "maintain"}
    assert {deployment["concurrency_limit"]["limit"] for deployment in deployments} == {1}


def test_each_entrypoint_takes_the_parameters_that_it_is_given(deployments: list[dict[str, Any]]) -> None:
    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(import_module(module), name)
        assert set(deployment.get("parameters", {})) <= set(signature(flow.fn).parameters), deployment["name"]


def test_runs_by_schedule_read_all_that_the_workspace_knows(deployments: list[dict[str, Any]]) -> None:
    given = {
        deployment["name"].removesuffix("-my-site"): deployment.get("parameters", {}) for deployment in deployments
    }
    assert [name for name, values in given.items() if "sources" in values] == ["refresh", "watch"]
    assert given["refresh"]["known_too"] is given["watch"]["known_too"] is True


def test_every_variable_of_the_yaml_is_written_by_the_site() -> None:
    site = Site(name="my-site")
    used = set(re.findall(r"prefect\.variables\.(\w+)", read_template("prefect", site)))
    assert used == set(site.variables())


@pytest.mark.parametrize(("watch_seconds", "window_seconds"), [(30, 3600), (600, 6000)])
def test_five_failed_looks_fit_into_the_time_that_they_are_counted_in(watch_seconds: int, window_seconds: int) -> None:
    made = automations(Site(watch_seconds=watch_seconds), str(uuid4()))["wtl-watch-failed-default"]
    assert made is not None
    assert made.trigger.model_dump()["within"] == timedelta(seconds=window_seconds)


def test_sites_of_one_server_share_no_name_but_that_of_lost_runs() -> None:
    block = str(uuid4())
    ours, theirs = (automations(Site(name=name), block) for name in ("a", "b"))
    assert set(ours) & set(theirs) == {"wtl-lost-runs"}
    assert ours["wtl-lost-runs"] == theirs["wtl-lost-runs"]
    assert [name for name, values in automations(Site(name="a"), None).items() if values is not None] == [
        "wtl-lost-runs"
    ]
    assert not set(Site(name="a").variables()) & set(Site(name="b").variables())


def test_a_sites_weights_file_is_found_by_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources and files are relative to where the site is read, not to the worker's folder."""
    monkeypatch.chdir(tmp_path)
    written = Site(recipe={"encoder": {"name": "file:w.safetensors"}}).variables()["wtl_default_recipe"]
    assert written["encoder"]["name"] == f"file:{tmp_path}/w.safetensors"


_TOOL = {"url": "http://127.0.0.1:8080/", "project": 3, "hand_out": "0 8 * * 1-5"}


def test_a_labelling_tool_is_served_on_a_schedule_where_the_site_names_one() -> None:
    for site, is_active in ((Site(), False), (Site.model_validate({"labelling": _TOOL}), True)):
        found = yaml.safe_load(read_template("prefect", site))["deployments"]
        schedules = {deployment["name"]: deployment.get("schedules", []) for deployment in found}
        for name in ("hand-out-default", "take-back-default"):
            assert [schedule["active"] for schedule in schedules[name]] == [is_active]
    written = site.variables()
    assert (written["wtl_default_hand_out"], written["wtl_default_take_back"]) == ("0 8 * * 1-5", "5 * * * *")
    params = ToolParams.model_validate(written["wtl_default_labelling"])
    assert (params.url, params.project, params.batch) == ("http://127.0.0.1:8080", 3, 200)
    assert Site().variables()["wtl_default_labelling"] is None


def test_the_tool_in_the_shipped_site_is_what_its_comments_say(tmp_path: Path) -> None:
    shown = re.findall(r"^#( *(?:\[labelling\]|  \w+ =).*)", (FOLDER / "site.toml").read_text(), re.MULTILINE)
    (tmp_path / "site.toml").write_text("\n".join(shown))
    labelling = read_site(tmp_path / "site.toml").labelling
    assert labelling is not None
    given = {"url": "http://127.0.0.1:8080", "project": 1, "urls": {"/sources": "http://files.example"}}
    assert labelling == Labelling.model_validate(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tool": "cvat"}, "labelling.tool: Input should be 'label-studio', found 'cvat'"),
        ({"url": "http://user:secret@127.0.0.1"}, "labelling.url"),
        ({"control": "10%%"}, "labelling.control: expected a count above 0"),
        ({"token": "abc"}, "labelling.token: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_tool_is_refused(tmp_path: Path, given: dict[str, Any], told: str) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**_TOOL, **given}.items()]
    (tmp_path / "site.toml").write_text("\n".join(["[labelling]", *lines]))
    with pytest.raises(ConfigError, match=re.escape(told)):
        read_site(tmp_path / "site.toml")


def test_every_flow_tells_of_its_failure(deployments: list[dict[str, Any]]) -> None:
    for deployment in deployments:
        module, _, name = deployment["entrypoint"].rpartition(".")
        assert getattr(import_module(module), name).on_failure_hooks == [show_failure], name


def test_the_shipped_site_is_the_default() -> None:
    assert read_site(None) == Site()
    named = set(re.findall(r"^#? ?(\w+) =", (FOLDER / "site.toml").read_text(), re.MULTILINE))
    named |= {"recipe", "labelling"}
    assert named == set(Site.model_fields)


def test_no_secret_is_in_the_shipped_files() -> None:
    for path in FOLDER.rglob("*"):
        if path.is_file() and path.suffix != ".md":
            assert not re.search(
                r"(?i)(password|secret_key|auth_string) *[:=] *[A-Za-z0-9]{3,}$", path.read_text(), re.MULTILINE
            )


def test_settings_files_hold_settings() -> None:
    assert all(name.startswith(("PREFECT_", "DO_NOT")) for name in read_settings("server") | read_settings("worker"))


def test_compose_wants_its_secrets_from_outside() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    for name in ("PREFECT_AUTH", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"):
        assert f"${{{name}:?" in text
    services = yaml.safe_load(text)["services"]
    assert set(services) == {"database", "server", "store", "deploy", "worker"}
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name


def test_the_kubernetes_template_uses_every_variable_that_it_declares() -> None:
    template = json.loads((FOLDER / "kubernetes" / "base-job-template.json").read_text())
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('workspce = "w"', "workspce"),
        ("debounce_seconds = -1", "debounce_seconds"),
        ("watch_seconds = 4", "watch_seconds"),
        ("sources = []", "sources"),
        ('name = "No Spaces"', "name"),
        ("[recipe.encoder]\nnam = 1", "did you mean encoder.name"),
        ("not toml", "expected a site file"),
    ],
)
def test_a_wrong_site_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "site.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_site(tmp_path / "site.toml").variables()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('nightly = "0 3 * *"', "nightly = '0 3 * *': expected a cron"),
        ('timezone = "Mars/Olympus"', "timezone = 'Mars/Olympus': expected"),
        (f"sources = {json.dumps([f'/data/shards/{i}' for i in range(400)])}", "sources: expected at most 5,000 char"),
        (
            f"[recipe]\ningest.filters = {json.dumps(['sharpness > 10'] * 400)}",
            "recipe: expected at most 5,000 characters",
        ),
    ],
)
def test_a_site_that_cannot_be_deployed_is_refused_before_anything_is_written(
    wtl_here: Wtl, tmp_path: Path, text: str, message: str
) -> None:
    """Nor is a server asked: there is none, and the refusal is of the site."""
    sources = "" if text.startswith("sources") else f'sources = ["{tmp_path}"]\n'
    (tmp_path / "site.toml").write_text(f'workspace = "w"\n{sources}{text}')
    args = ["--site", tmp_path / "site.toml"]
    done = wtl_here("deploy", *args, env={"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    if "cron" in message:
        for flags in ([], ["--detach"]):
            done = wtl_here("up", *args, "--state", tmp_path / "state", "--port", free_port(), *flags)
            assert (done.returncode, message in done.stderr) == (2, True), done.stderr
            assert not (tmp_path / "state" / "logs").exists()


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "site.toml").write_text('workspace = "a"\nsources = ["b"]')
    site = read_site(tmp_path / "site.toml", workspace="c", sources=["d", "e"])
    assert (site.workspace, site.sources) == ("c", ["d", "e"])
    assert read_site(tmp_path / "site.toml", workspace=None, sources=[]).sources == ["b"]


def test_down_with_nothing_up_says_so(wtl_here: Wtl, tmp_path: Path) -> None:
    done = wtl_here("down", "--state", tmp_path)
    assert done.returncode == 0
    assert "nothing was up" in done.stdout


def test_up_on_a_taken_port_is_refused(wtl_here: Wtl, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = wtl_here(
            "up", tmp_path, "--workspace", tmp_path / "w", "--state", tmp_path / "s", "--port", taken.getsockname()[1]
        )
    assert done.returncode == 2
    assert "name another by --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_is_watched_that_nobody_named(wtl: Wtl, wtl_here: Wtl, source: Path, tmp_path: Path) -> None:
    """One message asks for what is missing; the sources that a workspace knows need not be named again."""
    state = ["--state", tmp_path / "state", "--port", free_port()]
    done = wtl_here("up", *state)
    assert (done.returncode, done.stdout) == (2, "")
    assert "found no workspace; name both: `SOURCE... --workspace DIR`" in done.stderr
    done = wtl_here("up", "--workspace", tmp_path / "w", *state)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{tmp_path / 'w'}: expected the sources to watch, found none" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "state").exists()
    recipe = build_recipe({"encoder": {"name": "pixels"}}, name="test")
    pipeline.refresh_workspace(storage.open_store(str(tmp_path / "w")), [str(source)], recipe, Machine())
    done = wtl("deploy", "--workspace", tmp_path / "w", env={"PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})
    assert done.returncode == 4, done.stderr  # past the check: it has asked the server


def test_an_address_of_another_machine_is_not_taken_for_a_busy_port(
    wtl_here: Wtl, source: Path, tmp_path: Path
) -> None:
    here = ["--workspace", tmp_path / "w", "--state", tmp_path / "state", "--port", free_port()]
    done = wtl_here("up", source, *here, "--host", "192.0.2.1")  # kept for documentation: nobody's
    assert (done.returncode, done.stdout) == (2, "")
    assert "host '192.0.2.1': expected an address of this machine" in done.stderr


@pytest.mark.parametrize(
    ("host", "is_open"),
    [("127.0.0.1", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("::", True), ("no such", True)],
)
def test_a_server_that_others_reach_asks_for_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, is_open: bool
) -> None:
    for name in (server.SERVER_PASSWORD, server.CLIENT_PASSWORD):
        monkeypatch.delenv(name, raising=False)
    place = server.Place(tmp_path / "state", host)
    environment = place.environment()
    kept = tmp_path / "state" / "server-password"
    assert kept.exists() is is_open
    if is_open:
        assert kept.stat().st_mode & 0o777 == 0o600
        assert len(kept.read_text()) > 40
        assert environment[server.SERVER_PASSWORD] == environment[server.CLIENT_PASSWORD] == kept.read_text().strip()
        assert place.environment() == environment, "the next start uses the same one"
    else:
        assert server.SERVER_PASSWORD not in environment


def test_a_password_of_the_users_own_is_used_by_the_clients_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(server.SERVER_PASSWORD, "me:secret")
    monkeypatch.setenv(server.CLIENT_PASSWORD, "of-another:server")
    place = server.Place(tmp_path / "state", "0.0.0.0")
    environment = place.environment()
    assert environment[server.SERVER_PASSWORD] == environment[server.CLIENT_PASSWORD] == "me:secret"
    assert place.password_file is None
    assert not (tmp_path / "state").exists()


def test_a_password_file_that_others_could_read_is_closed(tmp_path: Path) -> None:
    kept = tmp_path / "server-password"
    kept.write_text("wtl:abc\n")
    kept.chmod(0o644)
    assert server.kept_password(kept) == "wtl:abc"
    assert kept.stat().st_mode & 0o777 == 0o600


def test_deploy_without_a_server_is_refused(wtl_here: Wtl) -> None:
    done = wtl_here("deploy", env={"PREFECT_API_URL": ""})
    assert done.returncode == 2
    assert "PREFECT_API_URL" in done.stderr


def test_site_file_is_toml() -> None:
    assert tomllib.loads((FOLDER / "site.toml").read_text())["name"] == "default"


def test_down_believes_no_process_that_is_not_ours(wtl_here: Wtl, tmp_path: Path) -> None:
    """After a power cut the number may belong to anything: here to a sleeping `backup.py up`."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "backup.py", "up"]) as other:
        (tmp_path / "up.json").write_text(json.dumps({"pid": other.pid}))
        done = wtl_here("down", "--state", tmp_path, "--json")
        assert json.loads(done.stdout) == {"was_up": False}
        assert other.poll() is None
        other.kill()


ORPHAN = (
    "import subprocess, sys\n"
    "sleeper = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
    "print(subprocess.Popen(sleeper, start_new_session=True).pid, flush=True)\n"
)


@pytest.mark.parametrize("is_supervised", [True, False])
def test_what_outlived_its_parent_is_ended_too(tmp_path: Path, is_supervised: bool) -> None:
    """As a run at work outlives a worker that was killed, and a worker its supervisor."""
    child = processes.Child("worker", [sys.executable, "-c", ORPHAN], os.environ, tmp_path / "logs" / "worker.log")
    child.start()
    assert child.process is not None
    child.process.wait(timeout=60)
    orphan = psutil.Process(int(child.log.read_text()))
    assert processes.is_alive(orphan)
    if is_supervised:
        child.stop()
    else:
        assert up.down(tmp_path)
    assert not processes.is_alive(orphan)


def test_up_is_refused_beside_what_outlived_the_last(tmp_path: Path) -> None:
    """Whatever the port: a second server would share the database of the one whose supervisor was killed."""
    place = server.Place(tmp_path, port=free_port())
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    left = processes.Child("server", sleeper, os.environ, tmp_path / "logs" / "server.log")
    left.start()
    try:
        with pytest.raises(ConfigError, match=r"`wtl down --state .*` ends it"):
            up.check_free(place)
        assert up.down(tmp_path)
        up.check_free(place)
    finally:
        left.stop()


def test_up_listens_where_it_is_told(tmp_path: Path) -> None:
    assert server.Place(tmp_path, "::").address == "http://[::1]:4200"
    assert server.Place(tmp_path, "0.0.0.0").address == "http://127.0.0.1:4200"
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    up.check_free(server.Place(tmp_path, "::1", free_port()))


def test_maintain_makes_no_workspace(wtl_here: Wtl, tmp_path: Path) -> None:
    done = wtl_here("maintain", "-w", tmp_path / "typo")
    assert done.returncode == 2
    assert "expected a workspace" in done.stderr
    assert not (tmp_path / "typo").exists()


def test_seconds_of_the_command_line_win_over_epochs_of_the_last_recipe(source: Path, tmp_path: Path) -> None:
    brief = {"encoder": {"name": "ssl", "epochs": 1, "side_px": 16, "width": 8}}
    store = storage.open_store(str(tmp_path / "w"))
    pipeline.refresh_workspace(store, [str(source)], build_recipe(brief, name="test"), Machine())
    params = next_params(store, seconds=60.0, start=None, seed=3)
    assert (params.epochs, params.seconds, params.seed, params.width) == (None, 60, 3, 8)
    assert next_params(store, seconds=None, start=None, seed=None).epochs == 1


def test_a_successor_is_not_asked_for_what_its_encoder_makes_no_use_of(source: Path, tmp_path: Path) -> None:
    store = storage.open_store(str(tmp_path / "w"))
    recipe = build_recipe({"encoder": {"name": "pixels"}}, name="test")
    pipeline.refresh_workspace(store, [str(source)], recipe, Machine())
    with pytest.raises(ConfigError, match="options that the encoder 'pixels' makes use of, found --seconds and --seed"):
        next_params(store, seconds=9.0, start=None, seed=3)


def test_a_wrong_setting_is_wrong_use(wtl_here: Wtl, tmp_path: Path) -> None:
    done = wtl_here("run", tmp_path, "-w", tmp_path / "w", env={"WTL_WORKERS": "0"})
    assert done.returncode == 2
    assert "WTL_WORKERS='0'" in done.stderr
