"""`wtl labels` and `wtl similar`: labels in and out of the ledger, and images like a given one."""

import json
from pathlib import Path

import click

from flows.cli import terminal
from flows.cli.options import checked_output, common, image_names, pairs, table_output, workspace_option
from wtl_core.errors import ConfigError
from wtl_core.labelling import labels, sample_names, table_files
from wtl_core.labelling.formats.rows import Reading
from wtl_core.labelling.labels import Added
from wtl_core.workspace import commits, lease, marker

_SHOWN_CLASSES = 10
"""Classes that are shown with their counts after an addition; `--json` has all."""


@click.group("labels")
def labels_group() -> None:
    """Enter labels, list them, take them back."""


@labels_group.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--column", help="Title of the column that names images, if it is another one.")
@click.option(
    "--class-column", help="Title of the column that holds classes; in Label Studio's JSON the name of a control tag."
)
@click.option("--class-separator", metavar="TEXT", help="What stands between several classes in one cell, such as ';'.")
@click.option("--several", is_flag=True, help="Several rows of one image add up, as in a table of boxes.")
@click.option("--empty", is_flag=True, help="Images that FILE lists without a label hold nothing of interest.")
@click.option("--rename", metavar="OLD=NEW", multiple=True, callback=pairs, help="Enter the class OLD as NEW.")
@click.option("--distinct", is_flag=True, help="Classes that differ only in case or blanks are different ones.")
@click.option("--partial", is_flag=True, help="Leave out rows that name no image, or several; enter the rest.")
@click.option(
    "--unmatched",
    type=click.Path(path_type=Path, dir_okay=False),
    callback=checked_output,
    help="Where rows that name no image, or several, are kept; if not given, FILE.unmatched.csv.",
)
@workspace_option
@common
def add_command(
    file: Path,
    column: str | None,
    class_column: str | None,
    class_separator: str | None,
    several: bool,
    empty: bool,
    rename: dict[str, str],
    distinct: bool,
    partial: bool,
    unmatched: Path | None,
    workspace: str,
    as_json: bool,
) -> None:
    """Enter the images that FILE names as labelled, with their classes.

    FILE is a table (CSV, TSV, Parquet, JSON lines, a JSON list) with a column such as sample_id, path or filename, and
    one such as label or class; JSON of COCO, Datumaro or Label Studio; XML of CVAT or Pascal VOC; a folder or zip of
    YOLO's or Pascal VOC's files, or a backup of CVAT; or a list of names, whose classes stay unknown. A name is a
    sample id, a path or its end, or the key of a member of an archive. The class `empty` says that an image holds
    nothing of interest. A new label replaces the one that the ledger holds. The next run chooses its picks by these
    labels and ranks the rest.
    """
    store = marker.open_workspace(workspace)
    reading = Reading(
        column=column,
        class_column=class_column,
        separator=class_separator or None,
        adds_up=several,
        bare_is_empty=empty,
        renamed=rename,
    )
    with lease.hold(store):
        added = labels.add(store, file, reading, is_partial=partial, are_distinct=distinct, aside=unmatched)
    if as_json:
        click.echo(json.dumps(added.to_json()))
    else:
        _show(added)


def _show(added: Added) -> None:
    counts = [f"{added.named:,} named", f"{added.added:,} added to the ledger"]
    counts += [f"{added.corrected:,} corrected"] if added.corrected else []
    counts += [f"{added.completed:,} got their class"] if added.completed else []
    terminal.say(f"{', '.join(counts)}; `wtl run` ranks the rest anew")
    if added.classes:
        first = [f"{count:,} {name}" for name, count in list(added.classes.items())[:_SHOWN_CLASSES]]
        more = len(added.classes) - len(first)
        terminal.say(f"classes: {', '.join(first)}{f' and {more:,} more classes' if more else ''}")
    if added.unknown:
        which = "all of them" if added.unknown == added.found else f"{added.unknown:,} of them"
        terminal.say(
            f"the classes of {which} are unknown: the next picks still differ from these images, but no class can be "
            "weighed, and no wrong label be found; add a file with classes to tell them",
            is_message=True,
        )
    if added.skipped:
        of_them = "1 of them is" if added.skipped == 1 else f"{added.skipped:,} of them are"
        terminal.say(
            f"{of_them} skipped, and so counts as not labelled until `wtl skip undo` takes that back", is_message=True
        )
    if added.bare:
        are = "1 image is" if added.bare == 1 else f"{added.bare:,} images are"
        terminal.say(f"{are} listed without a label and stay unlabelled (--empty: they hold nothing)", is_message=True)
    if added.left_out:
        names = "1 name is" if added.left_out == 1 else f"{added.left_out:,} names are"
        terminal.say(f"{names} left out, those of no image or of several: {added.aside}", is_message=True)


@labels_group.command("list")
@table_output("if not given, CSV on stdout")
@workspace_option
@common
def list_command(output: Path | None, workspace: str, as_json: bool) -> None:
    """Print the labels that count now, with the file that each came from.

    In CSV several classes are a JSON list, `empty` stands for an image that holds nothing of interest, and a blank for
    classes that are not known. `wtl labels add` reads it back, but for images whose classes are not known.
    """
    table = labels.listed(marker.open_workspace(workspace))
    is_text = output is None or output.suffix.lower() in (".csv", ".tsv")
    shown = labels.as_text(table) if is_text else table
    if output is not None:
        table_files.write(shown, output)
    if as_json:
        rows = {"output": str(output)} if output is not None else {"labels": table.to_dicts()}
        click.echo(json.dumps({"labelled": table.height, **rows}))
    elif output is None:
        click.echo(table_files.to_csv(shown), nl=False)
    else:
        images = "1 image is" if table.height == 1 else f"{table.height:,} images are"
        terminal.say(f"{images} labelled: {output}", is_message=True)


@labels_group.command("undo")
@click.argument("images", nargs=-1, metavar="[IMAGE]...", callback=image_names)
@click.option(
    "--entry", type=click.IntRange(min=1), help="Number of the addition to take back, as `wtl labels list` shows it."
)
@workspace_option
@common
def undo_command(images: tuple[str, ...], entry: int | None, workspace: str, as_json: bool) -> None:
    """Take back the last addition of labels, or the labels of each IMAGE.

    An image whose label is taken back can be picked again, unless an earlier addition labelled it too: then that label
    counts again. Nothing is deleted: the ledger records what was undone.
    """
    if images and entry is not None:
        raise click.UsageError("expected images or --entry, found both; undo one after the other")
    store = marker.open_workspace(workspace)
    with lease.hold(store):
        undone = labels.undo(store, images, entry=entry)
    if as_json:
        click.echo(json.dumps(undone.to_json()))
        return
    what = "" if undone.entry is None else f" of entry {undone.entry} ({undone.origin or 'from a file not known'})"
    again = f", {undone.labelled:,} have an earlier label again" if undone.labelled else ""
    count = "1 label" if undone.samples == 1 else f"{undone.samples:,} labels"
    terminal.say(f"{count}{what} taken back{again}; `wtl run` ranks their images anew")


@labels_group.command("check")
@click.option("--count", "-n", default=20, show_default=True, type=click.IntRange(min=1), help="Labels to show.")
@table_output("it takes all of them")
@workspace_option
@common
def check_command(count: int, output: Path | None, workspace: str, as_json: bool) -> None:
    """Show labels that may be wrong, the most doubtful first.

    The image's nearest labelled images, and a probe that was trained without the image, disagree with them. Nothing is
    changed: look at the images, and enter corrections by `wtl labels add`.
    """
    from wtl_core.labelling import label_errors  # imports torch and lancedb

    checked = label_errors.check(marker.open_workspace(workspace))
    table = checked.table
    if output is not None:
        table_files.write(table, output)
    if as_json:
        left_out = {name: getattr(checked, name) for name in ("several", "rare", "unknown", "departed")}
        rows = {"output": str(output)} if output is not None else {"doubtful": table.to_dicts()}
        click.echo(json.dumps({"checked": checked.checked, "count": table.height, "not_checked": left_out, **rows}))
        return
    for row in table.head(count).iter_rows(named=True):
        terminal.say(f"{row['sample_id'][:16]}  {row['reason']}  {row['uri'] or 'no longer in the pool'}")
    doubtful = f"{table.height:,} of {checked.checked:,} labels are doubtful"
    more = f", the first {count:,} are shown" if table.height > count and output is None else ""
    terminal.say(f"{doubtful}{more}{f': {output}' if output is not None else ''}", is_message=True)
    reasons = (
        (checked.several, "with several classes"),
        (checked.rare, "of classes with fewer than five images"),
        (checked.unknown, "without a known class"),
        (checked.departed, "of images without a vector"),
    )
    if left := [f"{number:,} {why}" for number, why in reasons if number]:
        terminal.say(f"not checked: {', '.join(left)}", is_message=True)


@click.command("similar")
@click.argument("image", callback=image_names)
@click.option("--count", "-n", default=10, show_default=True, type=click.IntRange(1, 1000), help="Images to show.")
@workspace_option
@common
def similar_command(image: str, count: int, workspace: str, as_json: bool) -> None:
    """Show images like IMAGE, nearest first.

    IMAGE is a sample id or its first characters, or a path, URI or key as `wtl labels add` takes them. Skipped images
    are left out.
    """
    from wtl_core.embedding import similar  # imports lancedb

    store = marker.open_workspace(workspace)
    last = commits.latest(store)
    if last is None:
        raise ConfigError(f"{workspace}: expected vectors, found none yet; `wtl run SOURCE` makes some")
    rows = similar.run(store, last, sample_names.find(store, image), count=count)
    if as_json:
        click.echo(json.dumps({"similar": rows}))
        return
    for row in rows:
        terminal.say(f"{row['similarity']:.4f}  {row['sample_id'][:16]}  {row['uri']}")
