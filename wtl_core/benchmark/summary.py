"""One page about a benchmark, as HTML and as Markdown: pictures, table, paired tests, costs, and where it does not win.

Here are its sentences and facts; pictures are drawn in `plots`, figures computed in `statistics`.
"""

import math
import os
import platform
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import torch

from wtl_core.benchmark import grid, grid_cells, plots, statistics, strategies
from wtl_core.benchmark.budgets import budgets_of
from wtl_core.benchmark.params import LOOPS, ORACLES, STEERED, WAITING, WITHOUT_VECTORS, BenchmarkParams
from wtl_core.benchmark.plots import Curves
from wtl_core.benchmark.preparation import Prepared
from wtl_core.benchmark.statistics import BASELINE, Comparison, Mean
from wtl_core.workspace.storage import Store

OURS = ("coverage", STEERED)
JUDGES = {
    "nearest": "20 nearest neighbours on the vectors",
    "probe": "linear probe on the vectors",
    "scratch": "ResNet-9 trained from scratch on the chosen images",
}
_WORDS = (
    ("better", "above {}"),
    ("better by the interval alone", "above {} by the interval alone"),
    ("no difference shown", "not shown to differ from {}"),
    ("worse by the interval alone", "below {} by the interval alone"),
    ("worse", "below {}"),
    ("nothing varies", "equally far from {} in every run, so without an interval,"),
    ("a single pair", "measured once beside {}, so without an interval,"),
)
_VERDICTS = (
    "Better and worse need both: an interval without zero, and a p under 0.05 after Holm over the budgets of a pair. "
    "Where only the interval says so, the table does too: some of many such intervals leave out zero by chance."
)


@dataclass(frozen=True)
class Section:
    """One pool by one judge.

    `tests` hold every strategy against random; `rivals` hold each of ours against the others, those with labels against
    one pass.
    """

    pool: str
    judge: str
    curves: Curves
    tests: list[Comparison]
    rivals: list[Comparison]

    @property
    def title(self) -> str:
        """For a heading."""
        return f"{self.pool}, {self.judge}"

    @property
    def budgets(self) -> list[int]:
        """All budgets of the section."""
        return sorted({point.labels for points in self.curves.values() for point in points})

    @property
    def costs(self) -> list[tuple[str, Mean]]:
        """Each strategy at the largest budget that all have; at its own last one where they have none in common."""
        shared = set.intersection(*({point.labels for point in points} for points in self.curves.values()))
        last = max(shared, default=None)
        return [
            (name, next((point for point in points if point.labels == last), points[-1]))
            for name, points in self.curves.items()
        ]

    def needs_vectors(self, strategy: str) -> bool:
        """Whether choosing took vectors: a loop's models may be trained on the images instead."""
        return strategy not in WITHOUT_VECTORS and not (strategy in LOOPS and self.judge == "scratch")


@dataclass(frozen=True)
class Summary:
    """What a benchmark found; small. `html`, `markdown` and `pictures` are paths below the benchmark's folder."""

    html: str
    markdown: str
    results: str
    pictures: list[str]
    sentences: list[str]
    cells: int
    missing: int


def write(store: Store, prepared: Prepared, params: BenchmarkParams, *, device: str, command: str = "") -> Summary:
    """Gather all finished cells, draw, and write the page and the table; safe to repeat at any time."""
    wanted = grid.all_cells(prepared, params)
    rows = grid_cells.gather(store, grid.identity_of(prepared, params, device), wanted)
    sections = sections_of(rows, prepared, params)
    sentences = [sentence for section in sections for sentence in findings(section)]
    pictures = []
    for section in sections:
        for kind, draw in (("accuracy", plots.accuracy_figure), ("saved", plots.saved_figure)):
            key = f"pictures/{section.pool}-{section.judge}-{kind}.png"
            store.write_bytes(key, plots.to_png(draw(section.curves, title=f"{prepared.dataset}: {section.title}")))
            pictures.append(key)
    facts = _facts(prepared, params, device=device, command=command, found=len(rows), wanted=len(wanted))
    context = {"prepared": prepared, "sections": sections, "facts": facts, "sentences": sentences, "judges": JUDGES,
               "is_from_files": _is_from_files(prepared)}  # fmt: skip
    drawn = {s.title: [plots.to_svg(plots.accuracy_figure(s.curves, title=s.title)),
                       plots.to_svg(plots.saved_figure(s.curves, title="labels saved"))] for s in sections}  # fmt: skip
    store.write_bytes("summary.html", _render("page.html.j2", drawn=drawn, **context).encode())
    store.write_bytes("summary.md", _render("page.md.j2", **context).encode())
    return Summary(
        "summary.html", "summary.md", "results.parquet", pictures, sentences, len(rows), len(wanted) - len(rows)
    )


def sections_of(rows: statistics.Rows, prepared: Prepared, params: BenchmarkParams) -> list[Section]:
    """Pools by judges, those that have any cell."""
    found = []
    for pool in prepared.pools:
        for judge in params.judges:
            curves = plots.curves_of(rows, pool=pool.kind, judge=judge)
            if not curves:
                continue
            place = {"pool": pool.kind, "judge": judge}
            others = [name for name in curves if name != BASELINE]
            tests = [c for name in others for c in statistics.compare(rows, **place, strategy=name)]
            rivals = [
                c
                for ours in OURS
                if ours in curves
                for name in others
                if name not in (ours, STEERED)
                for c in statistics.compare(rows, **place, strategy=ours, against=name)
            ]
            found.append(Section(pool.kind, judge, curves, tests, rivals))
    return found


def findings(section: Section) -> list[str]:
    """Plain sentences: where ours beat random, where not, and which rivals are ahead of them.

    Coverage with labels is also held against one pass and against each loop, whoever is ahead.
    """
    sentences = []
    for ours in OURS:
        tests = [test for test in section.tests if test.strategy == ours]
        if not tests:
            continue
        sentences.append(f"{section.title}: {_named(section, ours)} is {_verdicts(section, tests)}.")
        rivals = [rival for rival in section.rivals if rival.strategy == ours]
        for against in dict.fromkeys(rival.against for rival in rivals):
            found = [rival for rival in rivals if rival.against == against]
            if ours == STEERED and against in ("coverage", *LOOPS):
                sentences.append(f"{section.title}: {ours} is {_verdicts(section, found)}.")
                continue
            for verdict, words in (("worse", ""), ("worse by the interval alone", " by the interval alone")):
                if at := ", ".join(f"{r.labels:,} ({-r.difference:+.1f})" for r in found if r.verdict == verdict):
                    ahead = f"{_named(section, against)} is ahead of {ours}{words}"
                    sentences.append(f"{section.title}: {ahead} at {at} labels.")
    return sentences


def _verdicts(section: Section, found: list[Comparison]) -> str:
    """At which budgets one strategy is above another, level, or below."""
    said = []
    for verdict, words in _WORDS:
        if at := ", ".join(f"{t.labels:,} ({t.difference:+.1f})" for t in found if t.verdict == verdict):
            said.append(f"{words.format(_named(section, found[0].against))} at {at} labels")
    return "; ".join(said)


def _named(section: Section, name: str) -> str:
    """With what should be known beside the name."""
    if name in WAITING:
        return f"{name} ({max(point.label_waits for point in section.curves[name])} waits for labels)"
    return f"{name} (an oracle)" if name in ORACLES else name


def _facts(
    prepared: Prepared, params: BenchmarkParams, *, device: str, command: str, found: int, wanted: int
) -> dict[str, str]:
    hardware = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor_name()
    share = f"; each seed has {params.pool_share:.0%} of it, drawn anew" if params.pool_share < 1.0 else ""
    loop_seeds = min(params.seeds, params.loop_seeds) if params.loops else params.seeds
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": hardware,
        "torch": torch.__version__,
        "set": f"{prepared.dataset}: " + ", ".join(f"{count:,} {name}" for name, count in prepared.counts.items()),
        "pools": ", ".join(f"{pool.kind} ({pool.size:,})" for pool in prepared.pools) + share,
        "vectors": _vectors(prepared),
        "seeds": f"{params.seeds} (loops {loop_seeds})" if loop_seeds < params.seeds else str(params.seeds),
        "cells": f"{found:,} of {wanted:,}",
    }
    if params.loops:
        facts["loops"] = (
            f"{params.loop_rounds} rounds from one budget to the next; a round looks at up to "
            f"{params.loop_candidates:,} unlabelled images, drawn anew"
        )
    if STEERED in params.strategies:
        facts[STEERED] = (
            "labels come back at each budget, and the rest is ranked again by them; up to the first budget as coverage"
        )
    if "coverage" in params.strategies and params.pool_share >= 1.0:
        facts["intervals"] = (
            "over the networks' seeds and random draws, not over pools or encoders: the order of coverage is one for "
            "all seeds"
        )
    if _is_from_files(prepared) and any(pool.kind.endswith("bursts") for pool in prepared.pools):
        facts["near-copies"] = "their vectors are those of their origins, moved a little: no encoder has seen them"
    if "scratch" in params.judges:
        facts["network"] = _network(prepared, params, device)
    if traced := [name for name in params.strategies if name in strategies.TRACED]:
        facts["seconds to select"] = (
            f"those of {', '.join(traced)} include tracing what the order covers, which the choice alone does not need"
        )
    return {**facts, "command": command} if command else facts


def _vectors(prepared: Prepared) -> str:
    """Where each pool's vectors come from, and what they cost."""
    texts = {pool.kind: f"{pool.encoder}, {pool.encoder_seconds:,.0f} s with the embedding" for pool in prepared.pools}
    return (
        next(iter(texts.values())) if len(texts) == 1 else "; ".join(f"{kind}: {text}" for kind, text in texts.items())
    )


def processor_name() -> str:
    """Model and cores."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{found[1] if found else f'{platform.machine()} CPU'}, {os.cpu_count()} cores"


def _is_from_files(prepared: Prepared) -> bool:
    """Whether `vector_source.FileVectors` gave the vectors, by its name."""
    return any(pool.encoder.startswith("files in ") for pool in prepared.pools)


def _network(prepared: Prepared, params: BenchmarkParams, device: str) -> str:
    """The judge from scratch, and how long it learns at the least and the greatest budget."""
    recipe = grid.recipe_of(params, device)
    budgets, learns = budgets_of(params, max(pool.size for pool in prepared.pools)), []
    for labels in sorted({budgets[0], budgets[-1]}):
        batch, steps = recipe.schedule(labels)
        learns.append(f"{steps * batch / labels:.0f} passes over {labels:,} in steps of {batch}")
    return f"ResNet-9 of width {recipe.width} on {params.seen_px} px, {', '.join(learns)} (effort {recipe.effort:g})"


def labels_needed(baseline: list[Mean], points: list[Mean]) -> str:
    """Labels that random picks need for the accuracy at each budget; beyond random's own budgets, a bound."""
    sentences = []
    for point in points if baseline else []:
        labels = statistics.random_labels_needed(baseline, point.mean)
        if labels is not None:
            words = f"{labels:,.0f}"
        elif point.mean < baseline[0].mean:
            words = f"less than {baseline[0].labels:,}"
        else:
            words = f"more than {baseline[-1].labels:,}"
        sentences.append(f"{point.labels:,}: {words}")
    return "; ".join(sentences)


def _render(template: str, **context: object) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("wtl_core.benchmark", "."),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: "" if math.isnan(value) else f"{value:.1f}"
    environment.filters["signed"] = lambda value: "" if math.isnan(value) else f"{value:+.1f}"
    environment.filters["bounds"] = lambda of: "" if math.isnan(of.low) else f"[{of.low:.1f}, {of.high:.1f}]"
    environment.filters["signed_bounds"] = lambda of: "" if math.isnan(of.low) else f"{of.low:+.1f} to {of.high:+.1f}"
    environment.filters["chance"] = lambda value: "" if math.isnan(value) else f"{value:.2g}"
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
    environment.globals["needed"] = labels_needed
    environment.globals["oracles"] = ORACLES
    environment.globals["verdicts"] = _VERDICTS
    return environment.get_template(template).render(**context)
