"""Bench reports: one Markdown file a bench, one section a part, with hardware, date, commit and command."""

import functools
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(os.environ.get("BENCH_REPORTS") or Path(__file__).parent / "reports")
"""Another folder where a bench is a step of another one."""


def write(bench: str, section: str, text: str, rows: list[dict[str, object]], *, is_quick: bool) -> None:
    """Print the section, and put it into the bench's report in place of an earlier one. Quick runs are only printed."""
    names = list(rows[0])
    table = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    table += ["| " + " | ".join(str(row.get(name, "")) for name in names) + " |" for row in rows]
    command = " ".join(["python", f"tests/bench/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    where = f"{machine()}; {datetime.now(UTC):%Y-%m-%d}; commit {commit()}; `{command}`"
    body = f"## {section}\n{text.strip()}\n\n{where}\n\n" + "\n".join(table) + "\n"
    print(body, flush=True)
    if is_quick:
        return
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{bench}.md"
    old = path.read_text() if path.exists() else f"# Bench: {bench}\n"
    kept = re.sub(rf"\n## {re.escape(section)}\n.*?(?=\n## |\Z)", "", old, flags=re.DOTALL).rstrip("\n")
    path.write_text(f"{kept}\n\n{body}")


def default_device() -> str:
    """`cuda` where torch sees a card."""
    import torch  # here: see `machine`

    return "cuda" if torch.cuda.is_available() else "cpu"


def machine() -> str:
    """Processor, cores and card."""
    import torch  # here: children of bench_ingest, whose memory is measured, come by this module too

    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{found[1] if found else 'unknown processor'}, {os.cpu_count()} cores{card}"


@functools.cache  # asked once: the report that a first section is written to would make a second one's tree differ
def commit() -> str:
    """The short hash of the checked-out commit, with a plus where the tree differs from it."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
