"""`wtl ui` as a person uses it, in a real Chromium: keys, the ledger, every room; screenshots are test output."""

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from service_stack import OUTPUT, until

import wtl
from tests.browser.conftest import Browser, program
from tests.conftest import make_jpeg
from tests.plain_ingest import write_tar
from tests.plain_refresh import PIXELS, ranking, refresh
from wtl_core.app import decisions
from wtl_core.labelling import batches, skips
from wtl_core.labelling.batches import Asked
from wtl_core.recipe.recipe import Recipe
from wtl_core.workspace import ledger
from wtl_core.workspace.storage import Store

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
SHOTS = OUTPUT / "screenshots"
AXE = Path(__file__).parents[2] / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = '<img src=x onerror="window.hacked=1">\'&'
ROOMS = ("picks", "map", "near", "arrivals", "quarantine", "labels", "recipe")


def add(source: Path, name: str, seeds: range, copies: int = 0) -> None:
    """A tar of images, each with a camera; the first one also under other names."""
    members: list[tuple[str, bytes]] = []
    for seed in seeds:
        camera = json.dumps({"camera": HOSTILE if seed % 3 else "north"}).encode()
        members += [(f"{seed:03d}.jpg", make_jpeg(seed, 64)), (f"{seed:03d}.json", camera)]
    members += [(f"near-{number}.jpg", make_jpeg(seeds[0], 64 + 2 * number)) for number in range(1, copies + 1)]
    write_tar(source / f"{name}.tar", members)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two refreshes of 70 images, with near-duplicates, a refused file, a batch and labels of two classes."""
    root = tmp_path_factory.mktemp("app")
    source = root / "source"
    source.mkdir()
    add(source, "first", range(60), copies=3)
    (source / f"{HOSTILE.replace('/', '')}.jpg").write_bytes(make_jpeg(300, 64))
    (source / "broken <b>.jpg").write_bytes(b"none")
    recipe = Recipe.model_validate({**PIXELS.model_dump(), "selection": {"budget": 12}})
    refresh(root / "w", source, recipe=recipe)
    store = Store(str(root / "w"))
    ids = batches.hand_out(store, Asked(new=14)).table["sample_id"].to_list()
    ledger.append(store, "labelled", ids[:12], classes=[["cat <i>"], ["dog"]] * 6)
    add(source, "second", range(200, 210))
    refresh(root / "w", source, recipe=recipe)
    return store


class App:
    """The app of the workspace in a browser."""

    def __init__(self, browser: Browser, store: Store, address: str) -> None:
        self.browser, self.store, self.address = browser, store, address
        self.home = address.partition("?")[0]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")

    def open(self, room: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        mobile = width < 600
        self.browser.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.browser.call("Emulation.setEmulatedMedia", media="", features=theme)
        self.browser.call("Page.navigate", url="about:blank")
        self.browser.call("Page.navigate", url=f"{self.address}#{room}")
        self.wait("document.documentElement?.dataset.ready === 'yes'")
        self.wait(f"document.getElementById('room').className === 'room-{room}'")
        self.settle()

    def wait(self, condition: str) -> None:
        until(lambda: self.ask(condition), seconds=60, what=condition, every=0.05)

    def settle(self) -> None:
        """Until nothing is asked for any more, and the pictures in sight are there."""
        self.wait(
            "(() => { const asked = performance.getEntriesByType('resource').length, same = asked === window.before;"
            "window.before = asked; return same && !document.body.innerText.includes('Loading')"
            "&& [...document.images].every(image => image.complete || image.getBoundingClientRect().top > innerHeight)"
            "})()"
        )

    def ask(self, expression: str) -> Any:
        return self.browser.evaluate(expression)

    def shown(self) -> str:
        """The name of the image that is shown large."""
        return str(self.ask("document.getElementById('pick-name').title"))

    def shot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        data = self.browser.call("Page.captureScreenshot", format="png")["data"]
        (SHOTS / f"app-{name}.png").write_bytes(base64.b64decode(data))

    def complaints(self) -> list[str]:
        """Errors of the console, dialogs, and requests to anywhere else."""
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
                if not address.startswith((self.home, "data:", "blob:", "about:")):
                    found.append(f"a request to {address}")
        return found


@pytest.fixture(scope="module")
def app(workspace: Store) -> Iterator[App]:
    command = [sys.executable, "-m", "flows.cli.main", "ui", "-w", workspace.root, "--json"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = program()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        browser = Browser(found, Path(folder))
        try:
            assert server.stdout is not None
            yield App(browser, workspace, json.loads(server.stdout.readline())["address"])
        finally:
            browser.close()
            server.terminate()
            server.communicate()


def test_every_room_opens_without_an_error_and_asks_nobody_else(app: App) -> None:
    for room in ROOMS:
        app.open(room)
        app.shot(f"{room}-light")
        assert app.ask("document.getElementById('trouble').textContent") == "", room
        assert app.ask("document.getElementById('room').innerText.length") > 20, room
        assert "token" not in app.ask("location.href")
    assert app.ask("window.hacked") is None
    assert app.complaints() == []


def test_keys_decide_and_decisions_land_in_the_ledger(app: App) -> None:
    picks = ranking(Path(app.store.root)).head(5)
    ids, names = picks["sample_id"].to_list(), picks["uri"].to_list()
    app.open("picks")
    assert app.shown() == names[0]
    for place, key in enumerate("kur"):
        app.browser.key(key)
        app.wait(f"document.getElementById('pick-name').title === {json.dumps(names[place + 1])}")
    wanted = {ids[0]: "kept", ids[1]: "unusable", ids[2]: "redundant"}

    def standing() -> dict[str, str]:
        return {key: value for key, value in decisions.standing(ledger.read(app.store)).items() if key in ids}

    until(lambda: standing() == wanted, seconds=20, what="three decisions in the ledger", every=0.1)
    app.browser.key("z")
    until(lambda: ids[2] not in standing(), seconds=20, what="the last one taken back", every=0.1)
    app.wait(f"document.getElementById('pick-name').title === {json.dumps(names[2])}")
    for key, place in (("ArrowRight", 3), ("ArrowLeft", 2), ("Home", 0), ("n", 2)):
        app.browser.key(key)
        app.wait(f"document.getElementById('pick-name').title === {json.dumps(names[place])}")
    assert "2 of 12 picks decided" in app.ask("document.getElementById('progress').textContent")
    app.shot("picks-decided")
    app.browser.key("?")
    assert app.ask("document.getElementById('keys').open")
    app.browser.key("Escape")
    app.browser.key("2")
    app.wait("document.getElementById('room').className === 'room-map'")
    assert app.complaints() == []


def test_the_map_names_the_image_under_the_pointer_and_a_condition_lights_up(app: App) -> None:
    app.open("map")
    app.wait("document.getElementById('map')?.handle")
    samples = pl.concat(
        pl.read_parquet(file, columns=["sample_id", "uri", "brightness"])
        for file in Path(app.store.path("pool")).glob("*.parquet")
    ).unique("sample_id", maintain_order=True).sort("sample_id")  # fmt: skip
    first = ranking(Path(app.store.root))["sample_id"][0]
    row = samples["sample_id"].to_list().index(first)
    app.ask(f"document.getElementById('map').handle.show({row})")
    app.ask("new Promise(done => setTimeout(done, 100))")
    left, top = app.ask("(({x, y}) => [x, y])(document.getElementById('map').getBoundingClientRect())")
    x, y = app.ask(f"document.getElementById('map').handle.pixelOf({row})")
    app.browser.mouse("Moved", left + x, top + y)
    name = samples["uri"][row]
    app.wait(f"document.querySelector('#panel .name')?.title === {json.dumps(name)}")
    app.ask("document.getElementById('where').value = 'brightness > 120'")
    app.ask("document.querySelector('form').requestSubmit()")
    bright = samples.filter(pl.col("brightness") > 120).height
    app.wait(f"document.querySelector('form [role=status]').textContent.startsWith('{bright} image')")
    app.shot("map-condition")
    assert "of what labelling everything would" in app.ask("document.getElementById('reached').textContent")
    before = set(skips.listed(app.store)["sample_id"])
    app.ask("[...document.querySelectorAll('form.bar-of-controls button')].at(-1).click()")
    picks = set(ranking(Path(app.store.root)).head(12)["sample_id"])
    wanted = picks & set(samples.filter(pl.col("brightness") > 120)["sample_id"])
    until(lambda: set(skips.listed(app.store)["sample_id"]) - before == wanted - before, seconds=20, what="skips")
    app.ask("[...document.querySelectorAll('form.bar-of-controls button')].at(-1).click()")
    until(lambda: set(skips.listed(app.store)["sample_id"]) == before, seconds=20, what="the undo")
    assert app.complaints() == []
    app.ask("document.getElementById('where').value = 'brightness >'")
    app.ask("document.querySelector('form').requestSubmit()")
    app.wait("document.querySelector('form [role=status]').textContent === ''")
    skip = "[...document.querySelectorAll('form.bar-of-controls button')].find(b => b.textContent.startsWith('Skip'))"
    assert app.ask(f"getComputedStyle({skip}).display") == "none"  # nothing is offered for what was asked before
    assert ["422" in told for told in app.complaints()] == [True]  # the browser's own line about the refused condition
    app.browser.events.clear()


def test_a_preview_is_shown_and_nothing_is_written(app: App) -> None:
    length = ledger.length(app.store)
    app.open("recipe")
    app.ask("document.getElementById('budget').value = '5'")
    app.ask("document.querySelector('form.recipe').requestSubmit()")
    app.wait("document.querySelector('.result h2')?.textContent.startsWith('5 picks')")
    app.settle()
    app.shot("recipe-preview")
    assert "budget = 5" in app.ask("document.querySelector('.result pre').textContent")
    assert ledger.length(app.store) == length


def test_the_map_of_a_notebook_shows_what_is_under_the_pointer(app: App, tmp_path: Path) -> None:
    (tmp_path / "frame.html").write_text(wtl.open(app.store.root).map(5).page)
    app.browser.call("Page.navigate", url=(tmp_path / "frame.html").as_uri())
    app.wait("document.documentElement?.dataset.ready === 'yes'")
    assert app.ask("document.getElementById('count').textContent").startswith("5 of ")
    app.ask("document.getElementById('map').handle.show(0)")
    app.wait("document.querySelector('#tip img') !== null")
    name = Path(ranking(Path(app.store.root))["uri"][0]).name.rpartition("#")[2]
    assert name in app.ask("document.getElementById('tip').textContent")
    app.shot("notebook")
    assert [one for one in app.complaints() if one != f"a request to {(tmp_path / 'frame.html').as_uri()}"] == []


@pytest.mark.parametrize(("name", "width", "dark"), [("dark", 1400, True), ("narrow", 390, False)])
def test_nothing_is_out_of_reach(app: App, name: str, width: int, dark: bool) -> None:
    found = {}
    for room in ROOMS:
        app.open(room, width=width, height=844 if width < 600 else 900, dark=dark)
        app.shot(f"{room}-{name}")
        assert app.ask("document.documentElement.scrollWidth") <= width, room
        if AXE.exists():
            app.ask(f"{AXE.read_text()};1")
            told = "axe.run().then(r => JSON.stringify(r.violations.map(v => [v.impact, v.id, v.nodes[0].html])))"
            found[room] = [one for one in json.loads(app.ask(told)) if one[0] != "minor"]
    assert {room: violations for room, violations in found.items() if violations} == {}
