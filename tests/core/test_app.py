"""The app's server: who may ask, what it answers, and that decisions are entries of the ledger."""

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from tests.conftest import write_pictures
from tests.plain_refresh import files, ranking, refresh
from wtl_core.app import decisions
from wtl_core.app.live import Live
from wtl_core.app.preview import as_toml
from wtl_core.app.server import create_app
from wtl_core.errors import BusyError
from wtl_core.labelling import batches, cut, skips
from wtl_core.labelling.batches import Asked
from wtl_core.recipe.recipe import Recipe, parse_recipe
from wtl_core.workspace import commits, lease, ledger, snapshots
from wtl_core.workspace.storage import Store

PORT, TOKEN = 8765, "a-token-of-the-tests"
HOME = f"http://127.0.0.1:{PORT}"
KNOWN = {"x-wtl-token": TOKEN}


def client_of(store: Store, **headers: str) -> TestClient:
    app = create_app(Live(store), token=TOKEN, port=PORT)
    return TestClient(app, base_url=HOME, headers=headers or KNOWN, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def refreshed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A workspace of 40 images of which one has a name that is markup, and one file is broken."""
    folder = tmp_path_factory.mktemp("app")
    photos = write_pictures(folder / "photos", count=40)
    (photos / "0.jpg").rename(photos / "<img src=x onerror=alert(1)>'\".jpg")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    refresh(folder / "w", photos)
    return Store(str(folder / "w"))


@pytest.fixture
def store(refreshed: Store, tmp_path: Path) -> Store:
    shutil.copytree(refreshed.root, tmp_path / "w")
    return Store(str(tmp_path / "w"))


@pytest.fixture
def client(store: Store) -> Iterator[TestClient]:
    with client_of(store) as client:
        yield client


def ids_of(store: Store) -> list[str]:
    return ranking(Path(store.root))["sample_id"].to_list()


def decide(client: TestClient, ids: list[str], decision: str, **more: Any) -> dict[str, Any]:
    answer = client.post("/api/decisions", json={"ids": ids, "decision": decision, **more})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


# ---- who may ask -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"x-wtl-token": "another"}, 401),
        ({"x-wtl-token": b"\xfc"}, 401),
        ({"cookie": f"wtl-{PORT}=another"}, 401),
        ({"cookie": f"wtl-80={TOKEN}"}, 401),
        ({**KNOWN, "host": "evil.example"}, 421),
        ({**KNOWN, "host": f"evil.example:{PORT}"}, 421),
        ({**KNOWN, "host": "127.0.0.1:1"}, 421),
        ({**KNOWN, "origin": "http://evil.example"}, 403),
        ({**KNOWN, "origin": "null"}, 403),
        ({**KNOWN, "origin": f"https://127.0.0.1:{PORT}"}, 403),
        ({**KNOWN, "sec-fetch-site": "cross-site"}, 403),
        ({**KNOWN, "sec-fetch-site": "same-site"}, 403),
        ({**KNOWN, "content-length": "99999999"}, 413),
    ],
)
def test_a_request_that_is_not_of_the_apps_own_page_is_refused(
    refreshed: Store, headers: dict[str, Any], status: int
) -> None:
    client = TestClient(create_app(Live(refreshed), token=TOKEN, port=PORT), base_url=HOME)
    for address in ("/api/state", "/app.js", "/nothing"):
        answer = client.get(address, headers=headers)
        assert (address, answer.status_code) == (address, status)
        assert '"workspace"' not in answer.text


def test_the_printed_address_gives_a_cookie_that_only_this_server_gets(refreshed: Store) -> None:
    client = TestClient(create_app(Live(refreshed), token=TOKEN, port=PORT), base_url=HOME)
    assert client.get("/").status_code == 401
    assert client.get("/?token=wrong").status_code == 401
    assert client.get(f"/api/state?token={TOKEN}").status_code == 401, "the token is taken by the page alone"
    answer = client.get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    assert answer.headers["set-cookie"] == f"wtl-{PORT}={TOKEN}; Path=/; HttpOnly; SameSite=Strict"
    client.headers["cookie"] = f"wtl-{PORT}={TOKEN}"
    assert client.get("/api/state").json()["refresh"] == 1
    body = {"ids": ids_of(refreshed)[:1], "decision": "open"}
    assert client.post("/api/decisions", json=body).status_code == 403, "a cookie alone decides nothing"
    assert client.post("/api/decisions", json=body, headers={"origin": HOME}).status_code == 200
    assert client.post("/api/decisions", json=body, headers={"origin": "http://evil.example"}).status_code == 403


def test_every_answer_lets_the_page_load_from_here_alone(client: TestClient) -> None:
    for address in ("/", "/app.js", "/map.js", "/page.css", "/api/state", "/nothing"):
        headers = client.get(address).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'"), address
        assert headers["x-content-type-options"] == "nosniff"
    for address in (
        "/",
        "/app.js",
        "/picks.js",
        "/kit.js",
        "/map_room.js",
        "/rooms.js",
        "/recipe.js",
        "/decided.js",
        "/look.js",
        "/shared.js",
        "/app.css",
        "/page.css",
    ):
        text = client.get(address).text
        assert "innerHTML" not in text
        assert "http://" not in text.replace("http://www.w3.org/", "")
        assert "https://" not in text


@pytest.mark.parametrize(
    "name",
    ["%2e%2e", "..%2fwtl.json", "%2e%2e%2f%2e%2e", "0" * 63, "0" * 65, "g" * 64, "A" * 64, "0" * 64 + "%0a", "0" * 64],
)
@pytest.mark.parametrize("folder", ["thumbs", "images", "api/images"])
def test_only_ids_of_the_pool_name_a_picture(client: TestClient, folder: str, name: str) -> None:
    answer = client.get(f"/{folder}/{name}")
    assert answer.status_code in (404, 422)
    assert "format" not in answer.text


# ---- what it shows ---------------------------------------------------------------------------------------------------


def test_the_queue_is_the_ranking_page_by_page(store: Store, client: TestClient) -> None:
    ids, state = ids_of(store), client.get("/api/state").json()
    first, second = (client.get(f"/api/picks?start={start}&count=25").json() for start in (0, 25))
    assert [item["id"] for item in first["items"] + second["items"]] == ids
    assert (first["total"], state["picks"], state["decided"]["open"]) == (40, 4, 4)
    assert [item["rank"] for item in second["items"]] == list(range(25, 40))


def test_pictures_are_jpegs_that_a_browser_may_keep(store: Store, client: TestClient) -> None:
    for folder in ("thumbs", "images"):
        answer = client.get(f"/{folder}/{ids_of(store)[0]}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"].endswith("immutable")
        assert answer.content.startswith(b"\xff\xd8\xff")


def test_an_image_is_told_with_what_is_like_it(store: Store, client: TestClient) -> None:
    table = ranking(Path(store.root))
    sample_id = table["nearest_earlier"].drop_nulls()[0]
    told = client.get(f"/api/images/{sample_id}").json()
    covered = table.filter(pl.col("nearest_earlier") == sample_id)
    assert told["covers_count"] == covered.height
    assert {item["id"] for item in told["covers"]} <= set(covered["sample_id"])
    like = client.get(f"/api/images/{sample_id}/neighbours").json()
    alike = [item["similarity"] for item in like["neighbours"]]
    assert alike == sorted(alike, reverse=True)
    assert sample_id not in {item["id"] for item in like["neighbours"]}
    assert like["labelled"] is None
    ledger.append(store, "labelled", [table["sample_id"][5]], classes=[["cat"]])
    labelled = client.get(f"/api/images/{sample_id}/neighbours").json()["labelled"]
    assert (labelled["id"], labelled["classes"]) == (table["sample_id"][5], ["cat"])


def test_columns_lie_under_their_content_and_say_what_the_ranking_says(store: Store, client: TestClient) -> None:
    told = client.get("/api/columns").json()
    found = {}
    for name, column in told["columns"].items():
        answer = client.get(f"/columns/{name}/{column['digest']}")
        assert "immutable" in answer.headers["cache-control"]
        kind = {"Uint8Array": np.uint8, "Uint16Array": np.uint16, "Uint32Array": np.uint32}[column["kind"]]
        found[name] = np.frombuffer(answer.content, kind)
    ids = [row.tobytes().hex() for row in found["id"].reshape(-1, 32)]
    assert [ids[row] for row in np.argsort(found["rank"])] == ids_of(store)
    assert len(found["x"]) == told["count"] == 40
    assert client.get(f"/columns/rank/{'0' * 32}").status_code == 404


def test_rows_are_found_by_their_ids_and_by_these_alone(store: Store) -> None:
    view, ids = Live(store).view(), sorted(ids_of(store))
    alike = ids[7][:-1] + ("0" if ids[7][-1] != "0" else "1")  # begins like an image of the pool
    asked = [ids[7], alike, "0" * 64, "f" * 64, "no id", ids[0], ids[-1], ids[7]]
    assert view.rows_of(asked).tolist() == [7, 0, len(ids) - 1, 7]
    assert [view.row_of(sample_id) for sample_id in (ids[7], alike, "0" * 64)] == [7, -1, -1]
    assert view.rows_of([]).tolist() == []


def test_a_filter_is_answered_as_bits(store: Store, client: TestClient) -> None:
    samples = Live(store).view().samples
    middle = float(samples["sharpness"].median() or 0)  # type: ignore[arg-type]
    answer = client.get("/api/mask", params={"where": f"sharpness > {middle} and format = 'jpeg'"})
    bits = np.unpackbits(np.frombuffer(answer.content, np.uint8), bitorder="little")[:40].astype(bool)
    assert bits.tolist() == (samples["sharpness"] > middle).to_list()
    assert answer.headers["x-wtl-count"] == str(bits.sum())
    assert client.get("/api/mask", params={"where": "uri like '%onerror%'"}).headers["x-wtl-count"] == "1"
    wrong = client.get("/api/mask", params={"where": "sharpnes > 3"})
    assert (wrong.status_code, "did you mean sharpness" in wrong.json()["error"]) == (422, True)


def test_refused_files_are_told_with_what_would_help(client: TestClient) -> None:
    told = client.get("/api/quarantine").json()
    assert (told["total"], Path(told["items"][0]["uri"]).name) == (1, "broken.jpg")
    assert told["reasons"][0]["meaning"]
    assert client.get("/api/quarantine?reason=empty").json()["total"] == 0


def test_a_new_refresh_is_taken_over_while_the_old_one_answers(
    store: Store, client: TestClient, tmp_path: Path
) -> None:
    assert client.get("/api/state").json()["refresh"] == 1
    more = write_pictures(tmp_path / "more", count=50)
    refresh(Path(store.root), more)
    until = time.monotonic() + 30
    while client.get("/api/state").json()["refresh"] == 1:
        assert time.monotonic() < until
        time.sleep(0.1)
    told = client.get("/api/arrivals").json()
    assert told["total"] == client.get("/api/state").json()["arrived"] == 10
    assert told["items"][0]["distance"] is not None


def test_a_workspace_without_a_refresh_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    answer = client_of(Store(str(tmp_path / "w"))).get("/api/state")
    assert (answer.status_code, "`wtl run SOURCE`" in answer.json()["error"]) == (422, True)


def test_groups_of_near_duplicates_come_with_the_best_ranked_first(tmp_path: Path) -> None:
    photos = write_pictures(tmp_path / "photos", count=20)
    for copy in range(3):
        with Image.open(photos / "3.jpg") as image:
            image.save(photos / f"again-{copy}.jpg", quality=80 + copy)
    refresh(tmp_path / "w", photos)
    store = Store(str(tmp_path / "w"))
    told = client_of(store).get("/api/near").json()
    assert (told["total"], told["images"]) == (1, 4)
    ranks = [item["rank"] for item in told["groups"][0]["items"]]
    assert ranks == sorted(ranks)
    assert {Path(item["name"]).name for item in told["groups"][0]["items"]} == {
        "3.jpg",
        *(f"again-{copy}.jpg" for copy in range(3)),
    }
    skips.skip(store, [told["groups"][0]["items"][1]["id"]], "redundant")
    again = client_of(store).get("/api/near").json()["groups"][0]
    assert (again["states"]["redundant"], again["states"]["open"]) == (1, 3)
    assert client_of(store).get(f"/api/near/{told['groups'][0]['items'][2]['id']}").json()["items"] == again["items"]


def test_batches_and_labels_are_told(store: Store, client: TestClient) -> None:
    batch = batches.hand_out(store, Asked(new=6))
    ids = batch.table["sample_id"].to_list()
    ledger.append(store, "labelled", ids[:2], classes=[["cat"], ["dog"]])
    told = client.get("/api/labels").json()
    assert (told["batches"][0]["images"], told["batches"][0]["back"], told["out"]) == (6, 2, 4)
    assert {row["class"]: row["labels"] for row in told["classes"]} == {"cat": 1, "dog": 1}
    assert told["short_below"] == 20
    assert client.get("/api/doubtful").json()["why_not"].startswith("There are too few labels to compare: it takes two")
    names = client.post("/api/names", json={"ids": [*ids[:2], "0" * 64]}).json()["names"]
    assert names == {row["sample_id"]: row["uri"] for row in batch.table.head(2).to_dicts()}
    assert client.get(f"/api/images/{ids[3]}").json()["batch"] == batch.name


# ---- a preview of another recipe -------------------------------------------------------------------------------------


def previewed(client: TestClient, **selection: Any) -> dict[str, Any]:
    answer = client.post("/api/preview", json={"selection": selection})
    assert answer.status_code == 200, answer.text
    until = time.monotonic() + 60
    while not (told := client.get("/api/preview").json())["is_done"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert told["number"] == answer.json()["number"]
    found: dict[str, Any] = told
    return found


def test_a_preview_picks_what_a_run_with_that_recipe_would(store: Store, client: TestClient) -> None:
    before = files(Path(store.root))
    told = previewed(client, budget=7, weights=[{"column": "brightness", "strength": 2.0}])
    shown = [item["id"] for item in client.get("/api/preview/picks").json()["items"]]
    assert {name: data for name, data in files(Path(store.root)).items() if "vectors" not in name} == {
        name: data for name, data in before.items() if "vectors" not in name
    }
    recipe = parse_recipe(told["result"]["toml"], name="recipe.toml")
    last = commits.latest(store)
    assert last is not None
    refresh(Path(store.root), *map(Path, last.sources), recipe=recipe)
    assert (told["result"]["picks"], shown) == (7, ids_of(store)[:7])
    assert told["selection"] == recipe.selection.model_dump(mode="json"), "a form can show what it was made of"


def test_a_preview_of_what_cannot_be_is_told(client: TestClient) -> None:
    wrong = client.post("/api/preview", json={"selection": {"buget": 7}})
    assert (wrong.status_code, "did you mean selection.budget" in wrong.json()["error"]) == (422, True)
    assert "nothing" in previewed(client, group_by="nothing")["error"]
    assert client.get("/api/recipe").json()["selection"]["budget"] == "10%"


def test_a_preview_says_that_quotas_cannot_hold_and_what_came_since(store: Store, client: TestClient) -> None:
    assert previewed(client, budget=5)["result"]["since"] == ""
    alone = Live(store).view().samples["uri"][0]
    decide(client, ids_of(store)[:2], "unusable")
    told = previewed(client, budget=5, group_by="uri", quotas=[{"group": alone, "minimum_share": 0.5}])
    assert (told["error"], told["result"]["is_short"]) == ("", True)
    assert "Quotas hold for 3 of 5 picks" in told["result"]["advice"]
    assert told["result"]["since"].startswith("Since refresh 1, 2 images were labelled, skipped or taken back")
    assert not previewed(client, budget=5)["result"]["is_short"]


@pytest.mark.parametrize(
    "selection",
    [
        {},
        {"budget": 12, "group_by": "camera", "balance": {"target": {"a b": 2.0, "c": 1.0}, "strength": 0.5}},
        {"group_by": "camera", "quotas": [{"group": 'no"rth\\', "minimum": 2, "maximum_share": 0.5}, {"group": "ä"}]},
        {"similar_to": [{"sample_ids": ["0" * 64]}], "coverage_goal": 0.5, "labels": "ignore"},
    ],
)
def test_the_recipe_that_is_shown_is_the_recipe(selection: dict[str, Any]) -> None:
    values = {"selection": selection, "ingest": {"filters": ["sharpness > 10 and format = 'jpeg'"]}}
    recipe = Recipe.model_validate({**values, "encoder": {"name": "pixels"}})
    assert parse_recipe(as_toml(recipe), name="recipe.toml") == recipe


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_decisions_are_entries_that_the_next_picks_respect(store: Store, client: TestClient) -> None:
    first, second, third, fourth = ids_of(store)[:4]
    assert decide(client, [first], "kept")["now"] == {first: "kept"}
    assert decide(client, [second, third], "unusable")["now"] == {second: "unusable", third: "unusable"}
    decide(client, [fourth], "redundant")
    kinds = ledger.read(store).group_by("entry", maintain_order=True).agg(pl.col("kind").first(), pl.len())
    assert kinds.select("kind", "len").rows() == [("kept", 1), ("skipped", 2), ("skipped", 1)]
    assert set(skips.listed(store)["sample_id"]) == {second, third, fourth}
    assert cut.run(store, "2").table["sample_id"].to_list() == [first, ids_of(store)[4]]
    shown = client.get("/api/picks?show=decided").json()["items"]
    assert [item["state"] for item in shown] == ["kept", "unusable", "unusable", "redundant"]
    assert client.get("/api/picks?show=open").json()["total"] == 0
    assert client.get("/api/state").json()["decided"]["unusable"] == 2


def test_the_last_decision_counts_and_open_takes_it_back(store: Store, client: TestClient) -> None:
    first = ids_of(store)[0]
    for decision in ("unusable", "kept", "redundant", "open"):
        assert decide(client, [first], decision)["now"] == {first: decision}
    assert ledger.kept_ids(ledger.read(store)) == []
    assert skips.listed(store).is_empty()
    length = ledger.length(store)
    decide(client, [first], "open")
    assert ledger.length(store) == length, "what is so already is not entered again"


def test_undo_leaves_what_somebody_else_decided_meanwhile(store: Store, client: TestClient) -> None:
    first = ids_of(store)[0]
    decide(client, [first], "kept")
    skips.skip(store, [first], "unusable")
    told = decide(client, [first], "open", expected={first: "kept"})
    assert told == {"now": {first: "unusable"}, "left": [first]}
    assert decide(client, [first], "open", expected={first: "unusable"})["now"] == {first: "open"}


def test_every_decision_is_listed_with_what_it_was_made_on_and_its_entry_can_be_taken_back(
    store: Store, client: TestClient
) -> None:
    ids = ids_of(store)
    decide(client, ids[:2], "kept", by="Picks")
    decide(client, [ids[1], *ids[10:30]], "unusable", by="Map, sharpness < 20")
    skips.skip(store, [ids[30]], "redundant")
    told = client.get("/api/decisions").json()
    assert told["counts"] == {"kept": 1, "unusable": 21, "redundant": 1}
    shown = [(row["decision"], row["count"], row["by"], row["picks"], len(row["items"])) for row in told["entries"]]
    assert shown == [
        ("redundant", 1, "", 0, 1),
        ("unusable", 21, "Map, sharpness < 20", 1, 12),
        ("kept", 1, "Picks", 1, 1),
    ]
    assert client.get("/api/decisions?show=kept").json()["total"] == 1
    members = client.get("/api/decisions/2").json()["items"]
    assert [item["id"] for item in members] == [ids[1], *ids[10:30]]
    one = client.post("/api/undo", json={"entry": 2, "ids": [ids[1], ids[40 - 1]]}).json()
    assert one == {"now": {ids[1]: "kept", ids[39]: "open"}, "left": [ids[39]]}, "what it replaced counts again"
    decide(client, [ids[10]], "redundant")
    rest = client.post("/api/undo", json={"entry": 2}).json()
    assert (set(rest["now"]), rest["left"]) == (set(ids[11:30]), [])
    now = decisions.standing(ledger.read(store))
    assert now == {ids[0]: "kept", ids[1]: "kept", ids[10]: "redundant", ids[30]: "redundant"}
    length = ledger.length(store)
    assert client.post("/api/undo", json={"entry": 2}).json() == {"now": {}, "left": []}
    assert ledger.length(store) == length, "what is taken back already is not entered again"


def test_what_is_handed_out_is_told_even_where_it_was_kept_before(store: Store, client: TestClient) -> None:
    first = ids_of(store)[0]
    decide(client, [first], "kept")
    batches.hand_out(store, Asked(new=3))
    assert client.get("/api/picks").json()["items"][0]["state"] == "out"


def test_images_are_found_by_a_part_of_their_name_or_the_beginning_of_their_id(
    store: Store, client: TestClient
) -> None:
    table = ranking(Path(store.root))
    names = table.filter(pl.col("uri").str.contains("3.jpg", literal=True))
    told = client.get("/api/find", params={"name": " 3.JPG "}).json()
    assert [item["id"] for item in told["items"]] == names["sample_id"].to_list()
    assert told["total"] == names.height > 2
    one = client.get("/api/find", params={"name": ids_of(store)[5][:12]}).json()["items"]
    assert [item["id"] for item in one] == [ids_of(store)[5]]
    assert client.get("/api/find?name=nothing%20like%20it").json() == {"total": 0, "items": []}
    assert client.get("/api/find?name=").status_code == 422


def test_two_people_at_once_lose_nothing(store: Store) -> None:
    ids, failures = ids_of(store), list[str]()
    # Each has a server of its own, as on another machine. Both are made here: making one changes which warnings this
    # process raises, which is no work for two threads at once.
    servers = [client_of(store), client_of(store)]

    def work(client: TestClient, mine: list[str], decision: str) -> None:
        for sample_id in mine:
            answer = client.post("/api/decisions", json={"ids": [sample_id], "decision": decision})
            if answer.status_code != 200:
                failures.append(answer.text)

    people = [
        threading.Thread(target=work, args=(servers[place], ids[place::2][:6], word))
        for place, word in enumerate(("kept", "unusable"))
    ]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert failures == []
    standing = decisions.standing(ledger.read(store))
    assert standing == {**dict.fromkeys(ids[0:12:2], "kept"), **dict.fromkeys(ids[1:12:2], "unusable")}


def _holder(store: Store, seconds: float) -> "subprocess.Popen[str]":
    """Another process that writes to the workspace for so long; it holds the lease when this returns."""
    script = (
        "import sys, time; from wtl_core.workspace import lease; from wtl_core.workspace.storage import Store\n"
        f"with lease.hold(Store(sys.argv[1])): print('held', flush=True); time.sleep({seconds})"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, store.root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_short_writer_is_waited_for(store: Store, client: TestClient) -> None:
    with _holder(store, 1.0) as holder:
        first = ids_of(store)[0]
        assert decide(client, [first], "kept")["now"] == {first: "kept"}
        holder.wait()


def test_a_long_run_is_told_and_reading_goes_on(
    store: Store, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "PATIENCE_SECONDS", 0.3)
    with _holder(store, 60) as holder:
        answer = client.post("/api/decisions", json={"ids": ids_of(store)[:1], "decision": "kept"})
        assert (answer.status_code, "wait until it ends" in answer.json()["error"]) == (409, True)
        work = client.get("/api/state").json()["work"]
        assert (work["pid"], work["is_alive"]) == (holder.pid, True)
        assert client.get("/api/picks").json()["total"] == 40
        holder.kill()
    assert ledger.length(store) == 0
    with pytest.raises(BusyError), lease.hold(store):
        decisions.decide(store, ids_of(store)[:1], "kept")


def test_the_progress_of_a_run_is_told_by_the_files_that_it_has_written(store: Store, client: TestClient) -> None:
    last = commits.latest(store)
    assert last is not None
    known = snapshots.read_snapshot(store, last.listing)
    coming = known.with_columns(part=pl.when(pl.int_range(pl.len()) < 5).then(pl.lit("f" * 64)).otherwise("part"))
    with lease.hold(store):
        snapshots.note_pending(store, 2, snapshots.write_snapshot(store, coming))
        work = client.get("/api/state").json()["work"]
        assert (work["stage"], work["done"], work["total"]) == ("reading images", 1, 2)
        snapshots.note_pending(store, 2, last.listing)
        assert client.get("/api/state").json()["work"]["stage"] == "embedding and ranking"
    assert client.get("/api/state").json()["work"] is None


def test_ids_of_no_image_enter_nothing(store: Store, client: TestClient) -> None:
    answer = client.post("/api/decisions", json={"ids": [ids_of(store)[0], "0" * 64], "decision": "unusable"})
    assert answer.status_code == 422
    assert ledger.length(store) == 0


# ---- whatever comes --------------------------------------------------------------------------------------------------

ADDRESSES = (
    "/", "/api/state", "/api/picks", "/api/near", "/api/arrivals", "/api/quarantine", "/api/labels", "/api/doubtful",
    "/api/columns", "/api/states", "/api/mask", "/thumbs/{}", "/images/{}", "/api/images/{}",
    "/api/images/{}/neighbours", "/columns/{}/{}", "/{}", "/api/decisions", "/api/recipe",
    "/api/preview", "/api/preview/picks", "/api/undo", "/api/decisions/{}", "/api/near/{}", "/api/find",
    "/api/names",
)  # fmt: skip


@pytest.fixture(scope="module")
def any_client(refreshed: Store) -> TestClient:
    return client_of(refreshed)


@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_request_makes_the_server_fail(any_client: TestClient, refreshed: Store, data: st.DataObject) -> None:
    text = st.one_of(
        st.text(max_size=70), st.sampled_from([*ids_of(refreshed)[:3], "0" * 64, "x", "rank", "-1", "1e9"])
    )
    address = data.draw(st.sampled_from(ADDRESSES))
    while "{}" in address:
        address = address.replace("{}", quote(data.draw(text), safe="/."), 1)
    names = st.sampled_from(["start", "count", "show", "where", "reason", "name", "token", "x"])
    query = data.draw(st.dictionaries(names, text, max_size=3))
    safe = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
    headers = data.draw(st.dictionaries(st.sampled_from(["accept", "range", "if-none-match", "cookie", "x-a"]), safe))
    if data.draw(st.booleans()):
        answer = any_client.get(address, params=query, headers=headers)
    else:
        json_like = st.recursive(
            st.none() | st.booleans() | st.integers() | text,
            lambda x: st.lists(x) | st.dictionaries(text, x),
            max_leaves=6,
        )
        body = st.one_of(
            st.fixed_dictionaries({"ids": json_like, "decision": json_like, "expected": json_like, "entry": json_like}),
            json_like,
        )
        answer = any_client.post(address, content=json.dumps(data.draw(body)).encode(), headers=headers)
    assert answer.status_code < 500, (address, query, answer.text)


def test_a_commit_is_not_touched_by_reading(refreshed: Store) -> None:
    before = {
        str(file): file.stat().st_mtime_ns for file in Path(refreshed.root).rglob("*") if "vectors" not in str(file)
    }
    client = client_of(refreshed)
    for address in ("/api/state", "/api/columns", "/api/near", "/api/arrivals", "/api/labels", "/api/doubtful"):
        assert client.get(address).status_code == 200, address
    last = commits.latest(refreshed)
    assert last is not None
    after = {
        str(file): file.stat().st_mtime_ns for file in Path(refreshed.root).rglob("*") if "vectors" not in str(file)
    }
    assert after == before
