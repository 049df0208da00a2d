"""Draws the figures of docs/concepts.md from small pools of points, ranked and measured by the real code.

The figure of docs/scale.md is drawn from the reports of the benches.

    python -m tests.docs_figures

The same pictures each time with the same matplotlib: every draw has a seed, and the files hold no date.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wtl_core.recipe.selection import LadderParams, SelectionParams
from wtl_core.selection import ladder, ranking
from wtl_core.selection.result import Ranking

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
REPORTS = Path(__file__).parent / "bench" / "reports"
_POOL, _PICK, _LINE, _RANDOM = "#9aa5b1", "#00724f", "#c9d2da", "#b4541a"
_RADIANS_PER_UNIT = 0.5
"""The plane of the pictures is a patch of the unit sphere, where distances are nearly those on the page."""


def draw() -> dict[str, Figure]:
    """Every figure by the name of its file."""
    makers: dict[str, Callable[[], Figure]] = {
        "coverage.svg": _coverage,
        "kernel.svg": _kernel,
        "ladder.svg": _ladder,
        "tail.svg": _tail,
        "near_duplicates.svg": _near_duplicates,
        "scale.svg": _scale,
    }
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        return {name: make() for name, make in makers.items()}


def write(folder: Path = FOLDER) -> None:
    """Write every figure into `folder`."""
    with matplotlib.rc_context({"svg.hashsalt": "wtl", "svg.fonttype": "none", "font.family": "sans-serif"}):
        for name, figure in draw().items():
            figure.savefig(folder / name, metadata={"Date": None, "Creator": None}, facecolor="white")


def _points(seed: int = 3) -> np.ndarray:
    """Positions (N, 2) of a small pool: three crowds of unequal size, and some images that are alone."""
    rng = np.random.default_rng(seed)
    crowds = [((-0.9, 0.2), 0.28, 110), ((0.5, 0.6), 0.2, 50), ((0.7, -0.6), 0.13, 25)]
    alone = rng.uniform((-1.6, -1.1), (1.4, 1.2), (15, 2))
    return np.concatenate([*(rng.normal(place, spread, (count, 2)) for place, spread, count in crowds), alone])


def _vectors(points: np.ndarray) -> np.ndarray:
    """The points on the unit sphere, (N, 3) float32."""
    angles = points * _RADIANS_PER_UNIT
    x, y = np.sin(angles[:, 0]), np.sin(angles[:, 1])
    return np.stack([x, y, np.sqrt(1 - x**2 - y**2)], axis=1).astype(np.float32)


def _ids(points: np.ndarray) -> list[str]:
    return [f"{row:064x}" for row in range(len(points))]


def _ranked(points: np.ndarray, scale: float = 0.12, **fields: object) -> Ranking:
    params = SelectionParams.model_validate({"near_duplicate_distance": 0.0, **fields})
    return ranking.rank(_vectors(points), params, sample_ids=_ids(points), scale=scale)


def _coverage() -> Figure:
    points = _points()
    chosen = _ranked(points).rows[:12]
    figure = Figure((7.2, 3.0), layout="constrained")
    axes = figure.subplots(1, 2)
    others = np.random.default_rng(8).permutation(len(points))[:12]
    _links(axes[0], points, others, _RANDOM, "12 random picks")
    _links(axes[1], points, chosen, _PICK, "the first 12 of the ranking")
    return figure


def _links(axes: Axes, points: np.ndarray, picks: np.ndarray, colour: str, title: str) -> None:
    nearest = picks[np.linalg.norm(points[:, None] - points[picks][None], axis=2).argmin(1)]
    gap = np.full_like(points, np.nan)  # one line with gaps: a file of a tenth of the size
    axes.plot(*np.stack([points, points[nearest], gap], axis=1).reshape(-1, 2).T, color=_LINE, linewidth=0.6)
    axes.plot(*points.T, "o", markersize=2.5, color=_POOL)
    axes.plot(*points[picks].T, "o", markersize=6, color=colour)
    _bare(axes, title)


def _bare(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_aspect("equal")
    axes.axis("off")


def _kernel() -> Figure:
    figure = Figure((5.4, 2.6), layout="constrained")
    axes = figure.subplots()
    distance = np.linspace(0, 3, 121)
    axes.plot(distance, np.exp(-(distance**2)), color=_PICK, linewidth=2, label="gaussian: exp(-(d/s)²)")
    axes.plot(distance, np.exp(-distance), color=_RANDOM, linewidth=1.2, label="laplace: exp(-d/s)")
    axes.axvline(1, color=_LINE, linewidth=1)
    axes.set(xlabel="distance d of two images, in units of the scale s", ylabel="similarity", ylim=(0, 1.02))
    axes.legend(frameon=False)
    return figure


def _ladder() -> Figure:
    points = _points()
    measured = ladder.measure(
        _vectors(points), _ranked(points), LadderParams(random_draws=20), sample_ids=_ids(points), scale=0.12
    )
    ceiling = measured.coverage[-1]
    ours, random = 100 * measured.coverage / ceiling, 100 * measured.random_coverage_mean / ceiling
    figure = Figure((5.4, 3.0), layout="constrained")
    axes = figure.subplots()
    low, high = (100 * bound / ceiling for bound in (measured.random_coverage_low, measured.random_coverage_high))
    axes.fill_between(measured.percent, low, high, color=_LINE, linewidth=0)
    axes.plot(measured.percent, random, color=_POOL, linewidth=1.4, label="random picks, 95 % interval")
    axes.plot(measured.percent, ours, color=_PICK, linewidth=2, label="the ranking")
    here = 9
    there = float(np.interp(ours[here], np.maximum.accumulate(random), measured.percent))
    arrow = {"arrowstyle": "<->", "color": _RANDOM}
    axes.annotate("", (measured.percent[here], ours[here]), (there, ours[here]), arrowprops=arrow)
    text = f"{measured.percent[here]} % of the ranking cover as much\nas {there:.0f} % at random"
    axes.text(measured.percent[here] + 2, ours[here] - 13, text, color=_RANDOM, fontsize=8)
    axes.set(xlabel="per cent of the pool labelled", ylabel="% of the coverage of all", ylim=(20, 103))
    axes.legend(frameon=False, loc="lower right")
    return figure


def _tail() -> Figure:
    figure = Figure((5.4, 2.2), layout="constrained")
    axes = figure.subplots()
    share, typical = np.linspace(0, 0.99, 100), 0.57
    axes.plot(100 * share, 1 - (1 - typical) * np.minimum(2 * share / (1 - share), 1), color=_PICK, linewidth=2)
    axes.axhline(typical, color=_LINE, zorder=0)
    axes.text(1, typical + 0.03, "that of a typical neighbour", fontsize=8)
    axes.set(
        xlabel="per cent of the pool picked or labelled", ylabel="similarity to itself", xlim=(0, 100), ylim=(0, 1.05)
    )
    return figure


def _near_duplicates() -> Figure:
    rng = np.random.default_rng(5)
    scenes = rng.uniform((-1.2, -0.8), (1.2, 0.8), (24, 2))
    burst = scenes[0] + rng.normal(0, 0.02, (30, 2))
    points = np.concatenate([scenes, burst])
    figure = Figure((7.2, 2.8), layout="constrained")
    for axes, is_shared in zip(figure.subplots(1, 2), (False, True), strict=True):
        found = _ranked(points, scale=0.25, near_duplicate_distance=0.05, has_duplicate_weights=is_shared)
        sizes = np.empty(len(points))
        sizes[found.rows] = found.weights
        for size in np.unique(sizes.round(2)):
            some = points[sizes.round(2) == size]
            axes.plot(*some.T, "o", markersize=11 * size**0.5 + 1, color=_LINE, markeredgecolor=_POOL)
        for rank, row in enumerate(found.rows[:6], 1):
            axes.annotate(str(rank), points[row], ha="center", va="center", color=_PICK, fontsize=10, fontweight="bold")
        _bare(axes, "a burst shares the weight of one image" if is_shared else "each frame counts as an image")
    return figure


def _scale() -> Figure:
    rows = [row for row in _table("scale.md", "Refreshes") if "power" not in row["refresh"]]
    figure = Figure((7.2, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    stages = (("ingest", _LINE), ("embedding", _RANDOM), ("selection", _PICK), ("report", _POOL))
    for part, refresh, title in zip(
        axes, ("first", "1,000 more"), ("a first refresh", "1,000 images more"), strict=True
    ):
        found = [row for row in rows if row["refresh"] == refresh]
        sizes = [_number(row["images"]) for row in found]
        for stage, colour in stages:
            part.plot(sizes, [_number(row[f"{stage}, s"]) for row in found], color=colour, marker=".", label=stage)
        part.set(xscale="log", yscale="log", title=title, xlabel="images of the pool")
    (large,) = _table("regions.md", "10,000,000 vectors")
    seconds = _number(large["rank s"]) + _number(large["ladder s"])
    axes[0].plot(_number(large["rows"]), seconds, color=_PICK, marker="s", linestyle="", label="selection by regions")
    axes[0].set_ylabel("seconds")
    axes[0].legend(frameon=False, fontsize=8)
    return figure


def _table(report: str, section: str) -> list[dict[str, str]]:
    """The table of a section of a bench's report."""
    text = (REPORTS / report).read_text().split(f"## {section}")[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def _number(text: str) -> float:
    return float(text.replace(",", ""))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    write()
