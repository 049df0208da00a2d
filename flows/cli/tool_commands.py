"""`wtl hand-out` and `wtl take-back`: what the flows of these names do with a labelling tool, by hand and at once."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.cli import terminal
from flows.cli.options import common
from flows.serving.site_values import Site, read_site
from wtl_core.errors import ConfigError
from wtl_core.workspace import lease, marker
from wtl_core.workspace.storage import Store

if TYPE_CHECKING:
    from wtl_core.labelling.tools.hand_out import HandedOut
    from wtl_core.labelling.tools.params import ToolParams
    from wtl_core.labelling.tools.take_back import TakenBack


def _tool_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        [
            click.option(
                "--site",
                "site_path",
                type=click.Path(path_type=Path),
                help="The file whose [labelling] names the project. Default: deployments/site.toml.",
            ),
            click.option(
                "--workspace", "-w", envvar="WTL_WORKSPACE", help="A folder or s3:// prefix. Default: the site's."
            ),
            click.option("--dry-run", is_flag=True, help="Say what would be done; write and record nothing."),
        ]
    ):
        command = option(command)
    return common(command)


@click.command("hand-out")
@_tool_options
def hand_out_command(site_path: Path | None, workspace: str | None, dry_run: bool, as_json: bool) -> None:
    """Push the next batch into the labelling tool.

    Nothing is pushed while enough tasks wait in the project, and no image twice. The token is read from
    LABEL_STUDIO_API_KEY. `wtl up` does the same on a schedule.
    """
    from tasks.settings import open_project
    from wtl_core.labelling.tools import hand_out

    store, params = _opened(site_path, workspace)
    with nullcontext() if dry_run else lease.hold(store) as held, open_project(params) as project:
        check = held.check if held is not None else lambda: None
        done = hand_out.run(store, project, params, check=check, is_dry=dry_run)
    click.echo(json.dumps(done.to_json())) if as_json else _show_handed_out(done, is_dry=dry_run)


@click.command("take-back")
@_tool_options
def take_back_command(site_path: Path | None, workspace: str | None, dry_run: bool, as_json: bool) -> None:
    """Enter the labels that are finished in the labelling tool.

    These are the annotations that are new or changed since the last call. The token is read from LABEL_STUDIO_API_KEY.
    `wtl up` does the same on a schedule.
    """
    from tasks.settings import open_project
    from wtl_core.labelling.tools import take_back

    store, params = _opened(site_path, workspace)
    with nullcontext() if dry_run else lease.hold(store), open_project(params) as project:
        done = take_back.run(store, project, params, is_dry=dry_run)
    click.echo(json.dumps(done.to_json())) if as_json else _show_taken_back(done, is_dry=dry_run)


def _opened(site_path: Path | None, workspace: str | None) -> "tuple[Store, ToolParams]":
    site: Site = read_site(site_path, workspace=workspace)
    if site.labelling is None:
        raise ConfigError(f"expected [labelling] in {site_path or 'the site file'}, found none; --site names a file")
    if not site.workspace:
        raise ConfigError("expected a workspace, found none; name it by --workspace or in the site file")
    return marker.open_workspace(site.workspace_uri), site.labelling


def _show_handed_out(done: "HandedOut", *, is_dry: bool) -> None:
    terminal.say(f"{done.told(is_dry=is_dry)}: {done.project}")
    if done.left_out:
        images = "1 image is" if len(done.left_out) == 1 else f"{len(done.left_out):,} images are"
        why = "gone from the source, or of a format that browsers do not show"
        terminal.say(f"{images} left out, first {done.left_out[0]}: {why}", is_message=True)
    if done.doubled:
        count = len(done.doubled)
        tasks = "1 task shows an image that another shows too" if count == 1 else f"{count:,} tasks show images twice"
        terminal.say(f"{tasks}; delete {done.doubled[0]}{' and the others' if count > 1 else ''}", is_message=True)


def _show_taken_back(done: "TakenBack", *, is_dry: bool) -> None:
    terminal.say(f"{done.told(is_dry=is_dry)}: {done.project}")
    if done.classes:
        terminal.say(f"classes: {', '.join(f'{count:,} {name}' for name, count in done.classes.items())}")
    if done.disagreeing:
        remedy = f"{done.disagreeing[0]}; keep one annotation of each, or mark it as ground truth"
        _advise(len(done.disagreeing), "is annotated in two ways", "are annotated in two ways", remedy)
    if done.foreign:
        _advise(done.foreign, "is of no image of this workspace", "are of no image of this workspace")
    if done.skipped:
        _advise(done.skipped, "was skipped there", "were skipped there")


def _advise(count: int, one: str, several: str, first: str = "") -> None:
    told = f"1 task {one}" if count == 1 else f"{count:,} tasks {several}"
    terminal.say(f"{told}, and left out here{f', first {first}' if first else ''}", is_message=True)
