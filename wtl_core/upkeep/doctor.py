"""What this machine can do for `wtl`, and what is missing. It imports neither torch nor prefect."""

import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wtl_core.errors import WtlError
from wtl_core.workspace import marker

_PACKAGES = ("prefect", "torch", "torchvision", "pyarrow", "polars", "lancedb", "s3fs", "timm")
_TRAPS = {
    "fastapi": ("0.151", "the Prefect server does not start"),
    "sqlalchemy": ("2.1", "no scheduled run is created"),
}
_FREE_GIB = 5.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `advice` says what to do where it is not `is_good`."""

    what: str
    is_good: bool
    found: str
    advice: str = ""


@dataclass(frozen=True)
class Findings:
    """Everything looked at, in the order in which it is shown."""

    findings: list[Finding]

    @property
    def is_good(self) -> bool:
        """Whether nothing is missing."""
        return all(finding.is_good for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """The object that `wtl doctor --json` prints."""
        return {"is_good": self.is_good, "findings": [asdict(finding) for finding in self.findings]}


def examine(workspace_uri: str | None) -> Findings:
    """Look at Python, packages, processor, memory, disk and GPU, and at the workspace if one is named."""
    findings = [_python(), *map(_package, _PACKAGES), *_traps(), _processor(), _memory(), _disk(), _gpu()]
    if workspace_uri is not None:
        findings.append(_workspace(workspace_uri))
    return Findings(findings)


def _python() -> Finding:
    return Finding("python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer")


def _package(name: str) -> Finding:
    try:
        return Finding(name, is_good=True, found=version(name))
    except PackageNotFoundError:
        return Finding(name, is_good=False, found="not installed", advice="pip install . -c constraints.txt")


def _traps() -> list[Finding]:
    findings = []
    for name, (limit, harm) in _TRAPS.items():
        found = _package(name)
        is_good = found.is_good and _numbers(found.found) < _numbers(limit)
        findings.append(Finding(name, is_good, found.found, f"needs {name}<{limit}: {harm} with newer ones"))
    return findings


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:3] if part.isdecimal())


def _processor() -> Finding:
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    has_bf16 = "avx512_bf16" in flags or "amx_bf16" in flags
    speed = "bf16 matrix products" if has_bf16 else "fp32 only: networks and rankings take about twice as long"
    return Finding("processor", is_good=True, found=f"{os.cpu_count()} cores, {speed}")


def _memory() -> Finding:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding("memory", gib >= 3, f"{gib:.0f} GiB", "a refresh of 100,000 images takes about 3 GiB")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding(
        "disk", free >= _FREE_GIB, f"{free:.0f} GiB free here", "the pool keeps image bytes; free some space"
    )


def _gpu() -> Finding:
    driver = Path("/proc/driver/nvidia/version")
    found = driver.read_text().splitlines()[0].strip() if driver.exists() else "none; the CPU does the work"
    return Finding("gpu", is_good=True, found=found)


def _workspace(uri: str) -> Finding:
    try:
        store = marker.open_workspace(uri)
        return Finding("workspace", is_good=True, found=store.root)
    except (WtlError, OSError) as error:
        return Finding("workspace", is_good=False, found="not usable", advice=str(error))
