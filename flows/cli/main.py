"""The command line, `wtl`: results on stdout, messages on stderr, exit codes by what to do next.

Commands that only read import neither prefect nor torch; `run` plans before it imports either.
"""

import errno
import json
import logging
import signal
import sys
import webbrowser
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.benchmark_command import benchmark_command
from flows.cli.label_commands import labels_group, similar_command
from flows.cli.operations_commands import OPERATIONS
from flows.cli.options import common, open_workspace, workspace_option
from flows.serving import flow_process
from tasks.settings import settings
from wtl_core.errors import ConfigError, CorruptArtifactError, WtlError
from wtl_core.labelling import cut
from wtl_core.recipe import encoder_names
from wtl_core.recipe.recipe import Recipe, build_recipe, parse_recipe
from wtl_core.refresh import planning
from wtl_core.report import status, summary
from wtl_core.report.summary import Summary
from wtl_core.upkeep import doctor
from wtl_core.workspace import commits, marker
from wtl_core.workspace.marker import check_writable
from wtl_core.workspace.storage import Store

_LASTING = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
)
"""What a system refuses today and tomorrow."""
_SERVER_AWAY = "Failed to reach API"
"""How Prefect's own error begins, a plain RuntimeError, where no server answers."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wtl")
def cli() -> None:
    """What to label: rank a pool of images by coverage, so that every operating point is a prefix."""
    settings()  # a wrong one is refused before anything else, and both S3 clients learn their address here


@cli.command("run")
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@workspace_option
@click.option("--recipe", "recipe_path", type=click.Path(path_type=Path), help="A TOML file; default: the last.")
@click.option("--budget", help="Operating point that marks the picks: 500 or 10%.")
@click.option("--encoder", help=f"One of: {', '.join(encoder_names.FORMS)}.")
@click.option("--allow-removal", is_flag=True, help="Go on although over half of a source has vanished.")
@click.option("--forget", multiple=True, metavar="SOURCE", help="Drop a known SOURCE and its images; repeatable.")
@common
def run_command(
    sources: tuple[str, ...],
    workspace: str,
    recipe_path: Path | None,
    budget: str | None,
    encoder: str | None,
    allow_removal: bool,
    forget: tuple[str, ...],
    as_json: bool,
    debug: bool,
) -> None:
    """Refresh a workspace from whatever changed in its SOURCEs.

    A SOURCE is a folder, an s3:// prefix, a tar, zip or Parquet shard, or a list of URIs. Without one, all known
    sources are read again. With nothing new, the last result is printed and nothing is written.
    """
    terminal.configure_logging(is_debug=debug)
    store = _probe(workspace)
    recipe = _recipe(store, recipe_path, budget=budget, encoder=encoder)
    planned = planning.plan(store, sources, recipe, allow_removal=allow_removal, forget=forget)
    if planned.is_noop and planned.last is not None:
        result = summary.summary(store, planned.last, is_new=False)
    else:
        check_writable(store)
        with planning.handed_over(planned):
            result = _run_flow(
                store.root,
                list(sources),
                recipe,
                allow_removal=allow_removal,
                forget=list(forget),
                is_debug=debug,
            )
    if as_json:
        click.echo(json.dumps(result.model_dump(mode="json")))
    else:
        terminal.show_run(result, is_new=not planned.is_noop)


@cli.command("status")
@workspace_option
@common
def status_command(workspace: str, as_json: bool, debug: bool) -> None:
    """What the workspace holds."""
    shown = status.run(open_workspace(workspace))
    click.echo(json.dumps(shown)) if as_json else terminal.show_status(shown)


@cli.command("doctor")
@click.option("--workspace", "-w", envvar="WTL_WORKSPACE", help="Look at this workspace too.")
@common
def doctor_command(workspace: str | None, as_json: bool, debug: bool) -> None:
    """What this machine can do, and what is missing."""
    result = doctor.run(workspace)
    click.echo(json.dumps(result)) if as_json else terminal.show_doctor(result)
    if not result["is_good"]:
        raise ConfigError("something is missing; the lines marked FAIL say what to do")


@cli.command("cut")
@workspace_option
@click.option("--at", required=True, help="Operating point: 500 or 7.5%.")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A .csv file; stdout if not given."
)
@common
def cut_command(workspace: str, at: str, output: Path | None, as_json: bool, debug: bool) -> None:
    """Print an operating point of the latest ranking, without computing anything.

    Images that were labelled since the last run are left out.
    """
    rows, left_out = cut.run(open_workspace(workspace), at)
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


@cli.command("report")
@workspace_option
@click.option("--open", "is_opened", is_flag=True, help="Open it in a browser.")
@common
def report_command(workspace: str, is_opened: bool, as_json: bool, debug: bool) -> None:
    """Where the HTML report of the latest refresh lies."""
    store = open_workspace(workspace)
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


for command in (labels_group, similar_command, benchmark_command, *OPERATIONS):
    cli.add_command(command)


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    is_debug = "--debug" in sys.argv
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        cli.main(standalone_mode=False)
        sys.exit(0)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001, the last line of defence: nobody is shown a traceback unasked
        code, message = _answer(error)
    if is_debug:
        logging.getLogger("wtl_core").exception("traceback, because of --debug")
    if message:
        terminal.say(message, is_message=True)
    sys.exit(code)


class _Terminated(BaseException):
    """A signal has come that ends the process: by the default the server that it brought would stay."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: object) -> None:
    raise _Terminated(number)


def _answer(error: BaseException) -> tuple[int, str]:
    """The exit code and the message."""
    if (number := _signal_behind(error)) is not None:
        return 128 + number, "wtl: interrupted; what was finished is kept, the next run goes on from there"
    if isinstance(error, WtlError):
        return error.exit_code, f"wtl: {error}"
    if isinstance(error, click.ClickException):
        error.show()
        return 2, ""
    if isinstance(error, OSError):
        is_lasting = error.errno in _LASTING
        mend = "mend the path or its permissions" if is_lasting else "try again"
        code = 2 if is_lasting else 4
        return code, f"wtl: the system or the store answered: {error}; {mend}, --debug shows where"
    if _is_password_missing(error):
        mend = "set PREFECT_API_AUTH_STRING to the user:password that it was started with"
        return 2, f"wtl: the Prefect server refused us, since it asks for a password: {mend}"
    if _is_server_away(error):
        mend = "see that PREFECT_API_URL names one that is up, or unset it: `wtl run` then brings its own; try again"
        return 4, f"wtl: the Prefect server does not answer: {error}; {mend}"
    told = f"{type(error).__name__}: {error}"
    return 1, f"wtl: a fault of our own, {told}; --debug shows where, please report it"


def _is_password_missing(error: BaseException) -> bool:
    response = getattr(error, "response", None)  # of an httpx.HTTPStatusError
    return getattr(response, "status_code", None) == 401


def _is_server_away(error: BaseException) -> bool:
    """Of what asks the network by httpx, only Prefect's client lets its errors through."""
    httpx = sys.modules.get("httpx")  # not imported: then nobody has asked
    return (httpx is not None and isinstance(error, httpx.TransportError)) or str(error).startswith(_SERVER_AWAY)


def _signal_behind(error: BaseException | None) -> int | None:
    """The signal that `error` came from: what fails on the way out, such as telling a server, hides the interrupt."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt | click.Abort):
            return signal.SIGINT
        if isinstance(error, _Terminated):
            return error.number
        if type(error).__name__ == "TerminationSignal":  # Prefect's, in a flow
            return signal.SIGTERM
        error = error.__cause__ or error.__context__
    return None


def _run_flow(
    root: str, sources: list[str], recipe: Recipe, *, allow_removal: bool, forget: list[str], is_debug: bool
) -> Summary:
    """Run the flow in this process, on the server that PREFECT_API_URL names or on one of its own."""
    wait_for_server = flow_process.prepare(is_debug=is_debug)
    from flows.refresh import refresh as refresh_flow  # imports prefect and torch

    wait_for_server()
    result: Summary = refresh_flow(root, sources, recipe, allow_removal, forget=forget)
    return result


def _recipe(store: Store, path: Path | None, *, budget: str | None, encoder: str | None) -> Recipe:
    """The recipe of a file, or the workspace's last, with the flags' fields set."""
    try:
        base = planning.base_recipe(store) if path is None else parse_recipe(path.read_text(), name=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a recipe file in TOML: {error}; check the path") from error
    values = base.model_dump(mode="json")
    if budget is not None:
        values["selection"]["budget"] = budget
    if encoder is not None:
        values["encoder"]["name"] = encoder_names.absolute(encoder)
    return build_recipe(values, name="the command line" if path is None else str(path))


def _probe(uri: str) -> Store:
    return marker.probe_workspace(uri)


if __name__ == "__main__":
    main()
