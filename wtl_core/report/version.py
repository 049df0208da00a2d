"""The version of this program, with the commit that it was made from where that is known."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path


@cache
def version_text() -> str:
    """As `0.1.0 (1a2b3c4)`; the commit is known in a checkout with git, whose files may have moved on since."""
    root = Path(__file__).parents[2]
    number = version("wtl")
    if not (root / ".git").exists():
        return number
    command = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return number
    return f"{number} ({done.stdout.strip()})"
