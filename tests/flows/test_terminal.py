"""What is printed of names that come from outside."""

import logging
from typing import Any

import pytest

from flows import terminal
from wtl_core.errors import InputError

EVIL = "/data/\x1b]0;owned\x07\nwtl: all is well\u202e\x9b31m"
SHOWN = "/data/\\x1b]0;owned\\x07\\nwtl: all is well\\u202e\\x9b31m"


def test_what_steers_a_terminal_is_shown_as_an_escape_and_letters_stay() -> None:
    assert terminal.printable(EVIL) == SHOWN
    assert terminal.printable("Zürich/東京 #1 %.jpg") == "Zürich/東京 #1 %.jpg"
    assert terminal.printable("\udce9.jpg") == "\\udce9.jpg"


def test_the_status_names_hostile_sources_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status: dict[str, Any] = {
        "workspace": "/w",
        "writer": None,
        "refresh": 1,
        "created": "now",
        "sources": [EVIL],
        "encoder": {"name": "pixels", "fingerprint": "0" * 64},
        "encoder_advice": None,
        "counts": {"samples": 1, "quarantined": 0, "ranked": 1, "picks": 0},
        "budget": None,
        "coverage": dict.fromkeys(("1", "5", "10"), 0.5),
        "random_coverage": dict.fromkeys(("1", "5", "10"), 0.5),
        "report": "/w/report.html",
    }
    terminal.show_status(status)
    shown = capsys.readouterr().out
    assert f"sources      {SHOWN}\n" in shown
    assert "\x1b" not in shown


def test_log_lines_and_refusals_hold_no_control_characters() -> None:
    line = logging.makeLogRecord({"msg": "%s: %d objects", "args": (EVIL, 3), "levelname": "INFO"})
    assert terminal.PrintableLines("%(message)s").format(line) == f"{SHOWN}: 3 objects"
    error = InputError(EVIL)
    refusal = logging.makeLogRecord({"msg": "failed: %s", "args": (EVIL,), "exc_info": (InputError, error, None)})
    assert terminal.ExpectedRefusals().filter(refusal)
    assert (refusal.getMessage(), refusal.exc_info) == (f"failed: {SHOWN}", None)
