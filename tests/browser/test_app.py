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
from wtl_core.labelling import batches
from wtl_core.labelling.batches import Asked
from wtl_core.recipe.recipe import Recipe
from wtl_core.report import decision
from wtl_core.workspace import commits, ledger
from wtl_core.workspace.storage import Store

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]
SHOTS = OUTPUT / "screenshots"
AXE = Path(__file__).parents[2] / ".venv" / "node_modules" / "axe-core" / "axe.min.js"
HOSTILE = '<img src=x onerror="window.hacked=1">\'&'
ROOMS = ("picks", "map", "near", "arrivals", "quarantine", "labels", "recipe", "decisions")


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


def pool(store: Store) -> pl.DataFrame:
    """The samples with some of their columns, sorted by id."""
    files = Path(store.path("pool")).glob("*.parquet")
    read = (pl.read_parquet(file, columns=["sample_id", "uri", "brightness", "sharpness"]) for file in files)
    return pl.concat(read).unique("sample_id", maintain_order=True).sort("sample_id")


def out(store: Store) -> set[str]:
    """Samples that are handed out and not back."""
    entries = ledger.read(store)
    settled = {*ledger.settled_ids(entries)}
    return {*ledger.sample_ids(entries, "exported")} - settled


class App:
    """The app of the workspace in a browser."""

    def __init__(self, browser: Browser, store: Store, address: str) -> None:
        self.browser, self.store, self.address = browser, store, address
        self.home = address.partition("?")[0]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.call(f"{domain}.enable")

    def open(self, room: str, *, width: int = 1400, height: int = 900, dark: bool = False) -> None:
        self.wait("!document.getElementById('status')?.innerText.includes('on the way')")
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

    def sees(self, label: str) -> bool:
        """Whether something that begins with a label can be pressed."""
        return bool(self.ask(f"Boolean({self._pressed(label)})"))

    def press(self, label: str) -> None:
        """Click what begins with a label, as a person would: it must be in sight and not disabled."""
        self.wait(f"Boolean({self._pressed(label)})")
        self.ask(f"{self._pressed(label)}.click()")

    def _pressed(self, label: str) -> str:
        where = "document.querySelector('dialog[open]') || document"
        return (
            f"[...({where}).querySelectorAll('button, summary')].find(node => node.innerText.trim()"
            f".startsWith({json.dumps(label)}) && node.offsetHeight && !node.disabled)"
        )

    def decided(self) -> dict[str, str]:
        """What the ledger says now, by id."""
        return dict(decisions.standing(ledger.read(self.store)))

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
    picks = ranking(Path(app.store.root)).head(12)
    first = next(rank for rank in range(8) if not out(app.store) & {*picks["sample_id"].slice(rank, 5)})
    ids, names = (picks[name].slice(first, 5).to_list() for name in ("sample_id", "uri"))
    app.open("picks")
    app.wait(f"document.getElementById('pick-name').title === {json.dumps(picks['uri'][0])}")
    for _ in range(first):
        app.browser.key("ArrowRight")
    app.wait(f"document.getElementById('pick-name').title === {json.dumps(names[0])}")
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
    for key, place in (("ArrowRight", 3), ("ArrowLeft", 2), ("ArrowLeft", 1), ("n", 2)):
        app.browser.key(key)
        app.wait(f"document.getElementById('pick-name').title === {json.dumps(names[place])}")
    told = f"{10 - len(out(app.store) & {*picks['sample_id']})} of 12 picks open · 1 kept, 1 skipped as unusable"
    app.wait(f"document.getElementById('progress').textContent.startsWith({json.dumps(told)})")
    app.browser.key("Home")
    app.wait(f"document.getElementById('pick-name').title === {json.dumps(picks['uri'][0])}")
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
    samples = pool(app.store)
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
    app.ask("document.querySelector('form.bar-of-controls').requestSubmit()")
    bright = samples.filter(pl.col("brightness") > 120).height
    app.wait(f"document.querySelector('form.bar-of-controls [role=status]').textContent.startsWith('{bright} image')")
    app.shot("map-condition")
    assert "of what labelling everything would" in app.ask("document.getElementById('reached').textContent")
    assert app.complaints() == []
    app.ask("document.getElementById('where').value = 'brightness >'")
    app.ask("document.querySelector('form.bar-of-controls').requestSubmit()")
    app.wait("document.querySelector('form.bar-of-controls [role=status]').textContent === ''")
    assert not app.sees("Look at them"), "nothing is offered for what was asked before"
    app.ask("document.getElementById('where').value = \"camera = 'north'\"")
    app.ask("document.querySelector('form.bar-of-controls').requestSubmit()")
    app.wait("document.getElementById('where-problem').innerText.includes('write metadata.camera')")
    app.ask("new Promise(done => setTimeout(done, 5000))")  # the state is asked for again meanwhile
    assert app.ask("document.getElementById('where-problem').offsetHeight") > 0
    app.ask("document.getElementById('where').dispatchEvent(new Event('input', {bubbles: true}))")
    assert app.ask("document.getElementById('where-problem').hidden")
    assert ["422" in told for told in app.complaints()] == [True, True]  # the browser's own line about what is refused
    app.browser.events.clear()


def test_images_of_a_condition_are_looked_at_some_left_out_and_the_rest_skipped_and_taken_back(app: App) -> None:
    samples = pool(app.store)
    labels = ledger.labels(ledger.read(app.store))["sample_id"]
    bright = samples.filter(pl.col("brightness") > 120)["sample_id"]
    before = app.decided()
    wanted = set(bright) - set(labels) - set(before) - out(app.store)
    app.open("map")
    app.wait("document.getElementById('map')?.handle")
    app.ask("document.getElementById('where').value = 'brightness > 120'")
    app.ask("document.querySelector('form.bar-of-controls').requestSubmit()")
    app.wait(
        f"document.querySelector('form.bar-of-controls [role=status]').innerText.startsWith('{len(bright)} image')"
    )
    app.press("Look at them")
    app.wait(f"document.getElementById('look-title').innerText.startsWith('{len(bright)} image')")
    app.settle()
    assert f"{len(wanted)} chosen" in app.ask("document.getElementById('look-told').innerText")
    app.shot("map-look")
    chosen = "document.querySelector('.look .cell.is-chosen')"
    rank = int(app.ask(f"{chosen}.querySelector('b').innerText")) - 1
    app.ask(f"{chosen}.click()")
    left_out = ranking(Path(app.store.root))["sample_id"][rank]
    app.press(f"Skip {len(wanted) - 1} images as unusable")
    until(lambda: set(app.decided()) - set(before) == wanted - {left_out}, seconds=20, what="skips", every=0.1)
    among = len((wanted - {left_out}) & set(ranking(Path(app.store.root)).head(12)["sample_id"]))
    told = app.ask("document.getElementById('done').innerText")
    assert told.startswith(f"{len(wanted) - 1} images skipped as unusable, {among} of them picks")
    # After a reload, and so in any other window, the bulk is one thing to take back, or some of its images.
    app.open("decisions")
    app.wait("document.querySelector('.group')?.innerText.includes('brightness > 120')")
    app.shot("decisions-bulk")
    app.press("Choose which")
    app.wait("document.querySelector('dialog.look .cell') !== null")
    app.browser.key(" ")
    app.press("Take 1 image back")
    until(lambda: len(set(app.decided()) - set(before)) == len(wanted) - 2, seconds=20, what="one back", every=0.1)
    app.press("Take all")
    until(lambda: app.decided() == before, seconds=20, what="all back", every=0.1)
    assert app.complaints() == []


def test_of_a_ready_made_choice_nothing_is_chosen_and_its_measure_orders_it(app: App) -> None:
    app.open("map")
    app.wait("document.getElementById('map')?.handle")
    app.ask(
        "(marks => { marks.value = [...marks.options].find(one => one.text === 'least sharp tenth').value;"
        "marks.dispatchEvent(new Event('change')); })(document.getElementById('marks'))"
    )
    app.press("Look at them")
    app.wait("document.querySelector('dialog.look .cell') !== null")
    sharpness = dict(pool(app.store).select(pl.col("uri").str.extract(r"([^/#]+)$"), "sharpness").iter_rows())
    first = "document.querySelector('.look .cell .unseen').textContent"
    app.wait(f"{first}.includes('.jpg, rank')")
    app.settle()
    app.shot("map-tenth")
    assert " 0 chosen." in app.ask("document.getElementById('look-told').innerText")
    assert not app.sees("Skip ")
    shown = app.ask("[...document.querySelectorAll('.look .cell .mark-right')].map(one => Number(one.innerText))")
    assert shown == sorted(shown)
    name = app.ask(first).partition(", rank")[0]
    assert shown[0] == pytest.approx(min(sharpness.values()), rel=0.05)
    assert sharpness[name] == pytest.approx(shown[0], rel=0.05)
    app.browser.key("Escape")
    assert app.complaints() == []


def test_what_is_in_view_is_looked_at_and_the_sentences_follow_the_slider(app: App) -> None:
    app.open("map")
    app.wait("document.getElementById('map')?.handle")
    app.press("What is in view")
    app.wait("document.querySelector('#panel h3')?.innerText === 'Inside'")
    app.ask("[...document.querySelectorAll('#panel button')].find(b => b.innerText === 'Look at them').click()")
    app.wait(f"document.getElementById('look-title')?.innerText.startsWith('{pool(app.store).height} images')")
    app.browser.key("Escape")
    app.press("What each further 5 %")
    said = []
    for count in (12, 30):
        app.ask(f"document.getElementById('cut-number').value = {count}")
        app.ask("document.getElementById('cut-number').dispatchEvent(new Event('change'))")
        said.append(app.ask("document.getElementById('reached').innerText"))
        ranked = ranking(Path(app.store.root)).height
        first = app.ask("document.querySelector('.further tbody td').innerText")
        assert int(first) == count + round(ranked / 20)
        assert f"{round(ranked / 20)} more: " in said[-1]
    assert said[0] != said[1]
    assert app.complaints() == []


def test_what_another_window_decides_is_shown_here_too(app: App) -> None:
    app.open("near")
    app.wait("document.querySelectorAll('.group .tile .note').length > 1")
    first = app.ask("document.querySelectorAll('.group .tile .note')[1].innerText")
    rank = int(first.removeprefix("rank ")) - 1
    sample_id = ranking(Path(app.store.root))["sample_id"][rank]
    decisions.decide(app.store, [sample_id], "redundant", request="another window")
    app.wait("document.querySelectorAll('.group .tile .note')[1].innerText === 'skipped as redundant'")
    app.open("decisions")
    app.wait("document.querySelector('.group')?.innerText.includes('another window')")
    decisions.decide(app.store, [sample_id], "open")
    app.wait("!document.getElementById('room').innerText.includes('another window')")
    assert app.complaints() == []


def test_one_of_near_duplicates_is_kept_and_the_others_skipped(app: App) -> None:
    before = app.decided()
    app.open("near")
    app.browser.key("r")
    app.wait("document.querySelector('dialog.look .cell') !== null")
    app.settle()
    app.shot("near-look")
    ranks = app.ask("[...document.querySelectorAll('.look .cell b')].map(one => one.innerText)")
    place = max(number for number, text in enumerate(ranks) if text != "–")  # one that is labelled has no rank
    app.browser.key("End")
    for _ in ranks[place + 1 :]:
        app.browser.key("ArrowLeft")
    app.browser.key("k")
    count = app.ask("document.querySelectorAll('.look .cell.is-chosen').length")
    last = int(ranks[place]) - 1
    said = app.ask("document.getElementById('look-told').innerText")
    assert f"The one that stays, rank {last + 1}, is entered among the decisions as kept." in said
    chosen = app.ask("[...document.querySelectorAll('.look .cell.is-chosen b')].map(one => one.innerText)")
    others = [int(text) - 1 for text in chosen if text != "–"]
    assert ("It is no pick" in said) == (last >= 12 > min(others))
    app.press(f"Skip {count} image{'s' if count > 1 else ''} as redundant")
    ids = ranking(Path(app.store.root))["sample_id"]
    until(lambda: len(app.decided()) == len(before) + count + 1, seconds=20, what="the others skipped", every=0.1)
    assert app.decided()[ids[last]] == "kept"
    app.wait(f"document.querySelector('.group .state').innerText.includes('{count} skipped as redundant')")
    app.browser.key("z")
    until(lambda: app.decided() == before, seconds=20, what="the undo", every=0.1)
    assert app.complaints() == []


def test_an_image_is_found_by_a_part_of_its_name(app: App) -> None:
    app.open("labels")
    app.ask("document.getElementById('find').value = '20'; document.getElementById('find-form').requestSubmit()")
    app.wait("document.querySelector('dialog.look .cell') !== null")
    count = pool(app.store).filter(pl.col("uri").str.contains("20", literal=True)).height
    assert app.ask("document.getElementById('look-title').innerText").startswith(f"{count} images have")
    app.browser.key("Escape")
    app.ask("document.getElementById('find').value = '203.JPG'; document.getElementById('find-form').requestSubmit()")
    app.wait("document.getElementById('pick-name')?.title.endsWith('203.jpg')")
    app.ask("document.getElementById('find').value = 'no such'; document.getElementById('find-form').requestSubmit()")
    app.wait("document.getElementById('done').innerText.includes('No image has')")
    assert app.complaints() == []


def test_what_is_handed_out_is_skipped_only_when_that_is_asked_for_twice(app: App) -> None:
    ranks = ranking(Path(app.store.root))
    rank = max(at for at, sample_id in enumerate(ranks["sample_id"]) if sample_id in out(app.store))
    app.open("labels")
    app.ask(f"document.getElementById('find').value = {json.dumps(ranks['sample_id'][rank])}")
    app.ask("document.getElementById('find-form').requestSubmit()")
    app.wait(f"document.getElementById('pick-name')?.title === {json.dumps(ranks['uri'][rank])}")
    app.wait("document.querySelector('.told').innerText.includes('in batch')")
    before = app.decided()
    app.browser.key("u")
    app.wait("document.getElementById('done').innerText.includes('It is handed out in batch')")
    assert app.decided() == before
    app.browser.key("u")
    until(lambda: len(app.decided()) == len(before) + 1, seconds=20, what="the skip", every=0.1)
    app.browser.key("z")
    until(lambda: app.decided() == before, seconds=20, what="the undo", every=0.1)
    app.wait("document.querySelector('.told').innerText.includes('handed out')")


def test_an_arrival_is_outlined_in_the_queue(app: App) -> None:
    app.open("arrivals")
    rank = app.ask("document.querySelector('.cell b').innerText")
    app.ask("document.querySelector('.cell').click()")
    app.wait(f"document.querySelector('.queue [aria-selected=true] b')?.innerText === '{rank}'")
    app.wait(f"document.querySelector('.told').innerText.startsWith('rank {rank} of')")


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
    # After a reload, and so in another window, the form says what the preview beside it was made of.
    app.open("recipe")
    app.wait("document.querySelector('.result h2')?.textContent.startsWith('5 picks')")
    assert app.ask("document.getElementById('budget').value") == "5"
    app.ask("document.getElementById('budget').value = '6'")
    app.ask("document.getElementById('budget').dispatchEvent(new Event('input', {bubbles: true}))")
    assert "has changed since" in app.ask("document.querySelector('form.recipe').innerText")
    app.press("Back to the recipe of now")
    app.wait("document.getElementById('budget').value === '12'")
    app.wait("document.querySelector('.result').innerText.includes('The recipe of now picks')")
    assert app.complaints() == []


def test_what_the_recipe_refuses_stays_beside_the_form_and_edits_outlive_a_change_of_the_room(app: App) -> None:
    app.open("recipe")
    app.ask("document.getElementById('budget').value = 'many'")
    app.ask("document.getElementById('budget').dispatchEvent(new Event('input', {bubbles: true}))")
    app.ask("document.querySelector('form.recipe').requestSubmit()")
    problem = "document.querySelector('form.recipe [role=alert]')"
    app.wait(f"{problem}.innerText.includes('budget')")
    app.ask("new Promise(done => setTimeout(done, 5000))")
    assert app.ask(f"{problem}.offsetHeight") > 0
    app.shot("recipe-refused")
    assert ["422" in told for told in app.complaints()] == [True]
    app.browser.events.clear()
    app.ask("document.getElementById('budget').value = '7'")
    app.ask("document.getElementById('budget').dispatchEvent(new Event('input', {bubbles: true}))")
    assert app.ask(f"{problem}.hidden")
    app.press("Add a quota")
    app.ask("document.querySelector('.quota [data-name=group]').value = 'no such'")
    app.ask("document.getElementById('group-by').value = 'camera'")
    app.ask("location.hash = 'labels'")
    app.wait("document.getElementById('room').className === 'room-labels'")
    app.ask("location.hash = 'recipe'")
    app.wait("document.getElementById('budget')?.value === '7'")
    assert app.ask("document.querySelector('.quota [data-name=group]').value") == "no such"
    assert app.ask(f"{problem}.hidden")
    app.ask("document.querySelector('form.recipe').requestSubmit()")
    app.wait(f"{problem}.innerText.includes('no such')")
    assert "The recipe of now picks" in app.ask("document.querySelector('.result').innerText")
    app.shot("recipe-unknown-group")
    app.press("Back to the recipe of now")
    app.wait("document.getElementById('budget').value === '12'")
    assert app.complaints() == []


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
    app.browser.events.clear()


def test_every_room_prints(app: App) -> None:
    for room in ROOMS:
        app.open(room)
        printed = app.browser.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        data = base64.b64decode(printed["data"])
        SHOTS.mkdir(parents=True, exist_ok=True)
        (SHOTS / f"app-{room}.pdf").write_bytes(data)
        assert 1 <= data.count(b"/Type /Page\n") <= 4, room
        app.browser.call("Emulation.setEmulatedMedia", media="print", features=[])
        app.browser.call(
            "Emulation.setDeviceMetricsOverride", width=794, height=1123, deviceScaleFactor=1, mobile=False
        )
        app.settle()
        app.shot(f"{room}-print")
        assert app.ask("document.documentElement.scrollWidth") <= 794, room
        assert not app.sees("Undo"), "what can only be pressed is not printed"
    assert app.complaints() == []


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("light", 1400, False), ("dark", 1400, True), ("narrow", 390, False)]
)
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


def test_the_queue_says_what_a_new_refresh_says(app: App) -> None:
    app.open("picks")
    before = app.ask("document.querySelector('.decision').innerText")
    last = commits.latest(app.store)
    assert last is not None
    source = Path(last.sources[0])
    add(source, "third", range(400, 440))
    new = refresh(Path(app.store.root), source, recipe=last.recipe)
    sentence = decision.read(app.store, new.selection).sentence
    assert sentence != before
    app.wait(f"document.querySelector('.decision')?.innerText === {json.dumps(sentence)}")
    assert app.complaints() == []
