"""`wtl skip`: images that are unusable or redundant, entered in the ledger, listed, and taken back."""

import json
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, image_names, table_output, workspace_option
from wtl_core.labelling import skips, table_files
from wtl_core.workspace import lease, marker
from wtl_core.workspace.ledger import Reason


class _SkipGroup(click.Group):
    """Takes what is no name of a command for the arguments of `add`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, args if args[0] in self.commands else ["add", *args])


@click.group(
    "skip",
    cls=_SkipGroup,
    subcommand_metavar="IMAGE... --because REASON | list | undo",
    context_settings={"ignore_unknown_options": True},  # those of `add` may come before its images
)
def skip_group() -> None:
    """Skip unusable or redundant images, list them, undo.

    `wtl skip IMAGE...` is short for `wtl skip add IMAGE...`. An image whose name is that of a command is named by its
    path, as ./list.
    """


@skip_group.command("add")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", callback=image_names)
@click.option(
    "--because",
    required=True,
    type=click.Choice(["unusable", "redundant"]),
    help="Whether the images cover nothing, or count as covered.",
)
@workspace_option
@common
def add_command(images: tuple[str, ...], because: Reason, workspace: str, as_json: bool) -> None:
    """Skip each IMAGE: it is not picked any more.

    An unusable image covers nothing: images like it may still be picked. A redundant one counts as covered, and images
    like it with it, as if it were labelled. An IMAGE is a sample id, a path or its end, or the key of a member of an
    archive; images with the same pixels are skipped with it. The next picks move up at once, and the next run ranks
    anew. The label of a skipped image does not count.
    """
    store = marker.open_workspace(workspace)
    with lease.hold(store):
        done = skips.skip(store, images, because)
    if as_json:
        click.echo(json.dumps(done.to_json()))
        return
    terminal.say(f"{_counted(done)} skipped as {because}; the next picks move up, and `wtl run` ranks anew")
    if done.labelled:
        what = "1 of them has a label, which does" if done.labelled == 1 else f"{done.labelled:,} have labels, which do"
        terminal.say(f"{what} not count while the image is skipped", is_message=True)


@skip_group.command("list")
@table_output("if not given, CSV on stdout")
@workspace_option
@common
def list_command(output: Path | None, workspace: str, as_json: bool) -> None:
    """Print the images that are skipped, with the reason."""
    table = skips.listed(marker.open_workspace(workspace))
    if output is not None:
        table_files.write(table, output)
    if as_json:
        rows = {"output": str(output)} if output is not None else {"images": table.to_dicts()}
        click.echo(json.dumps({"skipped": table.height, **rows}))
    elif output is None:
        click.echo(table_files.to_csv(table), nl=False)
    else:
        terminal.say(f"{table.height:,} skipped: {output}", is_message=True)


@skip_group.command("undo")
@click.argument("images", nargs=-1, metavar="[IMAGE]...", callback=image_names)
@workspace_option
@common
def undo_command(images: tuple[str, ...], workspace: str, as_json: bool) -> None:
    """Take back the last `wtl skip` that still counts, or that of each IMAGE.

    Everything is as if the images had not been skipped: they can be picked, and their labels count. Nothing is deleted:
    the ledger records what was undone.
    """
    store = marker.open_workspace(workspace)
    with lease.hold(store):
        done = skips.undo(store, images)
    if as_json:
        click.echo(json.dumps(done.to_json()))
        return
    terminal.say(f"{_counted(done)} skipped no more; `wtl run` ranks anew")


def _counted(done: skips.Skipped) -> str:
    copies = f", {done.copies:,} with the same pixels among them," if done.copies else ""
    return f"{done.changed:,} {'image is' if done.changed == 1 else 'images are'}{copies}"
