"""The benchmark's pictures: accuracy over per cent, and the labels that random picks would have needed."""

import io
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wtl_core.benchmark import statistics
from wtl_core.benchmark.params import ORACLES, STEERED, WAITING
from wtl_core.benchmark.statistics import BASELINE, Mean

_COLORS = {
    "random": "#5f6670", "coverage": "#0b6e4f", STEERED: "#00c17c",
    "class-balanced-random": "#111111", "stratified-random": "#3566b8",
    "k-center": "#d9661f", "typicality": "#8b3fa0", "probability-coverage": "#c99700", "mundig": "#27a3b5",
    "least-confidence": "#a1283b", "margin": "#6b7f1e", "entropy": "#e377c2", "mc-dropout": "#7a5230",
    "core-set": "#5a4fcf", "dal": "#4fb06d", "badge": "#f08a7a",
}  # fmt: skip
_MOST_BANDS = 4
Curves = dict[str, list[Mean]]


def accuracy_figure(curves: Curves, *, title: str) -> Figure:
    """Accuracy over per cent of the pool, budgets in logarithm and straight, with 95 % bands of the means.

    Of many strategies only ours and random get bands; the table has all intervals.
    """
    figure = Figure(figsize=(12, 5), layout="constrained")
    logarithmic, straight = figure.subplots(1, 2)
    for axes in (logarithmic, straight):
        for name, points in curves.items():
            _draw(axes, name, points, has_band=len(curves) <= _MOST_BANDS)
        axes.set(xlabel="per cent of the pool labelled", ylabel="test accuracy, %")
        _plain(axes)
    logarithmic.set_xscale("log")
    logarithmic.xaxis.set_major_formatter("{x:g}")
    logarithmic.set_title(title, parse_math=False)  # a set's name may hold dollar signs
    straight.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def saved_figure(curves: Curves, *, title: str) -> Figure:
    """Labels that random picks need for the accuracy that each strategy reaches with the labels below."""
    figure = Figure(figsize=(6.5, 5), layout="constrained")
    axes = figure.subplots()
    baseline = curves.get(BASELINE, [])
    for name, points in curves.items():
        if name == BASELINE:
            continue
        needed = [(p.labels, statistics.random_labels_needed(baseline, p.mean)) for p in points]
        shown = [(labels, random) for labels, random in needed if random is not None]
        if shown:
            axes.plot(*zip(*shown, strict=True), markersize=4, **_look(name))
    budgets = [point.labels for point in baseline]
    if budgets:
        axes.plot(budgets, budgets, color=_COLORS[BASELINE], linestyle=":", linewidth=1, label="random")
    axes.set(xlabel="labels", ylabel="random labels for equal accuracy", xscale="log", yscale="log")
    axes.set_title(title, parse_math=False)
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


def _draw(axes: Axes, name: str, points: list[Mean], *, has_band: bool) -> None:
    percent = [point.percent for point in points]
    is_main = name in ("coverage", STEERED, BASELINE)
    axes.plot(
        percent,
        [point.mean for point in points],
        linewidth=2.2 if is_main else 1.2,
        markersize=3,
        **_look(name),
    )
    if has_band or is_main:
        low, high = [point.low for point in points], [point.high for point in points]
        axes.fill_between(percent, low, high, color=_COLORS[name], alpha=0.2 if is_main else 0.1, linewidth=0)


def _look(name: str) -> dict[str, Any]:
    """A strategy's own, the same in every picture: what waits for labels is dashed, the oracle is marked as one."""
    return {
        "color": _COLORS[name],
        "marker": "o",
        "linestyle": "--" if name in WAITING else "-",
        "label": f"{name} (oracle)" if name in ORACLES else name,
    }


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
