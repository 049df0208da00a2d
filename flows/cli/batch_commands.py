"""`wtl export`, `wtl batches` and `wtl progress`: images handed out, what has come back, and what that shows."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flows.cli import terminal
from flows.cli.options import common, pairs, workspace_option
from wtl_core.labelling import batch_files, batches
from wtl_core.labelling.batches import Asked
from wtl_core.workspace import lease, marker

if TYPE_CHECKING:
    from wtl_core.labelling.progress import Estimate, Progress  # imports torch


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
            batch_files.write(batch.table, output, form, url)
    count, controls = batch.table.height, int(batch.table["is_control"].sum())
    if as_json:
        told = {"batch": batch.name, "images": count, "controls": controls, "is_new": batch.is_new}
        click.echo(json.dumps({**told, "output": None if dry_run or not count else str(output)}))
        return
    if not count:
        terminal.say("nothing is left to hand out there: all of it is labelled, or in a batch", is_message=True)
        return
    images = _images(count)
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
        terminal.say(
            f"{row['batch']}  {row['created'][:10]}  {row['images']:,} images{controls}: "
            f"{row['back']:,} are labelled, {row['out']:,} are out"
        )
    if table.is_empty():
        terminal.say("no batch has been handed out; `wtl export` does", is_message=True)


@click.command("progress")
@click.option(
    "--more",
    type=click.IntRange(min=1),
    help="How many more labels the forecast is for; if not given, as many as there are.",
)
@workspace_option
@common
def progress_command(more: int | None, workspace: str, as_json: bool) -> None:
    """Show what the labels say of accuracy and picks.

    It shows the accuracy that the labels reach, whether choosing helped, what more labels will bring, and which classes
    have few labels.

    Accuracy is that of a linear probe on the encoder's vectors, tested on images that `wtl export --control 10%` drew
    at random.
    """
    from wtl_core.labelling import progress  # imports torch and lancedb

    found = progress.run(marker.open_workspace(workspace), more)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    known, drawn = f"of {found.known:,} the classes are known", f"{found.controls:,} are a random draw of the pool"
    terminal.say(f"{found.labelled:,} images are labelled; {known}, {drawn}.")
    if found.unknown:
        left_out = "is left out: no class of it is" if found.unknown == 1 else "are left out: no class of them is"
        terminal.say(f"{_images(found.unknown)} of that draw {left_out} known.")
    if found.missing and found.behind:
        _say_missing(found)
    if found.accuracy is None:
        terminal.say(
            f"Accuracy cannot be told: expected {progress.LEAST_CONTROLS} labelled images or more that were drawn at "
            "random, and as many others; `wtl export --control 10%` draws some."
        )
    else:
        others = f"{found.taught:,} others"
        terminal.say(f"A probe taught by {others} names {_percent(found.accuracy)} of the random draw right.")
    if found.accuracy is not None and found.comparison is None:
        terminal.say(
            f"Whether choosing helped cannot be told: expected {found.compared:,} labelled picks of batches or more, "
            f"found {found.picks:,}; `wtl export` hands out batches, and picks of `wtl cut` are not recorded."
        )
    if found.comparison is not None:
        compared = found.comparison
        both = (
            f"{compared.labels:,} picks teach {compared.by_picks:.1%}, as many random images {compared.by_controls:.1%}"
        )
        terminal.say(f"{both}: {_points(compared.difference)}.")
    if found.forecast is not None:
        terminal.say(
            f"{found.forecast.more:,} more labels: {_points(found.forecast.gain)}, as labels on other sets did."
        )
    if found.classes.height:
        terminal.say(f"{'class':24} {'labels':>7} {'share':>6} {'in the pool':>18} {'next picks':>11}")
    for row in found.classes.iter_rows(named=True):
        pool = "" if row["pool_share"] is None else f"{row['pool_low']:.1%} to {row['pool_high']:.1%}"
        coming = "" if row["next"] is None else f"{row['next']:.0f}"
        terminal.say(f"{row['class'][:24]:24} {row['labels']:>7,} {row['share']:>6.1%} {pool:>18} {coming:>11}")
    if found.short:
        terminal.say(f"Fewer than 20 labels: {', '.join(found.short)}.")


def _say_missing(found: "Progress") -> None:
    """Why labelled images do not count for the random draw, and how they will."""
    out, new = found.missing_out, found.missing - found.missing_out
    remedies = [f"label the {out:,} that {_are(out)} handed out"] if out else []
    if new:
        remedies.append(f"`wtl export --new {new} --control {new}` hands out the {new:,} that {_are(new)} in no batch")
    terminal.say(
        f"The draw ends before the first image of the random order that is not labelled. {found.behind:,} labelled "
        f"{'image' if found.behind == 1 else 'images'} behind it will count once {found.missing:,} more "
        f"{_are(found.missing)} labelled: {'; '.join(remedies)}."
    )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count:,} images"


def _percent(estimate: "Estimate") -> str:
    return f"{estimate.value:.1%} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _points(estimate: "Estimate") -> str:
    return f"{100 * estimate.value:+.1f} points ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
