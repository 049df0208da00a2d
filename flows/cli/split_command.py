"""`wtl split`: training, validation and test, so that what is alike stays on one side."""

import json
from pathlib import Path
from typing import Any

import click

from flows.cli import terminal
from flows.cli.options import common, table_output, workspace_option
from wtl_core.labelling import split_state, table_files
from wtl_core.workspace import lease, ledger, marker, sides
from wtl_core.workspace.storage import Store

_SHARE = click.FloatRange(0, 100)


@click.command("split")
@click.option("--train", type=_SHARE, help="Per cent of the images; if not given, what the others leave.")
@click.option("--validation", type=_SHARE, help="Per cent of the images; if not given, none.")
@click.option("--test", type=_SHARE, help="Per cent of the images; if not given, none.")
@click.option(
    "--group-by",
    multiple=True,
    metavar="COLUMN",
    help="Images with an equal value stay on one side; repeatable. If not given, the recipe's group_by; '' for none.",
)
@click.option("--dry-run", is_flag=True, help="Say what the split would be; record nothing.")
@click.option("--undo", is_flag=True, help="Take the split back.")
@table_output("it takes every image with its side")
@workspace_option
@common
def split_command(
    train: float | None,
    validation: float | None,
    test: float | None,
    group_by: tuple[str, ...],
    dry_run: bool,
    undo: bool,
    output: Path | None,
    workspace: str,
    as_json: bool,
) -> None:
    """Split the pool into training, validation, test.

    Without shares, the split that is there is shown.

    Near-duplicates, copies and images of one group stay on one side. Validation and test are uniform random draws of
    such groups. An image keeps its side for good: each run gives arrivals theirs. From the next run on the ranking
    holds images of training alone; `wtl cut` and `wtl export` take others with --split.
    """
    store = marker.open_workspace(workspace)
    shares = (train, validation, test)
    if undo:
        with lease.hold(store):
            count = split_state.undo(store)
        click.echo(json.dumps({"taken_back": count})) if as_json else terminal.say(
            f"the split of {count:,} images is taken back; `wtl run` ranks all of them"
        )
        return
    report = _shown(store) if shares == (None, None, None) else _made(store, shares, group_by, is_dry=dry_run)
    if output is not None:
        table_files.write(split_state.listed(store), output)
        report["output"] = str(output)
    click.echo(json.dumps(report)) if as_json else _show(report, is_dry=dry_run)


def _shown(store: Store) -> dict[str, Any]:
    entries = ledger.read(store)
    asked = sides.request(entries)
    if asked is None:
        raise click.UsageError(
            "expected shares, such as --train 80 --validation 10 --test 10; there is no split to show"
        )
    on_none = sides.read(store, entries)["split"].null_count()
    made = sides.read_report(store, entries)
    return {"asked": asked, "images": sides.counts(store, entries), "on_none": on_none, "made": made}


def _made(
    store: Store, shares: tuple[float | None, float | None, float | None], group_by: tuple[str, ...], *, is_dry: bool
) -> dict[str, Any]:
    """Make the split, or give a side to those that have none; what the first one was like is told either way."""
    asked = split_state.asked_of(store, shares, [name for name in group_by if name] if group_by else None)
    from tasks.settings import machine
    from wtl_core.labelling import splits  # imports torch and lancedb

    device = machine().device
    terminal.say("comparing the images by their vectors", is_message=True)
    if is_dry:
        made = splits.make(store, asked, device=device, is_dry=True)
        return {"asked": asked.to_json(), "images": made.images, "on_none": made.on_none, "made": made.to_json()}
    with lease.hold(store):
        splits.make(store, asked, device=device)
    return _shown(store)


def _show(report: dict[str, Any], *, is_dry: bool) -> None:
    images, made = report["images"], report["made"]
    total = sum(images.values())
    shown = ", ".join(f"{count:,} {side} ({count / max(1, total):.1%})" for side, count in images.items())
    terminal.say(f"{'would be' if is_dry else 'split':<12} {shown}")
    if report["on_none"]:
        are = "1 image is" if report["on_none"] == 1 else f"{report['on_none']:,} images are"
        terminal.say(f"on none      {are} linked to two sides, and offered for nothing")
    if made:
        several = f"{made['several']:,} of several images ({made['in_several']:,}, the largest {made['largest']:,})"
        terminal.say(f"groups       {made['groups']:,}, of which {several}")
        keys = "".join(f", or equal {name}" for name in report["asked"]["group_by"])
        within = f"vectors within {made['distance']:.3f}, perceptual hashes alike, pixels equal{keys}"
        terminal.say(f"links        {within}")
        _show_leaks(made["leaks"])
        if made["too_large"]:
            terminal.say(
                f"{made['too_large']:,} groups are larger than a side that was asked for, and so are in training: "
                "validation and test show nothing of them",
                is_message=True,
            )
    if "output" in report:
        terminal.say(f"every image with its side: {report['output']}", is_message=True)


def _show_leaks(leaks: dict[str, Any]) -> None:
    torn = f"{leaks['naive_torn_pairs']:,} of {leaks['near_pairs']:,} pairs of near-duplicates"
    terminal.say(
        f"leaks        {leaks['cut_groups']:,} groups are cut; a random split of images would cut "
        f"{leaks['naive_cut_groups']:,} groups and {torn}"
    )
    if leaks["nearest"] and leaks["naive_nearest"]:
        ours, naive = leaks["nearest"], leaks["naive_nearest"]
        terminal.say(
            f"nearest      training image to one of the others: {ours['0']:.3f} at least, {ours['0.05']:.3f} for 5 %, "
            f"{ours['0.5']:.3f} for half; by a random split {naive['0']:.3f}, {naive['0.05']:.3f}, {naive['0.5']:.3f}"
        )
