"""The image as the Dockerfile says it, built on a clean Debian, and a refresh by the image's own user.

No registry of images is needed. In the base's stead stands what `debootstrap` makes of the Debian release that the
Dockerfile's `FROM` names, with the Python that runs the test: its folder copied to /usr/local, as in the official base,
or Debian's own if it is that. So the build argument PYTHON is this Python's version, whatever the Dockerfile's default.
The steps are carried out by `buildah`, which reads the Dockerfile itself. How this machine reaches packages (pip's
settings, apt's site, certificates) is handed over while the test runs, and is written down nowhere.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from service_stack import note

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deployments" / "Dockerfile"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "netavark": "/usr/lib/podman/netavark"}
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
NO_PREFECT = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(os.geteuid() != 0, reason="a clean root is made by root alone"),
]


class Builder:
    """`buildah` with its images in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.options = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]

    def call(self, command: str, *words: object) -> str:
        done = subprocess.run(
            ["buildah", *self.options, command, *map(str, words)], capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0, f"buildah {command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout.strip()

    def run(self, container: str, *words: object, options: tuple[str, ...] = ()) -> str:
        return self.call("run", "--isolation", "chroot", *options, container, "--", *words)


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    missing = [package for package, program in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        pytest.skip(f"not installed: apt-get install {' '.join(missing)}")
    builder = Builder(tmp_path_factory.mktemp("image"))
    yield builder
    builder.call("rm", "--all")
    builder.call("rmi", "--all", "--force")


def make_base(builder: Builder, image: str, release: str) -> None:
    """What stands for the official base: the release's smallest system, and this Python in /usr/local."""
    container = builder.call("from", "scratch")
    root = Path(builder.call("mount", container))
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"], capture_output=True, text=True
    ).stdout.split()
    site = [word for word in sites if word.startswith("http")][:1]
    prefix = Path(sys.base_prefix)
    needed = ["python3", "python3-venv"] if prefix == Path("/usr") else libraries_of(prefix)
    include = ",".join(["ca-certificates", "netbase", "tzdata", *needed])
    command = ["debootstrap", "--variant=minbase", f"--include={include}", release, str(root), *site]
    made = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert made.returncode == 0, made.stdout[-3000:]
    if prefix != Path("/usr"):
        skip = shutil.ignore_patterns("site-packages", "__pycache__", "test")
        shutil.copytree(prefix, root / "usr" / "local", symlinks=True, dirs_exist_ok=True, ignore=skip)
        subprocess.run(["chroot", str(root), "ldconfig"], check=True, timeout=60)
    python = root / "usr" / "local" / "bin" / "python"
    python.unlink(missing_ok=True)
    python.symlink_to(f"python{VERSION}" if prefix != Path("/usr") else "/usr/bin/python3")
    builder.call("umount", container)
    builder.call("commit", "--quiet", "--rm", container, image)


def libraries_of(prefix: Path) -> list[str]:
    """The Debian packages with the shared libraries that this Python and its modules are linked to."""
    linked = [*prefix.glob(f"bin/python{VERSION}"), *prefix.glob("lib/*.so*"), *prefix.glob("lib/python*/**/*.so")]
    ours = [path for path in linked if "site-packages" not in path.parts]
    listed = subprocess.run(["ldd", *map(str, ours)], capture_output=True, text=True).stdout
    files = {Path(name).resolve() for name in re.findall(r"=> (/(?:usr/)?lib\S+)", listed)}
    found = subprocess.run(["dpkg", "-S", *map(str, sorted(files))], capture_output=True, text=True).stdout
    return sorted({line.partition(":")[0] for line in found.splitlines()})


def pip_settings() -> dict[str, str]:
    """This machine's settings of pip as environment variables."""
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    pairs = re.findall(r"^[^.]+\.([a-z-]+)='(.*)'$", told, re.MULTILINE)
    return {f"PIP_{name.replace('-', '_').upper()}": value for name, value in pairs}


def torch_index(settings: dict[str, str]) -> str:
    """The index of torch's CPU build: compose's, or where this machine's pip looks anyway if that cannot be reached."""
    from pip._internal.models.index import PyPI

    (shipped,) = set(re.findall(r"TORCH_INDEX:-(\S+?)}", (ROOT / "deployments" / "compose.yaml").read_text()))
    try:
        with urllib.request.urlopen(f"{shipped}/torch/", timeout=20):
            return shipped
    except OSError:
        return settings.get("PIP_INDEX_URL") or PyPI.simple_url


def reach(settings: dict[str, str]) -> list[str]:
    """Options that hand over how this machine reaches packages."""
    places = [value for value in settings.values() if value.startswith("/") and Path(value).exists()]
    mounts = [f"--volume={place}:{place}:ro" for place in sorted({*places, str(CERTIFICATES)})]
    return [*mounts, *(f"--env={name}={value}" for name, value in settings.items())]


def limits() -> list[str]:
    """No more than this shell may have, where buildah would ask for its own."""
    import resource

    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    return [
        f"--ulimit={name}={resource.getrlimit(kind)[1]}:{resource.getrlimit(kind)[1]}" for name, kind in kinds.items()
    ]


def test_the_images_steps_run_on_a_clean_debian_and_its_user_refreshes(builder: Builder, tmp_path: Path) -> None:
    (bases,) = {
        tuple(words)
        for words in re.findall(r"^FROM (\S+?:)\$\{PYTHON\}(-\w+-(\w+))", DOCKERFILE.read_text(), re.MULTILINE)
    }
    name, suffix, release = bases
    make_base(builder, f"docker.io/library/{name}{VERSION}{suffix}", release)
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True, timeout=120)
    settings = pip_settings()
    builder.call(
        "build", "--isolation", "chroot", "--pull-never", "--network", "host", *limits(), *reach(settings),
        "--build-arg", f"PYTHON={VERSION}", "--build-arg", f"TORCH_INDEX={torch_index(settings)}",
        "--file", DOCKERFILE, "--tag", "wtl", checkout,
    )  # fmt: skip
    config = json.loads(builder.call("inspect", "--type", "image", "wtl"))["OCIv1"]["config"]
    user, entrypoint = config["User"], config["Entrypoint"]
    container = builder.call("from", "--pull-never", *limits(), "wtl")
    assert builder.run(container, "id", "-u") == user.partition(":")[0] != "0"
    assert "wtl" in builder.run(container, *entrypoint, "--version")
    programs = "import torch, prefect; print(torch.__version__, prefect.__version__)"
    note("image", {"torch and prefect": builder.run(container, "python", "-c", programs)})
    sources = tmp_path / "sources"
    subprocess.run([sys.executable, "-m", "tests.sample_source", str(sources)], check=True, cwd=ROOT, timeout=300)
    run = [*entrypoint, "run", "/sources", "--workspace", "/data/workspace", "--encoder", "pixels", "--json"]
    env = tuple(f"--env={key}={value}" for key, value in NO_PREFECT.items())
    told = builder.run(container, *run, options=(*env, f"--volume={sources}:/sources:ro"))
    result = json.loads(told)
    assert result["vectors"] == result["samples"] > 2000
    assert builder.run(container, "stat", "-c", "%u", result["selection"]) == user.partition(":")[0]
