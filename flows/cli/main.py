"""The command line, `wtl`: results on stdout, messages on stderr, an exit code for each kind of error.

Commands that only read import neither prefect nor torch; `run` plans before it imports either.
"""

import errno
import signal
import sys
import traceback

import click

from flows.cli import (
    batch_commands,
    label_commands,
    operations_commands,
    progress_command,
    result_commands,
    skip_commands,
    terminal,
    ui_command,
)
from flows.cli.benchmark_command import benchmark_command
from flows.cli.options import Sections
from flows.cli.plan_command import plan_command
from flows.cli.run_command import run_command
from flows.cli.split_command import split_command
from flows.cli.tool_commands import hand_out_command, take_back_command
from tasks.settings import settings
from wtl_core.errors import WtlError

_LASTING = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
)
"""Errors of the system that a retry cannot help."""
_SERVER_AWAY = "Failed to reach API"
"""How Prefect's own error begins, a plain RuntimeError, where no server answers."""


_SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "Day to day": (
        run_command,
        result_commands.status_command,
        result_commands.cut_command,
        result_commands.report_command,
        ui_command.ui_command,
        batch_commands.export_command,
        batch_commands.batches_command,
        progress_command.progress_command,
        hand_out_command,
        take_back_command,
        label_commands.labels_group,
        skip_commands.skip_group,
        split_command,
        label_commands.similar_command,
    ),
    "Operations": (
        operations_commands.up_command,
        operations_commands.down_command,
        operations_commands.deploy_command,
        operations_commands.train_encoder_command,
        operations_commands.maintain_command,
        operations_commands.doctor_command,
        plan_command,
    ),
    "Comparison": (benchmark_command,),
}


_FIRST_STEPS = """\
wtl, what to label: which images to label next, and how many are enough.

  wtl run SOURCE -w DIR                 rank the images of a folder or bucket
  wtl report --open -w DIR              look at the picks, beside random ones
  wtl cut --at 5% -o picks.csv -w DIR   the images to label, best first
  wtl labels add FILE -w DIR            enter their labels
  wtl status -w DIR                     what the workspace holds

All commands: wtl --help"""
_COMPLETION = 'Completion of commands and options: eval "$(_WTL_COMPLETE=bash_source wtl)", or zsh_source, fish_source.'


def _show_version(context: click.Context, option: click.Parameter, is_asked: bool) -> None:
    if is_asked:
        from wtl_core.report.version import version_text

        click.echo(f"wtl {version_text()}")
        context.exit()


@click.group(
    cls=Sections,
    sections=_SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=False,
    invoke_without_command=True,
    epilog=_COMPLETION,
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(context: click.Context) -> None:
    """What to label: rank a pool of images by coverage, so that every operating point is a prefix."""
    if context.invoked_subcommand is None:
        click.echo(_FIRST_STEPS, err=True)
        raise SystemExit(2)
    settings()  # a wrong one is refused before anything else, and both S3 clients learn their address here


def main() -> None:
    """Run the command line; turn errors into one message and an exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, _terminate)
    try:
        cli.main(standalone_mode=False)
        sys.exit(0)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001, the last line of defence: nobody is shown a traceback unasked
        if terminal.is_debug():
            traceback.print_exception(error)
        code, message = _explain(error)
    if message:
        terminal.say(message, is_message=True)
    sys.exit(code)


class _Terminated(BaseException):
    """Raised by a signal that ends the process, so that the server that it started is stopped on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: object) -> None:
    raise _Terminated(number)


def _explain(error: BaseException) -> tuple[int, str]:
    """The exit code for an error, and the message for a person; empty where click has shown its own."""
    if (found := _signal_behind(error)) is not None:
        number, kept = found
        return 128 + number, f"wtl: interrupted; {kept or 'what was finished is kept'}, the next run goes on from there"
    if isinstance(error, WtlError):
        return error.exit_code, f"wtl: {error}"
    if isinstance(error, click.ClickException):
        error.show()
        return 2, ""
    if isinstance(error, OSError):
        is_lasting = error.errno in _LASTING
        remedy = "check the path and its permissions" if is_lasting else "try again"
        code = 2 if is_lasting else 4
        return code, f"wtl: reading or writing failed: {error}; {remedy}, --debug shows where"
    if _is_password_missing(error):
        remedy = "set PREFECT_API_AUTH_STRING to the user:password that it was started with"
        return 2, f"wtl: the Prefect server refused us, since it asks for a password: {remedy}"
    if _is_server_away(error):
        remedy = "see that PREFECT_API_URL names one that is up, or unset it: `wtl run` then brings its own; try again"
        return 4, f"wtl: the Prefect server does not answer: {error}; {remedy}"
    return 1, f"wtl: internal error, {type(error).__name__}: {error}; --debug shows where, please report it"


def _is_password_missing(error: BaseException) -> bool:
    response = getattr(error, "response", None)  # of an httpx.HTTPStatusError
    return getattr(response, "status_code", None) == 401


def _is_server_away(error: BaseException) -> bool:
    """Of what asks the network by httpx, only Prefect's client lets its errors through."""
    httpx = sys.modules.get("httpx")  # not imported: then nobody has asked
    return (httpx is not None and isinstance(error, httpx.TransportError)) or str(error).startswith(_SERVER_AWAY)


def _signal_behind(error: BaseException | None) -> tuple[int, str] | None:
    """The signal behind `error` or one of its causes; an error on the way out, as of the server, may hide it.

    With it what a training says that Ctrl-C has ended; click's own error stands before that one.
    """
    number: int | None = None
    while error is not None:
        if isinstance(error, KeyboardInterrupt | click.Abort):
            number = signal.SIGINT
            if str(error):
                return number, str(error)
        elif isinstance(error, _Terminated):
            return error.number, ""
        elif type(error).__name__ == "TerminationSignal":  # Prefect's, in a flow
            return signal.SIGTERM, ""
        error = error.__cause__ or error.__context__
    return None if number is None else (number, "")


if __name__ == "__main__":
    main()
