"""The container files and units under `deployments/` as their own tools read them, without a container engine."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.cli.run_command import run_command
from flows.serving.site_values import FOLDER
from tasks.settings import Settings

SECRETS = dict.fromkeys(("PREFECT_AUTH", "POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"), "test")


def call(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=120, env=env)


def program(name: str, package: str) -> str:
    """Where a program is, or a skip that says which package has it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"not installed: apt-get install {package}")
    return found


def composed(*files: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """What `docker compose config` makes of the files; it needs no engine."""
    listed = [word for file in files for word in ("-f", FOLDER / file)]
    compose = program("docker-compose", "docker-compose")
    return call(compose, "--env-file", "/dev/null", *listed, "config", "--format", "json", env=env)


def services(*files: str) -> dict[str, dict[str, Any]]:
    done = composed(*files, env=SECRETS)
    assert done.returncode == 0, done.stderr
    assert "level=warning" not in done.stderr, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


def test_the_dockerfile_passes_its_linter() -> None:
    done = call(Path(sys.executable).with_name("hadolint"), FOLDER / "Dockerfile")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_copies_every_package() -> None:
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert set(re.findall(r"^COPY (\w+) \1$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)) == packages


def test_compose_takes_the_files() -> None:
    found = services("compose.yaml")
    assert set(found) == {"database", "server", "store", "deploy", "worker"}
    for name in ("server", "deploy", "worker"):
        assert found[name]["build"]["dockerfile"] == "deployments/Dockerfile", name
        assert Path(found[name]["build"]["context"]) == FOLDER.parent, name
        assert found[name]["cap_drop"] == ["ALL"], name
    assert found["server"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"] == "test"
    assert [port["host_ip"] for port in found["server"]["ports"]] == ["127.0.0.1"]


def test_compose_gives_the_worker_alone_a_gpu() -> None:
    found = services("compose.yaml", "compose.cuda.yaml")
    assert [name for name, service in found.items() if "devices" in json.dumps(service.get("deploy", {}))] == ["worker"]
    assert "cu130" in found["worker"]["build"]["args"]["TORCH_INDEX"]


@pytest.mark.parametrize("missing", SECRETS)
def test_compose_starts_nothing_without_a_secret(missing: str) -> None:
    done = composed("compose.yaml", env={name: value for name, value in SECRETS.items() if name != missing})
    assert done.returncode != 0
    assert f"required variable {missing} is missing" in done.stderr


@pytest.mark.parametrize(
    ("host", "password", "starts"),
    [
        ("127.0.0.1", None, True),
        ("localhost", None, True),
        ("::1", None, True),
        ("0.0.0.0", "a:b", True),
        ("0.0.0.0", "", False),
        ("0.0.0.0", None, False),
        ("::", None, False),
        ("192.168.1.5", None, False),
    ],
)
def test_the_server_unit_starts_no_open_server_that_others_reach(host: str, password: str | None, starts: bool) -> None:
    text = (FOLDER / "systemd" / "wtl-server.service").read_text()
    (command,) = re.findall(r"^ExecStartPre=(.*)$", text, re.MULTILINE)
    env = {"PREFECT_SERVER_API_HOST": host} | (
        {"PREFECT_SERVER_API_AUTH_STRING": password} if password is not None else {}
    )
    done = call(*shlex.split(command.replace("$$", "$")), env=env)  # systemd writes a dollar as two
    assert (done.returncode == 0) is starts, done.stderr
    assert starts or "set PREFECT_SERVER_API_AUTH_STRING=user:password" in done.stderr


def test_the_units_are_as_systemd_wants_them(tmp_path: Path) -> None:
    """On this machine there is no /opt/wtl, so its programs stand for what is always there."""
    analyze = program("systemd-analyze", "systemd")
    units = []
    for unit in sorted((FOLDER / "systemd").glob("*.service")):
        text = re.sub(r"^(Exec\w+=)\S+", rf"\g<1>{shutil.which('true')}", unit.read_text(), flags=re.MULTILINE)
        units.append(tmp_path / unit.name)
        units[-1].write_text(text)
    done = call(analyze, "verify", "--man=no", *units)
    assert len(units) == 2
    told = [line for line in done.stderr.splitlines() if "wtl-" in line]
    assert (done.returncode, told) == (0, []), done.stderr


def test_ray_takes_the_file_of_a_cluster_of_plain_machines() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    read = yaml.safe_load((FOLDER / "ray" / "cluster.yaml").read_text())
    validate_config(prepare_config(read))
    assert read["min_workers"] == read["max_workers"] == len(read["provider"]["worker_ips"])
    for commands in (read["head_start_ray_commands"], read["worker_start_ray_commands"]):
        assert "RAY_AUTH_MODE=token" in commands[-1]


def test_the_ray_job_has_one_image_and_the_same_settings_for_head_and_workers() -> None:
    job = yaml.safe_load((FOLDER / "kubernetes" / "ray-job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"\nray=={cluster['rayVersion']}\n" in (FOLDER.parent / "constraints.txt").read_text()
    [workers] = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    [[head], [worker]] = [group["template"]["spec"]["containers"] for group in (cluster["headGroupSpec"], workers)]
    assert {**head, "name": ""} == {**worker, "name": ""}
    assert [head["securityContext"]["capabilities"]["drop"], head["envFrom"]] == [
        ["ALL"],
        [{"secretRef": {"name": "wtl-store"}}],
    ]
    variables = {each["name"]: each["value"] for each in head["env"]}
    fields = {f"WTL_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in variables if name.startswith("WTL_")} <= fields
    assert variables["WTL_ENGINE"] == "ray"
    command = job["spec"]["entrypoint"].split()
    run_command.make_context("run", command[2:])
