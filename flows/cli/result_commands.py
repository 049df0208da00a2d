"""`wtl status`, `wtl cut` and `wtl report`: what the last refresh came to. They compute nothing."""

import json
import webbrowser
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, workspace_option
from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.labelling import cut
from wtl_core.report import status
from wtl_core.workspace import commits, marker


@click.command("status")
@workspace_option
@common
def status_command(workspace: str, as_json: bool) -> None:
    """Show what the workspace holds."""
    shown = status.run(marker.open_workspace(workspace))
    click.echo(json.dumps(shown)) if as_json else terminal.show_status(shown)


@click.command("cut")
@workspace_option
@click.option("--at", required=True, help="Operating point: 500 or 7.5%.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A .csv file; stdout if not given."
)
@common
def cut_command(workspace: str, at: str, output: Path | None, as_json: bool) -> None:
    """Print the picks at an operating point.

    They are a prefix of the latest ranking, so nothing is computed. Images that were labelled since the last run are
    left out.
    """
    rows, left_out = cut.run(marker.open_workspace(workspace), at)
    if not rows:
        terminal.say("nothing is left to label: every image of the ranking is labelled", is_message=True)
    if left_out:
        terminal.say(f"{left_out:,} images are left out that were labelled since the last `wtl run`", is_message=True)
    if output is not None:
        try:
            output.write_text(cut.to_csv(rows), newline="")
        except OSError as error:
            raise ConfigError(f"{output}: expected a file to write: {error.strerror}; name another path") from error
        click.echo(json.dumps({"picks": len(rows), "left_out": left_out, "output": str(output)})) if as_json else None
        terminal.say(f"{len(rows):,} picks in {output}", is_message=True)
        return
    click.echo(json.dumps({"picks": rows, "left_out": left_out}) if as_json else cut.to_csv(rows), nl=as_json)


@click.command("report")
@workspace_option
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@common
def report_command(workspace: str, is_opened: bool, as_json: bool) -> None:
    """Show where the HTML report of the latest refresh is."""
    store = marker.open_workspace(workspace)
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{workspace}: expected a refresh, found none yet; `wtl run SOURCE` makes one")
    path = store.path(last.report)
    if not store.exists(last.report):
        mend = "`wtl run` makes the next one, with something new in the sources or with another --budget"
        raise CorruptArtifactError(f"{path}: expected the report of refresh {last.number}, found no file; {mend}")
    click.echo(json.dumps({"report": path})) if as_json else terminal.say(path)
    if is_opened:
        webbrowser.open(path if "://" in path else Path(path).as_uri())
