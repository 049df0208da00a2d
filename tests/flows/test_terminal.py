"""What is printed of names that come from outside."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

import pytest

from flows.cli import terminal
from wtl_core.report.decision import Decision
from wtl_core.report.status import Status
from wtl_core.workspace.commits import Commit, PickChanges
from wtl_core.workspace.selections import Summary

EVIL = "/data/\x1b]0;owned\x07\nwtl: all is well\u202e\x9b31m"
SHOWN = "/data/\\x1b]0;owned\\x07\\nwtl: all is well\\u202e\\x9b31m"


def test_what_steers_a_terminal_is_shown_as_an_escape_and_letters_stay() -> None:
    assert terminal.printable(EVIL) == SHOWN
    assert terminal.printable("Zürich/東京 #1 %.jpg") == "Zürich/東京 #1 %.jpg"
    assert terminal.printable("\udce9.jpg") == "\\udce9.jpg"


SILENT = Summary(advice=None, stop_reason=None, quotas_until=None, quota_cost=None)
DECIDED = Decision(149, 355, 0.8234, 149, 0.8712, "149 labels cover as much as 355 random ones: 82 %.")
COUNTS = dict.fromkeys(
    ("read", "locations", "duplicates", "quarantined", "ignored", "filtered", "new_samples", "vectors", "picks"), 0
)


def status_of(ranking: Summary = SILENT, sources: Sequence[str] = ("/data",)) -> Status:
    coverage = {"1": 0.3, "5": 0.4, "10": 0.5, "100": 0.8}
    last = Commit.model_validate(
        {
            "number": 1,
            "created": "now",
            "sources": list(sources),
            "listing": "",
            "recipe": {},
            "encoder": "0" * 64,
            "encoder_name": "pixels",
            "vector_table_version": 1,
            "ledger_length": 0,
            "selection": "selections/1",
            "report": "report.html",
            "counts": {**COUNTS, "samples": 1, "ranked": 1},
            "budget": None,
            "coverage": coverage,
            "random_coverage": coverage,
            "seconds": {},
        }
    )
    return Status(
        "/w",
        writer=None,
        ledger=0,
        last=last,
        ranking=ranking,
        encoder_advice=None,
        decision=DECIDED,
        labelled_since=2,
        skipped={"unusable": 1, "redundant": 0},
        skipped_since=0,
        split={},
    )


def test_the_status_names_hostile_sources_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_status(status_of(sources=[EVIL]))
    shown = capsys.readouterr().out
    assert f"sources      {SHOWN}\n" in shown
    assert "  at 10 %   62.5 % reached, at random 62.5 %\n" in shown
    assert "\x1b" not in shown


def test_a_ranking_says_what_ended_it_what_quotas_did_and_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    ranking = Summary(advice="Go on.", stop_reason="gain_knee", quotas_until=1200, quota_cost=0.01234)
    terminal.show_status(status_of(ranking=ranking))
    shown = capsys.readouterr().out
    assert "stop         gain_knee\n" in shown
    assert "quotas       hold for the first 1,200 picks, cost 0.0123 coverage of the pool\n" in shown
    assert "next         Go on.\n" in shown
    terminal.show_status(status_of(ranking=replace(SILENT, stop_reason="budget")))
    assert not {"stop", "quotas", "next"} & {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}


def test_the_status_begins_with_the_sentence_that_decides_and_what_is_labelled_since(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal.show_status(status_of())
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == DECIDED.sentence
    assert second == "2 images are labelled since; `wtl run` ranks the rest anew."


def test_a_narrow_terminal_gets_lines_that_fit_and_a_file_gets_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    text = "word " * 30 + "/a/path/that/is/never/broken/" + "x" * 60
    terminal.say_field("next", text)
    assert capsys.readouterr().out == f"next         {text}\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    terminal.say_field("next", text)
    first, *below = capsys.readouterr().out.splitlines()
    assert first.startswith("next         word ")
    assert {line[:13] for line in below} == {" " * 13}
    assert max(len(line) for line in [first, *below[:-1]]) <= 60
    assert below[-1].endswith("/broken/" + "x" * 60)


def test_log_lines_hold_no_control_characters() -> None:
    line = logging.makeLogRecord({"msg": "%s: %d objects", "args": (EVIL, 3), "levelname": "INFO"})
    assert terminal.PrintableLines("%(message)s").format(line) == f"{SHOWN}: 3 objects"


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ((14, 11, 9), "11 of the 14 open picks stay, 9 are new"),
        ((1, 1, 0), "1 of the 1 open pick stays, 0 are new"),
        ((1200, 1, 3000), "1 of the 1,200 open picks stay, 3,000 are new"),
        ((0, 0, 1), "no pick was open, 1 is new"),
    ],
)
def test_changes_of_picks_are_counts_that_a_person_can_use(counts: tuple[int, int, int], words: str) -> None:
    open_before, stay, new = counts
    assert PickChanges(open=open_before, stay=stay, new=new).in_words() == words
