"""`wtl export` and `wtl batches`: images handed out for labelling, and what has come back."""

import json
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, pairs, workspace_option
from wtl_core.errors import ConfigError
from wtl_core.labelling import batch_files, batches
from wtl_core.labelling.batches import Asked
from wtl_core.workspace import lease, marker


@click.command("export")
@click.option("--at", help="The images up to this operating point that no batch holds yet: 500 or 7.5%.")
@click.option("--new", type=click.IntRange(min=1), help="How many of the next images that no batch holds yet.")
@click.option(
    "--control", metavar="SHARE", help="How much of the batch is drawn at random, such as 10%; these are the controls."
)
@click.option("--name", help="Name of the batch; if not given, the next number.")
@click.option(
    "--format",
    "form",
    type=click.Choice(batch_files.FORMATS),
    help="Label Studio's tasks; tables need none, since the file's ending says it.",
)
@click.option(
    "--output", "-o", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The file to write."
)
@click.option(
    "--url",
    metavar="FROM=TO",
    multiple=True,
    callback=pairs,
    help="In the column `url`, TO replaces the beginning FROM of a URI.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be handed out; write and record nothing.")
@workspace_option
@common
def export_command(
    at: str | None,
    new: int | None,
    control: str | None,
    name: str | None,
    form: str | None,
    output: Path,
    url: dict[str, str],
    dry_run: bool,
    workspace: str,
    as_json: bool,
) -> None:
    """Hand out a batch of images for labelling.

    The batch is recorded in the ledger under its name, and no image is in two batches. Until the next run makes another
    ranking, the same call gives the same batch again. Labels come back by `wtl labels add`.
    """
    if (at is None) == (new is None):
        raise click.UsageError("expected one of --at and --new; say how many images")
    batch_files.check(output, form)
    store = marker.open_workspace(workspace)
    asked = Asked(at=at, new=new, control=control, name=name)
    if dry_run:
        batch = batches.hand_out(store, asked, is_dry=True)
    else:
        with lease.hold(store):
            batch = batches.hand_out(store, asked)
        if batch.table.height:
            try:
                batch_files.write(batch.table, output, form, url)
            except ConfigError as error:
                again = f"the same call with `--name {batch.name}` writes it"
                raise ConfigError(f"{error}; {batch.name} is recorded, and {again}") from error
    count, controls = batch.table.height, int(batch.table["is_control"].sum())
    if as_json:
        told = {"batch": batch.name, "images": count, "controls": controls, "is_new": batch.is_new}
        click.echo(json.dumps({**told, "output": None if dry_run or not count else str(output)}))
        return
    if not count:
        terminal.say(
            "nothing is left to hand out there: all of it is labelled, skipped, or in a batch", is_message=True
        )
        return
    images = "1 image" if count == 1 else f"{count:,} images"
    with_controls = f", {controls:,} of them at random" if controls else ""
    state = "would be" if dry_run else "is" if batch.is_new else "was handed out before, and is again"
    terminal.say(f"{batch.name} {state} {output}: {images}{with_controls}", is_message=True)


@click.command("batches")
@workspace_option
@common
def batches_command(workspace: str, as_json: bool) -> None:
    """Show the batches, and how much of each is labelled."""
    table = batches.listed(marker.open_workspace(workspace))
    if as_json:
        click.echo(json.dumps({"batches": table.to_dicts()}))
        return
    for row in table.iter_rows(named=True):
        controls = f", {row['controls']:,} at random" if row["controls"] else ""
        skipped = f"{row['skipped']:,} skipped, " if row["skipped"] else ""
        terminal.say(
            f"{row['batch']}  {row['created'][:10]}  {row['images']:,} images{controls}: "
            f"{row['back']:,} are labelled, {skipped}{row['out']:,} are out"
        )
    if table.is_empty():
        terminal.say("no batch has been handed out; `wtl export` does", is_message=True)
