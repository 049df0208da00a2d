"""Whether a worker's machine sees what the machine that runs the refresh sees."""

import socket
from collections.abc import Iterable
from pathlib import Path

from wtl_core.errors import ConfigError


def seen_here(paths: Iterable[str]) -> tuple[str, ...]:
    """Those of the paths that are on this machine, sorted; URIs of a bucket are not."""
    return tuple(sorted({path for path in paths if Path(path).exists()}))


def check_seen(paths: Iterable[str]) -> None:
    """See that a worker has what `seen_here` found on the machine that runs the refresh.

    Raises:
        ConfigError: a path is not here. Work without it would take an unreachable image for one that has vanished.
    """
    for path in paths:
        if not Path(path).exists():
            raise ConfigError(
                f"node {socket.gethostname()}: expected to see {path} as the machine that runs the refresh does, found "
                "nothing there; mount it at the same path on all nodes, or use s3:// prefixes"
            )


def not_shared(path: str) -> ConfigError:
    """What a worker says that it wrote is not there."""
    return ConfigError(
        f"{path}: expected what a worker has written, found nothing; its node has a folder of its own at this path: "
        "mount the same one on all nodes, or use an s3:// prefix for the workspace"
    )
