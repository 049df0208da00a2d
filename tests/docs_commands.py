"""The `wtl` commands that pages show, as words; also blocks of other languages."""

import re
import shlex
from pathlib import Path

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language in a page, in order."""
    return [text for named, text in _BLOCK.findall(page.read_text()) if named == language]


def commands(page: Path) -> list[list[str]]:
    """The words behind `wtl` of each line in a fenced block that is a command, comments left out."""
    lines = [line for _, text in _BLOCK.findall(page.read_text()) for line in text.replace("\\\n", " ").splitlines()]
    found = [re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*wtl (?!  )(.*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def mentions(page: Path) -> list[str]:
    """What stands between backticks in running text and begins with `wtl`, such as `wtl cut --at 5%`."""
    text = _BLOCK.sub("", page.read_text())
    return [" ".join(found.split()) for found in re.findall(r"`(wtl [a-z][^`]*)`", text)]
