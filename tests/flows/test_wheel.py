"""The package as it is installed from a wheel, far from any checkout."""

import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from service_stack import free_port

from flows.serving import site_values

Wtl = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


def call(*words: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "PREFECT_", "WTL_"))
    }
    return subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=250, cwd=cwd, env={**clean, **(env or {})}
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with our wheel; its dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    checkout = folder / "checkout"
    checkout.mkdir()
    for name in ("flows", "tasks", "wtl_core", "deployments"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "deployments" / ".env").write_text("POSTGRES_PASSWORD=of-the-builder\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    built = call(*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, checkout, cwd=folder)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("wtl-*.whl")
    made = call(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    programs = folder / "venv" / "bin"
    done = call(*pip, "--python", programs / "python", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    assert done.returncode == 0, done.stderr
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    ours = {str(Path(path).resolve()) for path in sys.path if path.endswith("-packages")}
    (packages / "dependencies.pth").write_text("\n".join(ours | {site.getsitepackages()[0]}) + "\n")
    return programs


def test_the_installed_package_has_its_deployment_files_and_no_secret(installed: Path, tmp_path: Path) -> None:
    code = (
        "from flows.serving.site_values import *\n"
        "print(FOLDER, *sorted(path.name for path in FOLDER.iterdir()))\n"
        "assert len(read_template('prefect', Site())) > 1000 and len(read_template('automations', Site())) > 1000\n"
        "assert read_settings('server') and read_settings('worker') and read_site(None)\n"
    )
    done = call(installed / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder, *names = done.stdout.split()
    assert Path(folder).is_relative_to(installed.parent), folder
    assert {"prefect.yaml", "automations.yaml", "site.toml", "server.env", "worker.env"} <= set(names)
    assert ".env" not in names


def test_the_installed_program_says_its_version_and_takes_a_site(installed: Path, tmp_path: Path) -> None:
    """The site has a wrong time, which is looked at when all the shipped files have been read."""
    done = call(installed / "wtl", "--version", cwd=tmp_path)
    assert (done.returncode, "0.1.0" in done.stdout) == (0, True), done.stderr
    (tmp_path / "site.toml").write_text('nightly = "0 3 * *"\n')
    words = ["up", tmp_path, "-w", tmp_path / "w", "--site", tmp_path / "site.toml", "--state", tmp_path / "state"]
    done = call(installed / "wtl", *words, "--port", free_port(), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "nightly = '0 3 * *': expected a cron" in done.stderr


def test_the_installed_program_runs_the_whole_circle(
    installed: Path, prefect_home: Path, server_address: str, source: Path, tmp_path: Path
) -> None:
    """Images, picks, labels, picks of what is left: from a folder that is no checkout, first on a server of its own."""
    env = {"PREFECT_HOME": str(prefect_home), "WTL_STATE": str(tmp_path), "WTL_WORKSPACE": str(tmp_path / "w")}
    env["NUMBA_OPT"] = "0"  # the installed files have no compiled functions yet: 7 s to make them, and not 10

    def wtl(*words: object) -> str:
        done = call(installed / "wtl", *words, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = json.loads(wtl("run", source, "--encoder", "pixels", "--budget", "8", "--json"))
    assert (first["samples"], first["picks"]) == (64, 8)
    wtl("cut", "--at", "8", "-o", "picks.csv")
    assert json.loads(wtl("labels", "add", "picks.csv", "--json"))["added"] == 8
    env["PREFECT_API_URL"] = server_address
    second = json.loads(wtl("run", "--json"))
    assert (second["ranked"], second["changes"]["labelled"]) == (56, 8)
    assert second["decision"]["sentence"] in Path(wtl("report").strip()).read_text()
    assert json.loads(wtl("status", "--json"))["refresh"] == 2
    typed = call(installed / "python", "-c", "import wtl_core; print(wtl_core.__path__[0])", cwd=tmp_path)
    folder = Path(typed.stdout.strip())
    assert folder.is_relative_to(installed.parent)
    assert (folder / "py.typed").is_file()


def test_a_file_that_is_not_there_is_not_worth_another_try(
    wtl_here: Wtl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site_values, "FOLDER", tmp_path / "nowhere")
    (tmp_path / "site.toml").write_text("")
    words = ["up", tmp_path, "-w", tmp_path / "w", "--site", tmp_path / "site.toml", "--state", tmp_path / "state"]
    done = wtl_here(*words, "--port", free_port())
    assert done.returncode == 2, done.stderr
    assert "nowhere" in done.stderr
    assert "try again" not in done.stderr
