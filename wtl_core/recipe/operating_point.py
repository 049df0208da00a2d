"""Operating points: `500` counts images, `7.5%` is a share of a ranking's rows."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Self

from wtl_core.errors import ConfigError

_FORM = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*(?P<percent>%?)")


@dataclass(frozen=True)
class OperatingPoint:
    """A prefix of a ranking by its size: a count of images, or a percentage of the rows.

    Attributes:
        number: The count or the percentage; exact, since by floats 64.6 % of 250 are 161 and not 162.
        is_percent: Which of the two.
        text: `500` or `7.5%`, with the digits that were given.
    """

    number: Fraction
    is_percent: bool
    text: str

    @classmethod
    def parse(cls, value: int | str) -> Self:
        """Read `500`, `"500"` or `"7.5%"`.

        Raises:
            ValueError: neither a count above 0 nor a percentage above 0 and up to 100.
        """
        found = _FORM.fullmatch(str(value).strip())
        # Not Fraction("9..."), nor int("9..."): Python refuses to read integers of over 4300 digits from text.
        number = Fraction(Decimal(found["number"])) if found else Fraction(0)
        is_percent = bool(found and found["percent"])
        if found is None or number == 0 or (is_percent and number > 100):
            raise ValueError("expected a count above 0 or a percentage above 0 and at most 100 %, like 500 or 7.5%")
        if not is_percent and number.denominator > 1:
            raise ValueError(f"expected a whole number of images, or a percentage: did you mean {found['number']}%")
        return cls(number, is_percent, found["number"] + found["percent"])

    @property
    def written(self) -> int | str:
        """As recipes and results hold it: `500` or `"7.5%"`."""
        return self.text if self.is_percent else int(self.number)

    def of(self, total: int) -> int:
        """Images in the prefix of `total` >= 1 rows: `p%` is max(1, floor(p N / 100 + 0.5)), a count at most all."""
        if self.is_percent:
            return max(1, int(self.number * total / 100 + Fraction(1, 2)))
        return min(int(self.number), total)

    def within(self, total: int) -> int:
        """Like `of`, but more images than there are rows are refused. Raises ConfigError."""
        if not self.is_percent and self.number > total:
            raise ConfigError(
                f"{self.text}: expected at most the {total} images that are ranked; ask for fewer, or for 100%"
            )
        return self.of(total)


def percents_of(total: int) -> list[int]:
    """Images in 1 %, 2 %, ... 100 % of `total` >= 1 rows."""
    return [OperatingPoint.parse(f"{percent}%").of(total) for percent in range(1, 101)]
