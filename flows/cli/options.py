"""What the commands of `wtl` share: their options, and how the list of them is shown."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from flows.cli import terminal
from wtl_core.errors import ConfigError
from wtl_core.labelling import table_files
from wtl_core.recipe.recipe import Recipe, parse_recipe
from wtl_core.refresh import planning
from wtl_core.shards.paths import uri_of
from wtl_core.workspace.storage import Store

workspace_option = click.option(
    "--workspace",
    "-w",
    required=True,
    type=click.Path(),
    envvar="WTL_WORKSPACE",
    show_envvar=True,
    help="A folder or s3:// prefix.",
)


split_option = click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    default="train",
    show_default=True,
    help="The side of the split; others than train come in a random order.",
)


def given_recipe(store: Store, path: Path | None, *, budget: str | None, encoder: str | None) -> Recipe:
    """The recipe of a file, or the workspace's last, with the flags' fields set. Raises ConfigError."""
    try:
        base = planning.base_recipe(store) if path is None else parse_recipe(path.read_text(), name=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a recipe file in TOML: {error}; check the path") from error
    return base.changed(budget=budget, encoder=encoder, name="the command line" if path is None else str(path))


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command: `--json`, which it gets as `as_json`, and how much is said beside the result."""
    command = click.option(
        "--verbose",
        "-v",
        is_flag=True,
        expose_value=False,
        callback=lambda context, _option, is_verbose: context.meta.update({terminal.VERBOSE: is_verbose}),
        help="Show what the stages say of their work.",
    )(command)
    command = click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=lambda _context, _option, is_debug: terminal.set_debug(is_debug=is_debug),
        help="Show tracebacks and every log line.",
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def pairs(
    _context: click.Context, option: click.Parameter, values: tuple[str, ...], *, may_be_blank: bool = False
) -> dict[str, str]:
    """The values of an option that is given as OLD=NEW, once for each pair; a callback of click."""
    found = [(value, *value.partition("=")) for value in values]
    for value, old, equals, new in found:
        if not (old and equals) or not (new.strip() or may_be_blank):
            raise click.BadParameter(f"expected {option.metavar}, found {value!r}")
    return {old: new for _, old, _, new in found}


def image_names(_context: click.Context, _option: click.Parameter, value: Any) -> Any:
    """Names of images as the pool has them, which writes those that are not UTF-8 percent-encoded; a click callback."""
    return _encoded(value) if isinstance(value, str) else tuple(map(_encoded, value))


def _encoded(name: str) -> str:
    return uri_of(name).removeprefix("file://")


def seconds(_context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """The seconds of a time such as 90m, 12h or 3d; a callback of click."""
    if value is None:
        return None
    number, unit = value[:-1], {"m": 60, "h": 3600, "d": 86400}.get(value[-1:])
    if unit is None or not (number.isascii() and number.isdecimal()):
        raise click.BadParameter(f"expected {option.metavar} such as 90m, 12h or 3d, found {value!r}")
    return int(number) * unit


def table_output(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`--output FILE` of a command that can write a table, refused at once if none can be written there.

    `what` ends its help: what is written, or what happens without it.
    """
    return click.option(
        "--output",
        "-o",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=checked_output,
        help=f"A file ending in {', '.join(table_files.ENDINGS)}; {what}.",
    )


def checked_output(_context: click.Context, _option: click.Parameter, file: Path | None) -> Path | None:
    """The file of an option, refused at once if no table can be written there; a callback of click."""
    if file is not None:
        table_files.check_output(file)
    return file


class Sections(click.Group):
    """A group whose help shows its commands by section, in the order given."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[click.Command]], **more: Any) -> None:
        super().__init__(*args, **more)
        self.sections = sections
        for command in (command for commands in sections.values() for command in commands):
            self.add_command(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002, click's
        """Write the sections; a help text that does not fit into its line would end in `...`."""
        width = max(len(name) for name in self.commands)
        for title, commands in self.sections.items():
            with formatter.section(title):
                limit = formatter.width - 6 - width
                formatter.write_dl(
                    [((command.name or "").ljust(width), command.get_short_help_str(limit)) for command in commands]
                )
