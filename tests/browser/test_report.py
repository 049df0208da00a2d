"""The report as a person sees it, in a real Chromium: what the slider moves, the map, the keys; pictures are output.

Figures are held against the tables of the workspace. Names and metadata of the pool are hostile.
"""

import base64
import io
import json
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from service_stack import OUTPUT, until

from tests.browser.conftest import Browser, program
from tests.conftest import make_jpeg, make_tinted
from tests.plain_ingest import write_tar
from tests.plain_refresh import PIXELS, refresh
from wtl_core.recipe.recipe import Recipe
from wtl_core.report import decision
from wtl_core.workspace import commits, ledger, selections
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
SHOTS = OUTPUT / "screenshots"
AXE = Path(__file__).parents[2] / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = '<img src=x onerror="window.hacked=1">\'&</script><script>window.hacked=1</script>'
WITH_CARD = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
CAMERAS = ("north", HOSTILE, "gate")
TINTS = [(200, 120, 20), (20, 40, 200), (20, 190, 200), (150, 20, 60)]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Commit]:
    """Two refreshes of 140 images with groups, near-duplicates, refused files, and labels of two classes."""
    root = tmp_path_factory.mktemp("report")
    source = root / "source"
    source.mkdir()
    add(source, range(120))
    (source / f"{HOSTILE.replace('/', '')}.jpg").write_bytes(make_jpeg(3, 60))
    (source / "broken <b>.jpg").write_bytes(b"none")
    recipe = Recipe.model_validate({**PIXELS.model_dump(), "selection": {"budget": 20, "group_by": "camera"}})
    refresh(root / "w", source, recipe=recipe)
    store = Store(str(root / "w"))
    first = table(store).head(6)["sample_id"].to_list()
    ledger.append(store, "labelled", first, classes=[["cat <i>"], ["dog"]] * 3)
    add(source, range(201, 220))
    return root / "w", refresh(root / "w", source, recipe=recipe)


def add(source: Path, seeds: range) -> None:
    """A tar of images, each with the camera that `camera_of` says."""
    members = []
    for seed in seeds:
        data = make_tinted(seed, TINTS[seed % 4]) if seed % 3 else make_jpeg(seed)
        members += [(f"{seed:03d}.jpg", data), (f"{seed:03d}.json", json.dumps({"camera": CAMERAS[seed % 3]}).encode())]
    write_tar(source / f"{seeds[0]:03d}.tar", members)


def camera_of(uri: str) -> str:
    name = uri.rpartition("#")[2].removesuffix(".jpg")
    return CAMERAS[int(name) % 3] if name.isdigit() else "(none)"


def table(store: Store) -> pl.DataFrame:
    last = commits.latest(store)
    assert last is not None
    return selections.read_ranking(store, last.selection)


class Page:
    """The report of the workspace in a browser, with what its tables say."""

    def __init__(self, browser: Browser, workspace: Path, commit: Commit) -> None:
        self.browser, self.store, self.commit = browser, Store(str(workspace)), commit
        self.ranking = selections.read_ranking(self.store, commit.selection)
        self.rungs = selections.read_ladder(self.store, commit.selection)
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")

    def open(self, fragment: str = "#webgl", *, width: int = 1440, height: int = 900, dark: bool = False) -> None:
        self.size(width, height)
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.call("Emulation.setEmulatedMedia", media="", features=theme)
        self.browser.call("Page.navigate", url="about:blank")
        self.browser.call("Page.navigate", url=Path(self.store.path(self.commit.report)).as_uri() + fragment)
        until(lambda: self.ask("document.documentElement?.dataset.ready") == "yes", seconds=60, what="ready", every=0.1)

    def size(self, width: int, height: int) -> None:
        self.browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def ask(self, expression: str) -> Any:
        return self.browser.evaluate(expression)

    def text(self, name: str) -> str:
        return str(self.ask(f"document.getElementById('{name}').textContent"))

    def frames(self) -> None:
        """Until what was asked for is drawn."""
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))")

    def move(self, count: int) -> None:
        self.ask(f"document.getElementById('number').value = {count}")
        self.ask("document.getElementById('number').dispatchEvent(new Event('change'))")
        self.frames()

    def wall(self) -> list[str]:
        return list(self.ask("[...document.querySelectorAll('#wall .pick')].map(node => node.title)"))

    def places(self) -> np.ndarray:
        """Where each image of the page is in the window, (N, 2), and its name by `names`."""
        self.ask("document.getElementById('map-box').scrollIntoView()")
        self.frames()
        box = self.ask("(({x, y}) => [x, y])(document.getElementById('map').getBoundingClientRect())")
        rows = f"[...Array({len(self.names())}).keys()]"
        return np.array(box) + self.ask(f"{rows}.map(row => document.getElementById('map').handle.pixelOf(row))")

    def names(self) -> list[str]:
        samples = pl.concat(
            pl.read_parquet(file, columns=["uri"]) for file in Path(self.store.path("pool")).glob("*.parquet")
        )
        return sorted(samples["uri"])

    def shot(self, name: str) -> Image.Image:
        SHOTS.mkdir(parents=True, exist_ok=True)
        data = base64.b64decode(self.browser.call("Page.captureScreenshot", format="png")["data"])
        (SHOTS / f"report-{name}.png").write_bytes(data)
        return Image.open(io.BytesIO(data))

    def complaints(self) -> list[str]:
        """Errors of the console, dialogs, and requests to anywhere."""
        self.ask("1")
        found = []
        for event in self.browser.events:
            told = event.get("params", {})
            if event["method"] in ("Runtime.exceptionThrown", "Page.javascriptDialogOpening"):
                found.append(json.dumps(told)[:500])
            elif event["method"] == "Log.entryAdded" and told["entry"]["level"] == "error":
                found.append(told["entry"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and told["type"] == "error":
                found.append(json.dumps(told)[:500])
            elif event["method"] == "Network.requestWillBeSent":
                address = told["request"]["url"]
                if not address.startswith(("data:", "blob:", "about:")) and not address.split("#")[0].endswith(
                    self.commit.report
                ):
                    found.append(f"a request to {address}")
        return found


@pytest.fixture(scope="module")
def page(workspace: tuple[Path, Commit]) -> Iterator[Page]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(program(), Path(folder), *WITH_CARD)
        try:
            yield Page(browser, *workspace)
        finally:
            browser.close()


def test_the_page_opens_without_an_error_and_asks_nobody(page: Page) -> None:
    page.open()
    assert page.ask("document.getElementById('map').handle.isCard")
    said = decision.read(page.store, page.commit.selection).sentence
    assert said.startswith(page.text("sentence"))
    assert len(page.text("sentence")) > 40
    page.shot("light")
    page.ask("scrollTo(0, document.documentElement.scrollHeight)")
    page.frames()
    assert page.ask("[...document.images].every(image => image.complete && image.naturalWidth)")
    assert page.ask("window.hacked") is None
    assert page.complaints() == []


@pytest.mark.parametrize("count", [2, 7, 20, 61, 130])
def test_the_slider_moves_figures_picks_and_groups_as_the_tables_say(page: Page, count: int) -> None:
    page.open() if count == 2 else None
    page.ask("document.getElementById('steps').open = true")
    page.move(count)
    rungs = page.rungs.unique("count", keep="last", maintain_order=True)
    at = {
        name: np.interp(count, rungs["count"], rungs[name]) for name in rungs.columns if rungs[name].dtype.is_numeric()
    }
    assert page.text("f-count") == f"{count:,}"
    everything = page.rungs["coverage"][-1]
    low, high = (100 * at[f"random_coverage_{end}"] / everything for end in ("low", "high"))
    assert page.text("f-reached") == f"{min(round(100 * at['coverage'] / everything), 99)} %"
    assert page.text("f-baseline") == f"{min(round(100 * at['random_coverage_mean'] / everything), 99)} %"
    assert page.text("f-interval") == f"{low:.1f} to {high:.1f} %"
    # The sentences and the table of further steps follow the slider, on the same scale.
    ranked = page.ranking.height
    further = [min(ranked, count + step * round(ranked / 20)) for step in range(1, 5)]
    reached = [np.interp(point, rungs["count"], rungs["coverage"]) / everything for point in (count, *further)]
    gains = [100 * (then - now) for now, then in pairwise(reached)]
    steps = [[f"{to:,}", f"+{gain:.1f}"] for to, gain in zip(further, gains, strict=True) if gain > 0 or to < ranked]
    shown = page.ask(
        "[...document.querySelectorAll('#steps tbody tr')].map(r => [r.cells[0], r.cells[3]].map(c => c.textContent))"
    )
    assert shown == steps[: len(shown)]
    assert len(shown) == min(4, -(-(ranked - count) // round(ranked / 20)))
    assert page.text("next").startswith(f"{further[0] - count:,} more: ")
    assert f"which is {gains[0]:.1f} points more" in page.text("next")
    assert page.text("f-random") == f"{int(at['equivalent_random_count'] + 0.5):,}"  # halves up, as the page rounds
    head = page.ranking.head(count)
    repeats = head["replaced_by"].is_not_null().sum()
    assert page.text("f-repeats") == f"{100 * repeats / count:.1f} %"
    shown = page.wall()
    assert shown == head["uri"].to_list()[: len(shown)]
    assert len(shown) == min(count, len(shown))
    assert len(shown) >= min(count, 6)
    cameras = Counter(camera_of(uri) for uri in head["uri"])
    rows = page.ask(
        "[...document.querySelectorAll('#shares tr')].map(row => [row.cells[0].textContent, "
        "row.cells[2].querySelector('.soft').textContent])"
    )
    assert {name: int(value) for name, value in rows if value != "0"} == cameras


def test_the_same_cut_is_reached_by_slider_number_and_keys(page: Page, workspace: tuple[Path, Commit]) -> None:
    page.open()
    page.ask("document.getElementById('slider').focus()")
    before = page.text("f-count")
    for _ in range(30):
        page.browser.key("ArrowLeft")
    page.frames()
    assert int(page.text("f-count")) < int(before)
    assert page.ask("document.getElementById('number').value") == page.text("f-count")
    page.browser.key("End")
    page.frames()
    assert page.text("f-count") == str(page.ranking.height)
    page.ask("document.getElementById('to-budget').click()")
    page.frames()
    assert page.text("f-count") == "20"
    assert page.text("c-cut") == f"wtl cut --at 20 -o picks.csv -w {shlex.quote(str(workspace[0]))}"


@pytest.mark.parametrize("fragment", ["#webgl", "#canvas"])
def test_hovering_names_the_image_that_lies_there(page: Page, fragment: str) -> None:
    page.open(fragment)
    assert page.ask("document.getElementById('map').handle.isCard") == (fragment == "#webgl")
    places, names = page.places(), page.names()
    gaps = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1)) + 1e6 * np.eye(len(places))
    ranks = dict(page.ranking.select("uri", "rank").iter_rows())
    inside = (places[:, 1] > 130) & (places[:, 1] < 800)
    alone = [int(i) for i in np.argsort(-gaps.min(1)) if inside[i]][:6]
    for i in alone:
        page.browser.mouse("Moved", *places[i])
        page.frames()
        told = page.text("panel")
        assert names[i] in told
        assert (f"rank {ranks[names[i]] + 1}," in told) if names[i] in ranks else "labelled" in told
        assert page.ask("document.querySelector('#panel .large img').naturalWidth") > 3


def test_the_lasso_counts_what_is_inside(page: Page) -> None:
    page.open()
    places, names = page.places(), page.names()
    middle, radius = np.median(places, axis=0), 110.0
    middle[1] = min(max(middle[1], 300), 560)
    angles = np.linspace(0, 2 * np.pi, 40)
    shape = middle + radius * np.stack([np.cos(angles), np.sin(angles)], 1)
    page.browser.mouse("Pressed", *shape[0], modifiers=8)
    for point in shape:
        page.browser.mouse("Moved", *point, is_held=True, modifiers=8)
    page.browser.mouse("Released", *shape[-1], modifiers=8)
    page.frames()
    rows = page.ask("[...document.querySelectorAll('#inside dt')].map(n => [n.textContent, n.nextSibling.textContent])")
    told = {
        name: int(value.split()[0].replace(",", "")) for name, value in rows if name in ("images", "picks", "labelled")
    }
    away = np.hypot(*(places - middle).T)
    surely, perhaps = away < 0.985 * radius, away < radius
    assert 3 < surely.sum() <= told["images"] <= perhaps.sum()
    ranks = dict(page.ranking.select("uri", "rank").iter_rows())
    picked = np.array([ranks.get(name, 999) < 20 for name in names])
    assert (picked & surely).sum() <= told["picks"] <= (picked & perhaps).sum()
    page.shot("lasso")
    page.browser.key("Escape")
    page.frames()
    assert page.ask("document.getElementById('inside')") is None


def test_every_key_of_the_map_and_of_the_wall_works(page: Page) -> None:
    page.open()
    page.ask("document.querySelector('#map canvas[tabindex]').focus()")
    page.browser.key("ArrowRight")
    page.frames()
    first = page.text("live")
    assert first.split(":")[0] in page.names()
    page.browser.key("ArrowRight")
    page.frames()
    assert page.text("live") != first
    before = page.ask("document.getElementById('map').handle.pixelOf(0)")
    for key, is_moved in (("+", True), ("0", False), ("-", True), ("0", False)):
        page.browser.key(key)
        page.frames()
        now = page.ask("document.getElementById('map').handle.pixelOf(0)")
        assert (np.abs(np.subtract(now, before)).max() > 1) == is_moved
    page.browser.key("l")
    assert page.ask("document.getElementById('lasso').getAttribute('aria-pressed')") == "true"
    page.browser.key("a")
    page.frames()
    assert page.text("live") == f"{len(page.names())} images inside"
    page.browser.key("Escape")
    page.frames()
    assert page.ask("document.getElementById('lasso').getAttribute('aria-pressed')") == "false"
    page.ask("document.getElementById('wall').focus()")
    page.browser.key("End")
    page.frames()
    assert page.ask("document.querySelector('#wall [aria-selected=true]').title") == page.ranking["uri"][19]
    page.browser.key("ArrowLeft")
    page.browser.key("Enter")
    page.frames()
    assert page.ranking["uri"][18] in page.text("panel")


@pytest.mark.parametrize("fragment", ["#webgl", "#canvas"])
def test_more_dots_are_lit_with_a_larger_cut_with_and_without_a_card(page: Page, fragment: str) -> None:
    page.open(fragment)
    page.ask("document.getElementById('map-box').scrollIntoView()")
    green = []
    for count in (3, 30, 120):
        page.move(count)
        pixels = np.asarray(page.shot(f"cut-{count}{fragment.replace('#', '-')}").convert("RGB")).astype(int)[
            250:850, 80:980
        ]
        green.append(int((np.abs(pixels - (11, 110, 79)).sum(2) < 40).sum()))
    assert 0 < green[0] < green[1] < green[2]


def test_as_many_at_random_and_highlights_change_what_is_shown(page: Page) -> None:
    page.open()
    picks = page.wall()
    page.ask("document.getElementById('as-random').click()")
    page.frames()
    random = page.wall()
    assert set(random) != set(picks)
    assert set(random) <= set(page.ranking["uri"])
    page.ask("document.getElementById('as-picks').click()")
    page.frames()
    assert page.wall() == picks
    options = page.ask("[...document.getElementById('marks').options].map(o => o.text)")
    assert "new with this refresh" in options
    assert f"camera: {HOSTILE}" in options
    for wanted in ("203.JPG", "no such name"):
        page.ask(f"document.getElementById('find').value = '{wanted}'")
        page.ask("document.getElementById('find').dispatchEvent(new Event('change'))")
        page.frames()
        assert wanted.lower() in page.text("panel").lower()
    below = pl.col("uri").str.split("/source/").list.last()  # the tests' folder may have a 20 in its name
    fitting = page.ranking.filter(below.str.contains("20", literal=True))["uri"].to_list()
    page.ask("document.getElementById('find').value = '20'; document.getElementById('find').focus()")
    for place in (0, 1):
        page.browser.key("Enter")
        page.frames()
        assert f"{place + 1} of " in page.text("panel")
        assert fitting[place] in page.text("panel")
    page.ask("[...document.querySelectorAll('#panel button')].find(b => b.textContent === 'Previous').click()")
    page.frames()
    assert page.text("panel").startswith("1 of ")
    page.ask("document.querySelectorAll('.gallery .tile')[0].click()")
    page.frames()
    assert page.text("panel").count("rank") == 1
    page.shot("zoomed")


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("light", 1440, False), ("dark", 1440, True), ("narrow", 390, False)]
)
def test_nothing_is_out_of_reach(page: Page, name: str, width: int, dark: bool) -> None:
    page.open(width=width, height=844 if width < 600 else 900, dark=dark)
    assert page.ask("document.documentElement.scrollWidth") <= width
    page.shot(name)
    height = page.ask("document.documentElement.scrollHeight")
    page.size(width, min(height, 9000))
    page.frames()
    page.shot(f"{name}-whole")
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make test-services` does so where there is npm")
    page.ask(f"{AXE.read_text()};1")
    found = json.loads(
        page.ask("axe.run().then(r => JSON.stringify(r.violations.map(v => [v.impact, v.id, v.nodes[0].html])))")
    )
    assert [violation for violation in found if violation[0] in ("serious", "critical", "moderate")] == []


def test_it_prints(page: Page) -> None:
    page.open()
    data = base64.b64decode(page.browser.call("Page.printToPDF", printBackground=True)["data"])
    SHOTS.mkdir(parents=True, exist_ok=True)
    (SHOTS / "report.pdf").write_bytes(data)
    assert data.startswith(b"%PDF")
    assert 2 <= data.count(b"/Type /Page\n") <= 12
    closed = "[...document.querySelectorAll('details:not(.no-print):not([open])')].length"
    before = page.ask(closed)
    assert before
    page.ask("dispatchEvent(new Event('beforeprint'))")
    assert page.ask(closed) == 0
    page.ask("dispatchEvent(new Event('afterprint'))")
    assert page.ask(closed) == before
    assert page.complaints() == []
