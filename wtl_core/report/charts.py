"""Pictures of a ladder, for the report and for the Prefect UI."""

import io
from functools import lru_cache

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLUMNS = ("percent", "coverage", "random_coverage_mean", "random_coverage_low", "random_coverage_high")
_OURS, _RANDOM = "#0b6e4f", "#8a8f98"
_MARGINS = {"left": 0.075, "right": 0.995, "bottom": 0.125, "top": 0.93, "wspace": 0.19}
"""Room for tick labels of six characters. A layout that measures them draws the figure twice: 0.2 s and not 0.1 s."""


def ladder_svg(rungs: pl.DataFrame) -> str:
    """The ladder as an SVG element without a prolog, for a page to contain."""
    return _drawn(tuple(rungs.select(_COLUMNS).iter_rows()))


@lru_cache(maxsize=1)
def _drawn(rows: tuple[tuple[float, ...], ...]) -> str:
    """Kept, since a run shows the same ladder in Prefect and in its report: 0.1 s."""
    buffer = io.StringIO()
    ladder_figure(pl.DataFrame(rows, schema=_COLUMNS, orient="row")).savefig(
        buffer, format="svg", metadata={"Date": None}
    )
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def ladder_figure(rungs: pl.DataFrame) -> Figure:
    """Two panels side by side: all operating points, and the first tenth, where labelling budgets are."""
    figure = Figure(figsize=(11, 4))
    whole, head = figure.subplots(1, 2, gridspec_kw=_MARGINS)
    _draw(whole, rungs, "Every operating point")
    _draw(head, rungs.filter(pl.col("percent") <= 10), "The first 10 %")
    whole.legend(frameon=False, loc="lower right")
    return figure


def _draw(axes: Axes, rungs: pl.DataFrame, title: str) -> None:
    percent = rungs["percent"].to_list()
    axes.plot(percent, rungs["coverage"].to_list(), color=_OURS, linewidth=2, label="this ranking")
    axes.plot(
        percent, rungs["random_coverage_mean"].to_list(), color=_RANDOM, linewidth=1.5, label="random, 95 % interval"
    )
    low, high = rungs["random_coverage_low"].to_list(), rungs["random_coverage_high"].to_list()
    axes.fill_between(percent, low, high, color=_RANDOM, alpha=0.3, linewidth=0)
    axes.set(xlabel="per cent of the pool picked", ylabel="coverage", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
