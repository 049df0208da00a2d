"""What the commands print for a person: results on stdout, everything else on stderr.

File names come from outside and may hold anything, so nothing is printed but by `say`, and by loggers set up here.
"""

import logging
import sys
import unicodedata

import click

from wtl_core.report.status import PERCENTS, Status
from wtl_core.report.summary import Summary
from wtl_core.upkeep.doctor import Findings
from wtl_core.workspace.selections import Summary as RankingSummary

_CORE = logging.getLogger("wtl_core")
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
    """Plain lines of the core on stderr where no progress bar is; prefect's console only for what went wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PrintableLines("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    _CORE.addHandler(handler)
    if not is_debug():
        _CORE.setLevel(logging.WARNING if sys.stderr.isatty() else logging.INFO)


def show_unchanged(result: Summary, *, number: int, created: str) -> None:
    """The end of a `wtl run` that found nothing to do, so that refresh `number` of that time stands."""
    say(f"unchanged    nothing new since {created}; refresh {number} of {result.workspace} stands")
    _show_ranking(result.ranking)


def show_run(result: Summary) -> None:
    """The end of `wtl run`: counts by stage, coverage beside random's, seconds, and where things lie."""
    say(f"workspace    {result.workspace}")
    say(f"read         {result.read:,} = {result.locations:,} images + {result.ignored:,} ignored")
    say(
        f"pool         {result.samples:,} samples, {result.duplicates:,} duplicates, "
        f"{result.quarantined:,} quarantined; {result.new_samples:,} new"
    )
    for name, counts in result.by_source.items() if len(result.by_source) > 1 else ():
        say(f"  {counts['locations']:,} images, {counts['quarantined']:,} quarantined in {name}")
    say(f"vectors      {result.vectors:,} by encoder {result.encoder[:12]}")
    if result.encoder_advice is not None:
        say(f"advice       {result.encoder_advice}")
    say(f"ranking      {result.ranked:,} ranked, {result.picks:,} picked (budget {result.budget or 'none'})")
    _show_ranking(result.ranking)
    if result.pick_changes is not None:
        say(f"changes      {result.pick_changes.in_words()}")
    say()
    if result.coverage:  # empty where nothing is left to label
        say("coverage     " + "".join(f"{percent + ' %':>10}" for percent in PERCENTS))
        for label, name in (("  this", "coverage"), ("  random", "random_coverage")):
            say(f"{label:<13}" + "".join(f"{getattr(result, name)[percent]:>10.4f}" for percent in PERCENTS))
        say()
    say("seconds      " + ", ".join(f"{stage} {value:.1f}" for stage, value in result.seconds.items()))
    cut = f"  (wtl cut --workspace {result.workspace} --at {result.budget or '5%'})" if result.ranked else ""
    say(f"picks        {result.selection}/ranking.parquet{cut}")
    say(f"report       {result.report}")


def show_status(status: Status) -> None:
    """`wtl status` for a person."""
    say(f"workspace    {status.workspace}")
    if status.writer is not None:
        dead = "" if status.writer.is_alive else " (dead)"
        say(f"writer       process {status.writer.pid} on {status.writer.host}{dead}")
    last = status.last
    if last is None or status.ranking is None:
        say("refresh      none yet; `wtl run SOURCE --workspace DIR` makes the first")
        return
    counts = last.counts
    say(f"refresh      {last.number}, {last.created}")
    say(f"sources      {', '.join(last.sources)}")
    say(f"pool         {counts.samples:,} samples, {counts.quarantined:,} quarantined")
    say(f"encoder      {last.encoder_name}, {last.encoder[:12]}")
    if status.encoder_advice is not None:
        say(f"advice       {status.encoder_advice}")
    say(f"ranking      {counts.ranked:,} ranked, {counts.picks:,} picked (budget {last.budget or 'none'})")
    _show_ranking(status.ranking)
    for percent in PERCENTS if last.coverage else ():
        ours, random = last.coverage[percent], last.random_coverage[percent]
        say(f"  at {percent + ' %':<6} coverage {ours:.4f}, random {random:.4f}")
    say(f"report       {status.workspace}/{last.report}")


def _show_ranking(ranking: RankingSummary) -> None:
    """What ended the picks if not the budget, what quotas did, and what is next."""
    if ranking.stop_reason not in (None, "budget"):
        say(f"stop         {ranking.stop_reason}")
    if ranking.quota_cost is not None:
        say(f"quotas       hold for the first {ranking.quotas_until:,} picks, cost {ranking.quota_cost:.4f} coverage")
    if ranking.advice is not None:
        say(f"next         {ranking.advice}")


def show_doctor(findings: Findings) -> None:
    """`wtl doctor` for a person: one line a finding, with advice where it is needed."""
    for finding in findings.findings:
        mark = "ok  " if finding.is_good else "FAIL"
        advice = "" if finding.is_good else f"; {finding.advice}"
        say(f"{mark} {finding.what:<12} {finding.found}{advice}")
