"""What the commands print for a person: results on stdout, everything else on stderr.

File names come from outside and may hold anything, so nothing is printed but by `say`, and by loggers set up here.
"""

import logging
import shlex
import shutil
import sys
import textwrap
import unicodedata

import click

from wtl_core.report import decision
from wtl_core.report.status import PERCENTS, Status
from wtl_core.report.summary import Summary
from wtl_core.upkeep.doctor import Findings
from wtl_core.workspace.selections import Summary as RankingSummary

VERBOSE = "wtl.is_verbose"
"""Key of a command's context under which `--verbose` is noted."""
_CORE = logging.getLogger("wtl_core")
_PROGRESS = "wtl_core.progress"
_LEAST_WIDTH = 40
"""Narrower terminals, and those of unknown width, wrap lines themselves."""
_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of what steers a terminal or a line and shows nothing itself."""


def printable(text: str) -> str:
    """`text` as one line that a terminal can only show: control characters and line ends become escapes."""
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in _UNSEEN else sign for sign in text
    )


def say(text: str = "", *, is_message: bool = False) -> None:
    """Print a line: a result on stdout, a message on stderr."""
    click.echo(printable(text), err=is_message)


class PrintableLines(logging.Formatter):
    """Log lines that a terminal can only show; tracebacks, which only --debug asks for, stay as they are."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, logging's name
        """The line without its traceback."""
        return printable(super().formatMessage(record))


def set_debug(*, is_debug: bool) -> None:
    """Log every line of the core, and let tracebacks be shown, from now on; nothing changes if `is_debug` is false."""
    if is_debug:
        _CORE.setLevel(logging.DEBUG)


def is_debug() -> bool:
    """Whether `--debug` was given."""
    return _CORE.isEnabledFor(logging.DEBUG)


def configure_logging() -> None:
    """On stderr: progress and warnings of the core, or all that it says if `--verbose` or `--debug` was given.

    The core's lines reach the log of a Prefect run either way. Times stand before them where nobody watches.
    """
    handler = logging.StreamHandler(sys.stderr)
    form = "%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s"
    handler.setFormatter(PrintableLines(form, datefmt="%H:%M:%S"))
    if not (is_debug() or click.get_current_context().meta.get(VERBOSE)):
        handler.addFilter(lambda record: record.levelno >= logging.WARNING or record.name == _PROGRESS)
    _CORE.addHandler(handler)
    if not is_debug():
        _CORE.setLevel(logging.INFO)


def say_field(name: str, text: str) -> None:
    """Print `text` behind a name in its column; on a terminal that is too narrow, in several lines below each other."""
    _say_wrapped(f"{name:<12} {text}", indent=13)


def say_sentence(text: str) -> None:
    """Print a sentence, on a terminal in lines that fit."""
    _say_wrapped(text, indent=0)


def _say_wrapped(text: str, *, indent: int) -> None:
    line = printable(text)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    if width < _LEAST_WIDTH or len(line) <= width:
        click.echo(line)
        return
    below = " " * indent
    for part in textwrap.wrap(line, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False):
        click.echo(part)


def show_unchanged(result: Summary, *, number: int, created: str) -> None:
    """The end of a `wtl run` that found nothing to do, so that refresh `number` of that time stands."""
    say_field("unchanged", f"nothing new since {created}; refresh {number} of {result.workspace} stands")
    say_sentence(result.decision.sentence)
    _show_ranking(result.ranking)


def show_run(result: Summary, workspace: str) -> None:
    """The end of `wtl run`: what the picks give, what changed, counts by stage, coverage, seconds, where things lie."""
    say_sentence(result.decision.sentence)
    if told := _found(result) if result.refresh == 1 else result.changed:
        say_sentence(told)
    say()
    say(f"workspace    {result.workspace}  (refresh {result.refresh})")
    say(f"read         {result.read:,} = {result.locations:,} images + {result.ignored:,} ignored")
    say(
        f"pool         {result.samples:,} samples, {result.duplicates:,} duplicates, "
        f"{result.quarantined:,} quarantined; {result.new_samples:,} new"
    )
    for name, counts in result.by_source.items() if len(result.by_source) > 1 else ():
        say(f"  {counts.locations:,} images, {counts.quarantined:,} quarantined in {name}")
    say(f"vectors      {result.vectors:,} by encoder {result.encoder[:12]}")
    if result.encoder_advice is not None:
        say_field("advice", result.encoder_advice)
    skipped = f", {result.skipped:,} skipped" if result.skipped else ""
    skipped += f", {result.held_out:,} held out for validation and test" if result.held_out else ""
    say(f"ranking      {result.ranked:,} ranked, {result.picks:,} picked (budget {result.budget or 'none'}){skipped}")
    _show_ranking(result.ranking)
    say()
    if result.coverage:  # empty where nothing is left to label
        say("labelled     " + "".join(f"{percent + ' %':>8}" for percent in PERCENTS))
        for label, of in (("  reached", result.coverage), ("  at random", result.random_coverage)):
            say(f"{label:<13}" + "".join(f"{_reached(of[at], result.coverage):>8}" for at in PERCENTS))
        say()
    say("seconds      " + ", ".join(f"{stage} {value:.1f}" for stage, value in result.seconds.items()))
    is_stopped = result.ranking.stop_reason not in (None, "budget")
    at = result.picks if is_stopped and result.picks else result.budget or "5%"
    cut = f"wtl cut --at {at} -w {shlex.quote(workspace)}"
    say(f"picks        {result.selection}/ranking.parquet{f'  ({cut})' if result.ranked else ''}")
    say(f"report       {result.report}")
    if result.refresh == 1 and result.ranked:
        say()
        say("What to do next: look at the picks, label them, and come back with the labels.")
        _say_commands(cut, shlex.quote(workspace))


def _found(result: Summary) -> str:
    """What the first refresh found, as a sentence."""
    copies = f", {result.duplicates:,} more are copies of these" if result.duplicates else ""
    named = "" if result.changes is None or not result.changes.refused else f" ({result.changes.named()})"
    refused = f"; {result.quarantined:,} files were refused{named}" if result.quarantined else ""
    return f"{result.samples:,} images were found{copies}{refused}."


def _say_commands(cut: str, workspace: str) -> None:
    steps = {
        f"wtl report --open -w {workspace}": "the picks, a map of the pool, how many are enough",
        f"{cut} -o picks.csv": "the images to label, best first",
        f"wtl labels add picks.csv -w {workspace}": "when they are labelled; then run again",
    }
    width = max(map(len, steps))
    for command, what in steps.items():
        say(f"  {command:<{width}}  # {what}")


def show_status(status: Status) -> None:
    """`wtl status` for a person."""
    if status.last is None or status.ranking is None:
        say(f"workspace    {status.workspace}")
    if status.writer is not None:
        dead = "" if status.writer.is_alive else " (dead)"
        say(f"writer       process {status.writer.pid} on {status.writer.host}{dead}")
    last = status.last
    if last is None or status.ranking is None:
        say("refresh      none yet; `wtl run SOURCE --workspace DIR` makes the first")
        return
    counts = last.counts
    if status.decision is not None:
        say_sentence(status.decision.sentence)
    if changed := decision.what_changed(last):
        say_sentence(changed)
    for count, what in ((status.labelled_since, "labelled"), (status.skipped_since, "skipped")):
        if count:
            images = "image is" if count == 1 else "images are"
            say_sentence(f"{count:,} {images} {what} since; `wtl run` ranks the rest anew.")
    say()
    say(f"workspace    {status.workspace}")
    say(f"refresh      {last.number}, {last.created}")
    say_field("sources", ", ".join(last.sources))
    say(f"pool         {counts.samples:,} samples, {counts.quarantined:,} quarantined")
    if any(status.skipped.values()):
        say(f"skipped      {', '.join(f'{count:,} {reason}' for reason, count in status.skipped.items() if count)}")
    if status.split:
        say(f"split        {', '.join(f'{count:,} {side}' for side, count in status.split.items())}")
    say(f"encoder      {last.encoder_name}, {last.encoder[:12]}")
    if status.encoder_advice is not None:
        say_field("advice", status.encoder_advice)
    say(f"ranking      {counts.ranked:,} ranked, {counts.picks:,} picked (budget {last.budget or 'none'})")
    _show_ranking(status.ranking)
    for percent in PERCENTS if last.coverage else ():
        ours, random = (_reached(of[percent], last.coverage) for of in (last.coverage, last.random_coverage))
        say(f"  at {percent + ' %':<6} {ours} reached, at random {random}")
    say(f"report       {status.workspace}/{last.report}")


def _reached(coverage: float, by_percent: dict[str, float]) -> str:
    """Coverage as a share of what labelling everything would give; 0 in a pool that nothing can be measured in."""
    return f"{100 * coverage / (by_percent['100'] or 1):.1f} %"


def _show_ranking(ranking: RankingSummary) -> None:
    """What ended the picks if not the budget, what quotas did, and what is next."""
    if ranking.stop_reason not in (None, "budget"):
        say(f"stop         {ranking.stop_reason}")
    if ranking.quota_cost is not None:
        cost = f"cost {ranking.quota_cost:.4f} coverage of the pool"
        say(f"quotas       hold for the first {ranking.quotas_until:,} picks, {cost}")
    if ranking.advice is not None:
        say_field("next", ranking.advice)


def show_doctor(findings: Findings) -> None:
    """`wtl doctor` for a person: one line a finding, with advice where it is needed."""
    for finding in findings.findings:
        mark = "ok  " if finding.is_good else "FAIL"
        advice = "" if finding.is_good else f"; {finding.advice}"
        say(f"{mark} {finding.what:<12} {finding.found}{advice}")
