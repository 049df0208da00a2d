"""The benchmark's pictures: accuracy over per cent, and the labels that random picks would have needed."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wtl_core.benchmark import statistics
from wtl_core.benchmark.params import ORACLES
from wtl_core.benchmark.statistics import BASELINE, Mean

_OURS, _RANDOM = "#0b6e4f", "#5f6670"
_OTHERS = ("#c2571a", "#3566b8", "#8b3fa0", "#b58900", "#a1283b", "#2a8c9c", "#6b7f1e", "#7a5230", "#d0679d", "#4b4bb0")
_MOST_BANDS = 4
Curves = dict[str, list[Mean]]


def accuracy_figure(curves: Curves, *, title: str) -> Figure:
    """Accuracy over per cent of the pool, budgets in logarithm and straight, with 95 % bands of the means.

    Of many strategies only ours and random get bands; the table has all intervals.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    logarithmic, straight = figure.subplots(1, 2)
    for axes in (logarithmic, straight):
        for name, color, points in _coloured(curves):
            _draw(axes, name, color, points, has_band=len(curves) <= _MOST_BANDS)
        axes.set(xlabel="per cent of the pool labelled", ylabel="test accuracy, %")
        _plain(axes)
    logarithmic.set_xscale("log")
    logarithmic.xaxis.set_major_formatter("{x:g}")
    logarithmic.set_title(title)
    straight.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def saved_figure(curves: Curves, *, title: str) -> Figure:
    """Labels that random picks need for the accuracy that each strategy reaches with the labels below."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    baseline = curves.get(BASELINE, [])
    for name, color, points in _coloured({name: c for name, c in curves.items() if name != BASELINE}):
        needed = [(p.labels, statistics.random_labels_needed(baseline, p.mean)) for p in points]
        shown = [(labels, random) for labels, random in needed if random is not None]
        if shown:
            axes.plot(*zip(*shown, strict=True), color=color, marker="o", markersize=4, label=name)
    budgets = [point.labels for point in baseline]
    if budgets:
        axes.plot(budgets, budgets, color=_RANDOM, linestyle="--", linewidth=1, label="random")
    axes.set(xlabel="labels", ylabel="random labels for equal accuracy", xscale="log", yscale="log", title=title)
    axes.legend(frameon=False, fontsize=8)
    _plain(axes)
    return figure


def to_svg(figure: Figure) -> str:
    """An SVG element without a prolog, for a page to contain."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def to_png(figure: Figure) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def curves_of(rows: Sequence[dict[str, Any]], *, pool: str, judge: str) -> Curves:
    """Every strategy's curve on one pool by one judge, in the order in which they were asked for."""
    names = dict.fromkeys(row["strategy"] for row in rows if row["pool"] == pool and row["judge"] == judge)
    return {name: statistics.curve(rows, pool=pool, judge=judge, strategy=name) for name in names}


def _coloured(curves: Curves) -> list[tuple[str, str, list[Mean]]]:
    """Names with colours and points; ours and random always look the same."""
    others = [name for name in curves if name not in ("coverage", BASELINE)]
    colors = {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(others)}
    return [(n, {"coverage": _OURS, BASELINE: _RANDOM}.get(n) or colors[n], points) for n, points in curves.items()]


def _draw(axes: Axes, name: str, color: str, points: list[Mean], *, has_band: bool) -> None:
    percent = [point.percent for point in points]
    is_main = name in ("coverage", BASELINE)
    axes.plot(
        percent,
        [point.mean for point in points],
        color=color,
        linewidth=2.2 if is_main else 1.2,
        marker="o",
        markersize=3,
        linestyle="-" if points and points[0].label_waits <= 1 else "--",
        label=f"{name} (oracle)" if name in ORACLES else name,
    )
    if has_band or is_main:
        low, high = [point.low for point in points], [point.high for point in points]
        axes.fill_between(percent, low, high, color=color, alpha=0.2 if is_main else 0.1, linewidth=0)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
