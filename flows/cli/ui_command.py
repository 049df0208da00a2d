"""`wtl ui`: a local app to look at the workspace and to decide on picks, until it is ended."""

import json
import webbrowser
from contextlib import suppress

import click

from flows.cli import terminal
from flows.cli.options import common, workspace_option
from wtl_core.workspace import commits, marker


@click.command("ui")
@workspace_option
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of this machine; a free one if not given.")
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@common
def ui_command(workspace: str, port: int, is_opened: bool, as_json: bool) -> None:
    """Look through the picks in a browser, and keep or skip them.

    Prints an address that only this machine can open, with a token that is new each time. It shows the workspace as it
    is now, also while a run is at work; what is decided there is entered in the ledger, as by `wtl skip`. Ctrl-C ends
    it.
    """
    store = marker.open_workspace(workspace)
    commits.latest(store)  # a workspace that cannot be read is refused before anything is opened
    from wtl_core.app import address

    taken, token = address.listen(port), address.new_token()
    link = f"http://{address.HOST}:{taken.getsockname()[1]}/?token={token}"
    click.echo(json.dumps({"address": link})) if as_json else terminal.say(link)
    if is_opened and not webbrowser.open(link):
        terminal.say("no browser can be opened here: open the address on this machine", is_message=True)
    from wtl_core.app import server  # torch and lancedb take seconds; requests wait at the socket meanwhile

    with suppress(KeyboardInterrupt):  # how it is ended
        server.serve(store, taken, token=token)
