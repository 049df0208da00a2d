"""`wtl export` and `wtl batches`: images handed out for labelling, and what has come back."""

import json
from functools import partial
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import common, pairs, seconds, split_option, workspace_option
from wtl_core.labelling import batch_files, batches, exporting
from wtl_core.labelling.batches import Asked, Batch
from wtl_core.workspace import marker


@click.command("export")
@click.option("--at", help="The images up to this operating point that no batch holds yet: 500 or 7.5%.")
@click.option("--new", type=click.IntRange(min=1), help="How many of the next images that no batch holds yet.")
@click.option(
    "--control", metavar="SHARE", help="How much of the batch is drawn at random, such as 10%; these are the controls."
)
@click.option("--name", help="Name of the batch; if not given, the next number.")
@click.option(
    "--due",
    metavar="DAY",
    help="When the batch is to be labelled: 3d, 2w or a date; `wtl batches` shows what is overdue.",
)
@click.option(
    "--format",
    "form",
    metavar="NAME",
    type=click.Choice(list(batch_files.FORMATS)),
    help=f"{', '.join(batch_files.FORMATS)}; if not given, the table that the file's ending says.",
)
@click.option(
    "--output",
    "-o",
    metavar="PATH|URL",
    required=True,
    type=click.Path(),
    help="The file or new folder to write; with `--format cvat` also the address of a CVAT server or project.",
)
@click.option(
    "--url",
    metavar="FROM=TO",
    multiple=True,
    callback=partial(pairs, may_be_blank=True),
    help="TO replaces the beginning FROM of an image's URI, in its address or name.",
)
@click.option(
    "--presign",
    metavar="TIME",
    callback=seconds,
    help="Images in a bucket get addresses that anyone can open for TIME, such as 12h.",
)
@click.option("--link", is_flag=True, help="Links to images instead of copies, in the formats that copy them.")
@click.option(
    "--inline", is_flag=True, help="The images themselves, in base64: in tasks of Label Studio, JSON, JSON lines."
)
@split_option
@click.option("--dry-run", is_flag=True, help="Say what would be handed out; write and record nothing.")
@workspace_option
@common
def export_command(
    at: str | None,
    new: int | None,
    control: str | None,
    name: str | None,
    due: str | None,
    form: str | None,
    output: str,
    url: dict[str, str],
    presign: int | None,
    link: bool,
    inline: bool,
    split: str,
    dry_run: bool,
    workspace: str,
    as_json: bool,
) -> None:
    """Hand out a batch of images for labelling.

    The batch is recorded in the ledger under its name, and no image is in two batches. Until the next run makes another
    ranking, the same call gives the same batch again. Labels come back by `wtl labels add`.

    With `--format cvat -o https://HOST/projects/N` the batch becomes a task of CVAT, which fetches the images by their
    addresses. The token is read from CVAT_ACCESS_TOKEN.
    """
    if (at is None) == (new is None):
        raise click.UsageError("expected one of --at and --new; say how many images")
    if control is not None and split != "train":
        raise click.UsageError(f"expected no --control beside --split {split}: all its images are drawn at random")
    asked = Asked(at=at, new=new, control=control, name=name, split=split)
    day = None if due is None else batches.due_day(due)
    lost: list[str] = []
    if output.startswith(("http://", "https://")):
        if form != "cvat" or link or inline:
            raise click.UsageError(
                f"expected --format cvat, no --link and no --inline beside -o {output}: other formats are files"
            )
        from tasks.settings import open_cvat
        from wtl_core.labelling.tools import cvat

        by_address = batch_files.wanted_by_address(urls=url, presign_seconds=presign)
        with open_cvat(output) as server:
            store = marker.open_workspace(workspace)
            made = cvat.make_task(store, server, asked, by_address, due=day, is_dry=dry_run)
        batch, files, output = made.batch, [made.link] if made.link else [], made.link or output
    else:
        how = batch_files.wanted(Path(output), form, urls=url, presign_seconds=presign, is_link=link, is_inline=inline)
        exported = exporting.export(marker.open_workspace(workspace), asked, how, due=day, is_dry=dry_run)
        batch, files, lost = exported.batch, [str(file) for file in exported.written.files], exported.written.lost
        output = str(how.output)
    if as_json:
        controls = int(batch.table["is_control"].sum())
        told = {"batch": batch.name, "images": batch.table.height, "controls": controls, "is_new": batch.is_new}
        told["due"] = None if batch.due is None else batch.due.isoformat()
        click.echo(json.dumps({**told, "output": output if files else None, "files": files, "lost": lost}))
        return
    _show(batch, f"{files[0]} to {files[-1]}" if len(files) > 1 else output, lost, is_dry=dry_run)


def _show(batch: Batch, where: str, lost: list[str], *, is_dry: bool) -> None:
    count, controls = batch.table.height, int(batch.table["is_control"].sum())
    if not count:
        terminal.say(
            "nothing is left to hand out there: all of it is labelled, skipped, or in a batch", is_message=True
        )
        return
    with_controls = f", {controls:,} of them at random" if controls else ""
    state = "would be" if is_dry else "is" if batch.is_new else "was handed out before, and is again"
    images = "1 image" if count == 1 else f"{count:,} images"
    by = f", due {batch.due}" if batch.due else ""
    terminal.say(f"{batch.name} {state} {where}: {images}{with_controls}{by}", is_message=True)
    if lost:
        left_out = f"{len(lost):,} of them left out, gone or changed in their source since the last run"
        terminal.say(f"{left_out}, first {lost[0]!r}", is_message=True)


@click.command("batches")
@workspace_option
@common
def batches_command(workspace: str, as_json: bool) -> None:
    """Show the batches: what is labelled, what is overdue.

    A batch is overdue when images of it are out after its day, in UTC.
    """
    table = batches.listed(marker.open_workspace(workspace))
    if as_json:
        click.echo(json.dumps({"batches": table.to_dicts()}))
        return
    for row in table.iter_rows(named=True):
        controls = f", {row['controls']:,} at random" if row["controls"] else ""
        skipped = f"{row['skipped']:,} skipped, " if row["skipped"] else ""
        last = f" (the last on {row['last_back'][:10]})" if row["last_back"] else ""
        due = f", {'overdue since' if row['is_overdue'] else 'due'} {row['due']}" if row["due"] and row["out"] else ""
        terminal.say(
            f"{row['batch']}  {row['created'][:10]}  {row['images']:,} images{controls}: "
            f"{row['back']:,} are labelled{last}, {skipped}{row['out']:,} are out{due}"
        )
    if table.is_empty():
        terminal.say("no batch has been handed out; `wtl export` does", is_message=True)
