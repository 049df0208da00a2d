"""`wtl status`, `wtl cut` and `wtl report`: the results of the last refresh. They compute nothing."""

import json
import tempfile
import webbrowser
from pathlib import Path
from typing import Any

import click

from flows.cli import terminal
from flows.cli.options import common, split_option, table_output, workspace_option
from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.labelling import cut, label_files, table_files
from wtl_core.report import decision, status
from wtl_core.workspace import commits, marker, sides
from wtl_core.workspace.storage import Store


@click.command("status")
@workspace_option
@common
def status_command(workspace: str, as_json: bool) -> None:
    """Show what the workspace holds."""
    shown = status.read(marker.open_workspace(workspace))
    click.echo(json.dumps(shown.to_json())) if as_json else terminal.show_status(shown)


@click.command("cut")
@workspace_option
@click.option("--at", required=True, help="Operating point: 500 or 7.5%.")
@table_output("if not given, CSV on stdout")
@split_option
@common
def cut_command(workspace: str, at: str, output: Path | None, split: str, as_json: bool) -> None:
    """Print the picks at an operating point.

    They are the beginning of the latest ranking, so nothing is computed. Images that were labelled or skipped since the
    last run are left out. The column `rank` counts from 0; the report and the app count from 1.
    """
    store = marker.open_workspace(workspace)
    if output is not None:
        label_files.check_spared(output)
    picks = cut.run(store, at, split=split)
    count, left_out = picks.table.height, picks.left_out
    told: dict[str, Any] = {"decision": None}
    if picks.held_out:  # the ladder speaks of them too
        terminal.say(
            f"{picks.held_out:,} images are left out, held out by `wtl split` since the last `wtl run`, which ranks "
            "the rest anew",
            is_message=True,
        )
    elif split == sides.TRAIN:  # the ladder speaks of a ranking, and the other sides have none
        decided = decision.read(store, picks.selection, picks=picks.ranks, settled=picks.ranks - count)
        told = {"decision": decided.to_json()}
        if count:
            terminal.say(decided.sentence, is_message=True)
    if not count:
        terminal.say("nothing is left to label: every image there is labelled or skipped", is_message=True)
    if left_out:
        are = "1 image is" if left_out == 1 else f"{left_out:,} images are"
        terminal.say(f"{are} left out, labelled or skipped since the last `wtl run`", is_message=True)
    if output is not None:
        table_files.write(picks.table, output)
        if as_json:
            click.echo(json.dumps({"picks": count, "left_out": left_out, "output": str(output), **told}))
        terminal.say(f"{count:,} {'pick' if count == 1 else 'picks'} in {output}", is_message=True)
    elif as_json:
        rows = [{**row, "pool_coverage": row["coverage"]} for row in picks.rows]  # the name that it has elsewhere
        click.echo(json.dumps({"picks": rows, "left_out": left_out, **told}))
    else:
        click.echo(table_files.to_csv(picks.table), nl=False)


@click.command("report")
@workspace_option
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@click.option(
    "--serve", "is_served", is_flag=True, help="Serve the reports over HTTP until Ctrl-C, also from a bucket."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="With --serve: the address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=15480, show_default=True, help="With --serve: its port.")
@common
def report_command(workspace: str, is_opened: bool, is_served: bool, host: str, port: int, as_json: bool) -> None:
    """Show where the HTML report of the latest refresh is.

    --serve lets in whoever reaches the address; by default that is this machine alone.
    """
    store = marker.open_workspace(workspace)
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{workspace}: expected a refresh, found none yet; `wtl run SOURCE` makes one")
    path = store.path(last.report)
    if not store.exists(last.report):
        remedy = "`wtl run` makes the next one, with something new in the sources or with another --budget"
        raise CorruptArtifactError(f"{path}: expected the report of refresh {last.number}, found no file; {remedy}")
    if is_served:
        _serve(store, host, port, is_opened=is_opened, as_json=as_json)
        return
    click.echo(json.dumps({"report": path})) if as_json else terminal.say(path)
    if is_opened:
        file = Path(path) if store.is_local else _copied(store, last.report)
        if not webbrowser.open(file.as_uri()):
            terminal.say(f"no browser can be opened here: copy {file} to a machine that has one", is_message=True)


def _serve(store: Store, host: str, port: int, *, is_opened: bool, as_json: bool) -> None:
    """Answer until Ctrl-C."""
    from flows.serving.report_server import ReportServer  # here: http.server takes longer to load than the rest

    with ReportServer(store, host, port) as server:
        if as_json:
            click.echo(json.dumps({"report": server.address}))
        else:
            terminal.say(f"{server.address}  (the latest report of {store.root}; Ctrl-C ends it)")
        if is_opened:
            webbrowser.open(server.address)
        server.serve_forever()


def _copied(store: Store, key: str) -> Path:
    """A copy of a file in a bucket for a browser, which cannot read `s3://`; the system's clean-up takes it."""
    file = Path(tempfile.mkdtemp(prefix="wtl-report-")) / Path(key).name
    file.write_bytes(store.read_bytes(key))
    return file
