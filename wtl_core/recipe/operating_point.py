"""Operating points: `100` counts images, `7.5%` is a share of a ranking's rows."""

import re
from decimal import Decimal
from fractions import Fraction

from wtl_core.errors import ConfigError

_FORM = re.compile(r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*(?P<percent>%?)")


def count_at(point: str, total: int) -> int:
    """Images in the prefix that `point` names, of `total` >= 1 rows: `p%` is max(1, floor(p N / 100 + 0.5)).

    Raises:
        ConfigError: not a count or a percentage, zero, above 100 %, or above the number of rows.
    """
    number, is_percent = _parse(point)
    if is_percent:
        return percent_count(number, total)
    if number > total:
        raise ConfigError(f"{point}: expected at most the {total} images that are ranked; ask for fewer, or for 100%")
    return int(number)


def percent_count(percent: Fraction, total: int) -> int:
    """Images in `percent` % of `total` rows, at least one. Exact: by floats 64.6 % of 250 are 161, not 162."""
    return max(1, int(percent * total / 100 + Fraction(1, 2)))


def exact(number: str) -> Fraction:
    """A number as written, `7.5`, however many digits it has."""
    return Fraction(Decimal(number))  # not of the text itself: Python refuses to read integers of over 4300 digits


def check_point(point: str) -> None:
    """Refuse a malformed operating point before any work. Raises ConfigError; a count too large is only seen later."""
    _parse(point)


def _parse(point: str) -> tuple[Fraction, bool]:
    found = _FORM.fullmatch(point.strip())
    if found is None:
        raise ConfigError(f"{point!r}: expected a count such as 500 or a percentage such as 7.5%, found neither")
    number, is_percent = exact(found["number"]), bool(found["percent"])
    if number == 0 or (is_percent and number > 100):
        raise ConfigError(f"{point!r}: expected more than 0 and at most 100 %; ask for a share between the two")
    if not is_percent and number.denominator > 1:
        raise ConfigError(f"{point!r}: expected a whole number of images, found a fraction; did you mean {point}%")
    return number, is_percent
