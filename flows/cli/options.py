"""What every command of `wtl` shares: its options, and how it opens a workspace."""

from collections.abc import Callable
from typing import Any

import click

from wtl_core.workspace import marker
from wtl_core.workspace.storage import Store

workspace_option = click.option(
    "--workspace", "-w", required=True, envvar="WTL_WORKSPACE", help="A folder or s3:// prefix."
)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options `--json` and `--debug`."""
    command = click.option("--debug", is_flag=True, help="Show tracebacks and every log line.")(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def open_workspace(uri: str) -> Store:
    """The store of an existing workspace; refused if there is none."""
    return marker.open_workspace(uri)
