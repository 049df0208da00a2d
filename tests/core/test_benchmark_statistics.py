"""The benchmark's statistics against worked figures and scipy's."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from wtl_core.benchmark import plots, statistics, summary
from wtl_core.benchmark.params import STEERED, STRATEGIES, WAITING, BenchmarkParams
from wtl_core.benchmark.preparation import PoolRef, Prepared
from wtl_core.benchmark.statistics import Comparison, Mean
from wtl_core.benchmark.summary import Section
from wtl_core.selection import student


def row(strategy: str, labels: int, seed: int, accuracy: float) -> dict:
    return {
        "pool": "balanced", "judge": "probe", "strategy": strategy, "labels": labels, "seed": seed, "pool_size": 1000,
        "accuracy": accuracy, "classes": 10, "usable": labels, "rounds": 0, "label_waits": 1,
        "selection_seconds": 1.0, "train_seconds": 2.0,
    }  # fmt: skip


def test_students_t_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for freedom in (1, 2, 4, 9, 30):
        for t in (0.1, 1.0, 2.5, 12.0):
            assert student.share_below(t, freedom) == pytest.approx(stats.t.cdf(t, freedom), abs=1e-9)
        assert student.quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-6)
        factor = stats.t.ppf(0.975, freedom)
        assert student.ladder_factor(freedom) == pytest.approx(factor, abs=5e-4 if freedom <= 9 else 0.01 * factor)
    pairs = np.array([1.0, 2.0, 0.5, 1.5])
    assert statistics.p_value(pairs) == pytest.approx(stats.ttest_1samp(pairs, 0).pvalue, abs=1e-9)


def test_differences_are_paired_by_seed_and_not_by_place() -> None:
    ours = [row("coverage", 100, seed, 0.5 + 0.1 * seed + 0.001 * seed) for seed in (2, 0, 1)]
    theirs = [row("random", 100, seed, 0.4 + 0.1 * seed) for seed in (0, 1, 2)]
    only = statistics.compare(ours + theirs, pool="balanced", judge="probe", strategy="coverage")[0]
    assert only.pairs == 3
    assert only.difference == pytest.approx(10.1)
    assert only.high - only.low < 1.0  # the seeds' common swings of 10 points are gone
    assert only.verdict == "better"


def test_what_never_varies_gets_no_interval() -> None:
    rows = [row(name, 100, seed, value) for seed in range(5) for name, value in (("a", 0.5), ("random", 0.4))]
    only = statistics.compare(rows, pool="balanced", judge="probe", strategy="a")[0]
    assert math.isnan(only.low)
    assert math.isnan(only.p_value)
    assert only.verdict == "nothing varies"
    elevenths = [(6 / 11, 5 / 11), (7 / 11, 6 / 11), (8 / 11, 7 / 11)]  # the same but for rounding
    rows += [
        row(n, 200, seed, v) for seed, pair in enumerate(elevenths) for n, v in zip(("a", "random"), pair, strict=True)
    ]
    assert [one.verdict for one in statistics.compare(rows, pool="balanced", judge="probe", strategy="a")] == [
        "nothing varies"
    ] * 2
    once = statistics.compare(rows[:2], pool="balanced", judge="probe", strategy="a")[0]
    assert math.isnan(once.low)
    assert once.verdict == "a single pair"


def test_a_verdict_needs_holms_p_beside_the_interval() -> None:
    def comparison(low: float, high: float, p_adjusted: float) -> Comparison:
        return Comparison(100, "coverage", "random", 3, (low + high) / 2, low, high, p_adjusted / 2, p_adjusted)

    assert comparison(0.1, 2.0, 0.04).verdict == "better"
    assert comparison(0.1, 2.0, 0.083).verdict == "better by the interval alone"
    assert comparison(-2.0, -0.1, 0.04).verdict == "worse"
    assert comparison(-2.0, -0.1, 0.083).verdict == "worse by the interval alone"
    assert comparison(-0.1, 2.0, 0.083).verdict == "no difference shown"


def test_findings_tell_what_only_an_interval_says() -> None:
    tests = [
        Comparison(labels, "coverage", "random", 3, 1.0, 0.1, 1.9, 0.03, p) for labels, p in ((100, 0.04), (200, 0.083))
    ]
    rivals = [Comparison(100, "coverage", "k-center", 3, -1.0, -1.9, -0.1, 0.03, 0.083)]
    assert summary.findings(Section("balanced", "probe", {}, tests, rivals)) == [
        "balanced, probe: coverage is above random at 100 (+1.0) labels; "
        "above random by the interval alone at 200 (+1.0) labels.",
        "balanced, probe: k-center is ahead of coverage by the interval alone at 100 (+1.0) labels.",
    ]


def test_findings_hold_coverage_with_labels_against_one_pass_and_each_loop() -> None:
    def waits(count: int) -> list[Mean]:
        return [Mean(200, 20, 50.0, 49.0, 51.0, 5, 10, 200, count - 1, count, 0.0, 0.0)]

    def ours(labels: int, against: str, difference: float, p: float, strategy: str = STEERED) -> Comparison:
        low, high = (math.nan, math.nan) if math.isnan(p) else (difference - 0.5, difference + 0.5)
        return Comparison(labels, strategy, against, 3, difference, low, high, p, p)

    curves = {"random": waits(1), "coverage": waits(1), STEERED: waits(2), "margin": waits(5), "k-center": waits(1)}
    tests = [ours(200, "random", 3.0, 0.01, "coverage"), ours(200, "random", 4.0, 0.01)]
    rivals = [
        ours(200, "margin", -1.0, 0.01, "coverage"), ours(200, "k-center", 1.0, 0.01, "coverage"),
        ours(100, "coverage", 0.0, math.nan), ours(200, "coverage", 1.0, 0.02), ours(200, "margin", 0.2, 0.6),
        ours(200, "k-center", 2.0, 0.01),
    ]  # fmt: skip
    assert summary.findings(Section("long-tail", "probe", curves, tests, rivals)) == [
        "long-tail, probe: coverage is above random at 200 (+3.0) labels.",
        "long-tail, probe: margin (5 waits for labels) is ahead of coverage at 200 (+1.0) labels.",
        "long-tail, probe: coverage+labels (2 waits for labels) is above random at 200 (+4.0) labels.",
        "long-tail, probe: coverage+labels is above coverage at 200 (+1.0) labels; "
        "equally far from coverage in every run, so without an interval, at 100 (+0.0) labels.",
        "long-tail, probe: coverage+labels is not shown to differ from margin (5 waits for labels) "
        "at 200 (+0.2) labels.",
    ]


def test_pairs_of_ours_are_told_once() -> None:
    rows = [
        row(name, 100, seed, 0.4 + 0.01 * seed * place)
        for seed in range(3)
        for place, name in enumerate(("random", "coverage", STEERED, "margin"))
    ]
    pool = PoolRef("balanced", 1000, "", "", "pixels", 0.0, None)
    prepared = Prepared("", "set", "", ["a", "b"], {}, [pool])
    (section,) = summary.sections_of(rows, prepared, BenchmarkParams(judges=("probe",)))
    assert [(r.strategy, r.against) for r in section.rivals] == [
        ("coverage", "margin"), (STEERED, "coverage"), (STEERED, "margin")
    ]  # fmt: skip


def test_holm_keeps_order_and_never_falls() -> None:
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert math.isnan(statistics.holm([math.nan, 0.2])[0])


def test_labels_saved_by_a_worked_case() -> None:
    def point(labels: int, mean: float) -> Mean:
        return Mean(labels, labels / 10, mean, mean, mean, 5, 10, labels, 0, 1, 0.0, 0.0)

    baseline = [point(100, 50.0), point(1000, 70.0), point(10_000, 80.0)]
    assert statistics.random_labels_needed(baseline, 60.0) == pytest.approx(10**2.5)
    assert statistics.random_labels_needed(baseline, 50.0) == 100
    assert statistics.random_labels_needed(baseline, 81.0) is None
    assert statistics.random_labels_needed(baseline, 49.0) is None
    ours = [point(100, 49.0), point(1000, 70.0), point(2000, 81.0)]
    assert summary.labels_needed(baseline, ours) == "100: less than 100; 1,000: 1,000; 2,000: more than 10,000"


def test_every_strategy_has_a_look_of_its_own_in_both_pictures() -> None:
    curves = {
        name: [
            Mean(n, n / 10, m, m - 1, m + 1, 5, 10, n, 0, 1 + (name in WAITING), 0.0, 0.0)
            for n, m in ((9, 50), (90, 60))
        ]
        for name in STRATEGIES
    }
    lines = plots.accuracy_figure(curves, title="all").axes[0].get_lines()
    assert len({line.get_color() for line in lines}) == len(curves) == 16
    few = {name: curves[name] for name in ("random", "core-set", "class-balanced-random")}
    for figure in (plots.accuracy_figure(few, title="few"), plots.saved_figure(few, title="few")):
        shown = {line.get_label(): line for line in figure.axes[0].get_lines()}
        assert shown["core-set"].get_color() == lines[[*curves].index("core-set")].get_color()
        assert shown["core-set"].get_linestyle() == "--"
        assert shown["class-balanced-random (oracle)"].get_linestyle() == "-"


@pytest.mark.parametrize("draw", [plots.accuracy_figure, plots.saved_figure])
def test_a_title_is_no_formula(draw: Callable[..., Figure]) -> None:
    curves = {"random": [Mean(n, n / 10, 50.0, 49.0, 51.0, 5, 10, n, 0, 1, 0.0, 0.0) for n in (9, 90)]}
    assert plots.to_png(draw(curves, title="a$_$b: balanced")).startswith(b"\x89PNG")
    assert "<svg" in plots.to_svg(draw(curves, title="a$_$b: balanced"))
