"""`wtl progress`: what the labels show of accuracy, of choosing, of more labels and of classes."""

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from flows.cli import terminal
from flows.cli.options import common, workspace_option
from wtl_core.workspace import marker

if TYPE_CHECKING:
    from wtl_core.labelling.progress import Comparison, Progress  # imports torch
    from wtl_core.selection.accuracy import Estimate


def _as_share(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    """The share that `90%` or `0.9` says; a callback of click."""
    if text is None:
        return None
    number, is_percent = text.removesuffix("%"), text.endswith("%")
    with suppress(ValueError):
        share = float(number) / (100 if is_percent else 1)
        if 0 < share <= 1:
            return share
    raise click.BadParameter(f"expected a share such as 90% or 0.9, found {text!r}")


@click.command("progress")
@click.option(
    "--more",
    type=click.IntRange(min=1),
    help="How many more labels the forecast is for; if not given, as many as the probe learned from.",
)
@click.option(
    "--goal", metavar="SHARE", callback=_as_share, help="An accuracy, such as 90%: how many more labels reach it."
)
@workspace_option
@common
def progress_command(more: int | None, goal: float | None, workspace: str, as_json: bool) -> None:
    """Show what the labels say of accuracy and picks.

    It shows the accuracy that the labels reach, whether choosing helped, what more labels will bring, and which classes
    have few labels.

    Accuracy is that of a linear probe on the encoder's vectors, tested on images that `wtl export --control 10%` drew
    at random.
    """
    from wtl_core.labelling import progress  # imports torch and lancedb

    found = progress.run(marker.open_workspace(workspace), more, goal=goal)
    if as_json:
        click.echo(json.dumps(found.to_json()))
        return
    for sentence in (*_labels(found), *_accuracy(found)):
        terminal.say_sentence(sentence)
    if found.classes.height:
        _show_classes(found)
    if found.short:
        terminal.say_sentence(f"Classes with fewer than {progress.SHORT} labels: {', '.join(found.short)}.")


def _labels(found: "Progress") -> list[str]:
    """How many labels there are, and which of them count as drawn at random."""
    known = f"the classes of {found.known:,} are known"
    told = [f"{_images(found.labelled)} labelled: {known}, and {found.controls:,} of these are drawn at random."]
    if found.unknown:
        told.append(f"{_images(found.unknown)} drawn at random too, and left out, since no class is known.")
    if found.missing and found.behind:
        out, new = found.missing_out, found.missing - found.missing_out
        ways = [f"{out:,} that {_is(out)} handed out already"] if out else []
        if new:
            ways.append(f"{new:,} that `wtl export --new {new} --control {new}` hands out")
        others = "another one is" if found.missing == 1 else f"{found.missing:,} others are"
        told.append(
            f"{found.behind:,} more will count as drawn at random when {others} labelled: {' and '.join(ways)}."
        )
    return told


def _accuracy(found: "Progress") -> list[str]:
    """What the labels teach, whether choosing helped, and what more labels bring."""
    if found.accuracy is None:
        advice = " `wtl export --control 10%` draws some at random." if found.lacks_controls else ""
        return [f"Accuracy is not known yet: {found.lacking}.{advice}"]
    told = [
        f"Accuracy: {_percent(found.accuracy)}, the 95 % interval in brackets. A linear probe, a simple "
        f"classifier, learned from {found.taught:,} labels and was tested on the {found.controls:,} images that were "
        "drawn at random."
    ]
    if found.comparison is None:
        told.append(
            f"Whether choosing helped is not known yet: it takes {found.compared:,} labelled picks of batches, "
            f"found {found.picks:,}. `wtl export` hands out batches; picks of `wtl cut` are recorded nowhere."
        )
    else:
        told.append(_choosing(found.comparison))
    if found.forecast is not None:
        told.append(
            f"{found.forecast.more:,} more labels will bring about {_points(found.forecast.gain)}, "
            f"judging by other data{'; forecasts this far ahead were not checked' if found.is_far else ''}."
        )
    if found.goal is not None:
        told.append(found.goal.sentence())
    return told


def _choosing(compared: "Comparison") -> str:
    labels, gain = f"{compared.labels:,}", compared.difference
    verdict = "Whether choosing helped cannot be told from so few labels"
    if gain.low > 0:
        verdict = "Choosing helped"
    if gain.high < 0:
        verdict = "Choosing did not help"
    picks = f"the first {labels} picks teach an accuracy of {100 * compared.by_picks:.1f} %"
    return f"{verdict}: {picks}, {labels} random images {100 * compared.by_controls:.1f} %; {_points(gain)}."


def _show_classes(found: "Progress") -> None:
    terminal.say()
    terminal.say(f"{'class':24} {'labels':>7} {'of labels':>9} {'of the pool':>16} {'next picks':>11}")
    for row in found.classes.iter_rows(named=True):
        pool = "" if row["pool_share"] is None else f"{row['pool_low']:.1%} to {row['pool_high']:.1%}"
        coming = "" if row["next"] is None else f"{row['next']:,.0f}"
        terminal.say(f"{row['class'][:24]:24} {row['labels']:>7,} {row['share']:>9.1%} {pool:>16} {coming:>11}")
    terminal.say()


def _images(count: int) -> str:
    return "1 image is" if count == 1 else f"{count:,} images are"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _percent(estimate: "Estimate") -> str:
    return f"{100 * estimate.value:.1f} % ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"


def _points(estimate: "Estimate") -> str:
    return f"{100 * estimate.value:+.1f} points ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f})"
