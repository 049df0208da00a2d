"""What each per cent of a ranking covers, beside random picks."""

from html import escape
from typing import TYPE_CHECKING

import polars as pl

from wtl_core.recipe.operating_point import OperatingPoint
from wtl_core.report import decision
from wtl_core.report.decision import Decision

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Ladder:
    """The coverage of every operating point from 1 to 100 %, in a table of a row for each.

    Attributes:
        table: The columns of `ladder.parquet`, see docs/workspace.md; no row where nothing is left to label.
        advice: What the figures say to do, in plain sentences.
    """

    def __init__(self, table: pl.DataFrame, *, advice: str = "", labelled: int = 0) -> None:
        self.table = table
        self.advice = advice
        self._labelled = labelled

    def at(self, point: int | str) -> Decision:
        """What labelling the images up to an operating point gives, in figures and as a sentence.

        Args:
            point: A count of images, or a share of the ranking such as `"7.5%"`.

        Raises:
            ConfigError: more images than are ranked.
            ValueError: no operating point.
        """
        rows = int(self.table["count"][-1]) if self.table.height else 0
        picks = OperatingPoint.parse(point).within(rows) if rows else 0
        return decision.decide(self.table, picks=picks, rows=rows, labelled=self._labelled)

    def plot(self) -> "Figure":
        """Coverage by per cent, all of it and the first tenth, beside random picks with their 95 % interval."""
        from wtl_core.report import charts  # imports Matplotlib

        return charts.ladder_figure(self.table)

    def __repr__(self) -> str:
        if self.table.is_empty():
            return "Ladder(nothing is left to label)"
        return f"Ladder({self.at('5%').sentence})"

    def _repr_html_(self) -> str:
        if self.table.is_empty():
            return "<p>Nothing is left to label.</p>"
        from wtl_core.report import charts

        return f"<p>{escape(self.at('5%').sentence)}</p>{charts.ladder_svg(self.table)}<p>{escape(self.advice)}</p>"
