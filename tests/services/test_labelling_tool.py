"""Three rounds with a real Label Studio and a real Prefect: images out, annotations back, refreshes with their classes.

It needs the program `label-studio` in the variable WTL_LABEL_STUDIO, from an environment of its own, since it pins
much; `make test-labelling-tool` makes one. The server's database takes a minute or more to be made.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from service_stack import OUTPUT, Stack, artifact, free_port, last_commit, running, until

from flows.serving.processes import Child
from flows.serving.site_values import read_site
from tests.conftest import make_jpeg, write_pictures
from tests.services.landing import make_shard
from wtl_core.labelling.tools import hand_out
from wtl_core.labelling.tools.label_studio import Project
from wtl_core.workspace import lease, ledger
from wtl_core.workspace.storage import Store

PROGRAM = os.environ.get("WTL_LABEL_STUDIO", "")
pytestmark = [
    pytest.mark.services,
    pytest.mark.skipif(not os.access(PROGRAM, os.X_OK), reason="WTL_LABEL_STUDIO names no program"),
]
LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"
CONFIG = (
    '<View><Image name="picture" value="$photo"/><Choices name="class" toName="picture" choice="multiple">'
    '<Choice value="even"/><Choice value="odd &amp; more"/></Choices></View>'
)
NAMES = ("<b>&amp;.jpg", 'it\'s "quoted".jpg', "=SUM(1).jpg", "two\nlines.jpg", "שלום.jpg", "100%25 #1?.jpg")


class LabelStudio:
    """The server, and what a person does with it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        port = self.url.rpartition(":")[2]
        command = [PROGRAM, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", port]
        command += ["--data-dir", str(folder), "--username", "test@example.com", "--password", "test-test"]
        command += ["--user-token", LEGACY_TOKEN, "--enable-legacy-api-token"]
        quiet = {
            "COLLECT_ANALYTICS": "false",
            "LATEST_VERSION_CHECK": "false",
            "SENTRY_DSN": "",
            "LOG_LEVEL": "WARNING",
        }
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WTL_"))}
        self.server = Child("label-studio", command, {**plain, **quiet}, OUTPUT / "logs" / "label-studio.log")
        self.client = httpx.Client(base_url=self.url, headers={"Authorization": f"Token {LEGACY_TOKEN}"}, timeout=60)

    def start(self) -> None:
        self.server.start()
        until(self._answers, seconds=600, what=f"Label Studio answers; see {self.server.log}", every=1)

    def _answers(self) -> bool:
        assert self.server.is_running(), self.server.log.read_text()[-2000:]
        try:
            return self.client.get("/health").is_success
        except httpx.TransportError:
            return False

    def ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self.client.request(method, path, **more)
        assert answer.is_success, answer.text
        return answer.json()

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project with their annotations, as its export has them."""
        given = {"exportType": "JSON", "download_all_tasks": "true"}
        found: list[dict[str, Any]] = self.ask("GET", f"/api/projects/{project}/export", params=given)
        return found

    def annotate(self, task: int, *choices: str, was_cancelled: bool = False) -> dict[str, Any]:
        made: dict[str, Any] = self.ask(
            "POST",
            f"/api/tasks/{task}/annotations/",
            json={"result": result_of(choices), "was_cancelled": was_cancelled},
        )
        return made

    def change(self, annotation: dict[str, Any], *choices: str) -> None:
        self.ask("PATCH", f"/api/annotations/{annotation['id']}/", json={"result": result_of(choices)})


def result_of(choices: tuple[str, ...]) -> list[dict[str, Any]]:
    value = {"choices": list(choices)}
    return [{"from_name": "class", "to_name": "picture", "type": "choices", "value": value}] if choices else []


@pytest.fixture(scope="module")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    tool = LabelStudio(tmp_path_factory.mktemp("label-studio"))
    try:
        tool.start()
        yield tool
    finally:
        tool.client.close()
        tool.server.stop()


@pytest.fixture
def project(label_studio: LabelStudio) -> int:
    return int(label_studio.ask("POST", "/api/projects", json={"title": "circle", "label_config": CONFIG})["id"])


@pytest.fixture
def stack(tmp_path: Path, label_studio: LabelStudio, project: int) -> Iterator[Stack]:
    """A stack whose site names the project; its token is in a block of Prefect, as docs/labelling.md has it."""
    source = write_pictures(tmp_path / "photos", count=58)
    make_shard(source / "shard.tar", 2000, count=6)
    for seed, name in enumerate(NAMES, 1000):
        (source / name).write_bytes(make_jpeg(seed))
    made = Stack(tmp_path / "stack", sources=[str(source)])
    never = "0 0 1 1 *"
    with made.site.open("a") as site:
        site.write(
            f'[labelling]\nurl = "{label_studio.url}"\nproject = {project}\nbatch = 20\nlow = 5\n'
            f'urls = {{ "{source}/" = "http://files.example/" }}\nupload = true\n'
            f'hand_out = "{never}"\ntake_back = "{never}"\n'
        )
    with running(made):
        keep_in_a_block(made, label_studio.ask("POST", "/api/token/", json={})["token"])
        yield made


def keep_in_a_block(stack: Stack, token: str) -> None:
    """A personal token as a block, which the work pool gives to runs as an environment variable."""
    make = f"from prefect.blocks.system import Secret; Secret(value={token!r}).save('label-studio')"
    subprocess.run([sys.executable, "-c", make], check=True, env=stack.environment, timeout=120)

    def template_of_the_worker() -> dict[str, Any]:
        found: dict[str, Any] = stack.api("GET", "/work_pools/wtl")["base_job_template"]
        return found

    template = until(template_of_the_worker, seconds=60, what="the worker gives its pool a template")
    block = "{{ prefect.blocks.secret.label-studio }}"
    template["variables"]["properties"]["env"]["default"] = {"LABEL_STUDIO_API_KEY": block}
    stack.api("PATCH", "/work_pools/wtl", {"base_job_template": template})


def classes_of(sample_id: str) -> tuple[str, ...]:
    """What the person of this test sees in an image: one class, two, or nothing of interest."""
    number = int(sample_id[:8], 16)
    return (
        ("even", "odd & more")
        if number % 10 == 0
        else ()
        if number % 10 == 1
        else ("odd & more", "even")[number % 2 :][:1]
    )


class Died(BaseException):
    """What ends the process in the middle of its work."""


class DyingProject(Project):
    """A project whose caller dies when its tasks are there, before it can note that."""

    def push(self, data: Any) -> None:
        super().push(data)
        raise Died


@pytest.mark.timeout(1500)
def test_three_rounds_a_restart_a_push_twice_and_a_crash(stack: Stack, label_studio: LabelStudio, project: int) -> None:
    store = Store(str(stack.workspace))
    said: dict[str, list[str]] = {}
    until(lambda: last_commit(stack.workspace), seconds=240, what="the first refresh")
    for flow in ("hand-out", "take-back"):
        assert [schedule["active"] for schedule in stack.deployment(flow)["schedules"]] == [True]

    def open_tasks() -> list[dict[str, Any]]:
        return [task for task in label_studio.tasks(project) if not task["annotations"]]

    def annotate(tasks: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        made = {}
        for task in tasks:
            sample_id = task["data"]["sample_id"]
            said[sample_id] = sorted(classes_of(sample_id))
            made[sample_id] = label_studio.annotate(task["id"], *classes_of(sample_id))
        return made

    def take_back_and_refresh() -> str:
        """The labels are taken, and a refresh that has read them follows by itself."""
        before = ledger.length(store)
        run = stack.finish("take-back")
        assert ledger.length(store) == before + 1
        until(lambda: ledger_length(stack) >= before + 1, seconds=240, what="a refresh reads the labels")
        until(lambda: not stack.unfinished("refresh"), seconds=120, what="no refresh is at work")
        assert dict(ledger.labels(ledger.read(store)).select("sample_id", "classes").iter_rows()) == said
        return str(stack.run(run["id"])["name"])

    # The first round, its push repeated at once.
    pushed = stack.finish("hand-out")
    assert stack.run(pushed["id"])["name"] == "batch-001: 20 pushed, 0 waited"
    shown = artifact(stack, pushed["id"], "hand-out")
    assert f"[{label_studio.url}/projects/{project}]" in shown["data"]
    assert "| pushed | 20 |" in shown["data"]
    again = stack.finish("hand-out")
    assert stack.run(again["id"])["name"] == "nothing is due, 20 waited"
    first = annotate(open_tasks())
    assert len(first) == 20
    assert take_back_and_refresh() == "20 labels taken, 0 images wait"

    # The second: a process dies between push and record, the tool is started again, and a person changes their mind.
    site = read_site(stack.site)
    assert site.labelling is not None
    with (
        lease.hold(store),
        DyingProject(site.labelling.url, project, LEGACY_TOKEN) as dying,
        pytest.raises(Died),
    ):
        hand_out.run(store, dying, site.labelling, is_dry=False)
    label_studio.server.stop()
    away = stack.wtl("hand-out", "--site", stack.site, env={"LABEL_STUDIO_API_KEY": LEGACY_TOKEN}, check=False)
    assert (away.returncode, "does not answer" in away.stderr) == (4, True), away.stderr
    label_studio.start()
    assert len(open_tasks()) == 20
    found = stack.wtl("hand-out", "--site", stack.site, "--json", env={"LABEL_STUDIO_API_KEY": LEGACY_TOKEN})
    told = json.loads(found.stdout)
    assert (told["batch"], told["pushed"], told["found"]) == (None, 0, 20)
    changed = next(iter(first))
    label_studio.change(first[changed], "even", "odd & more")
    said[changed] = ["even", "odd & more"]
    *finished, skipped = open_tasks()
    annotate(finished)
    label_studio.annotate(skipped["id"], was_cancelled=True)
    corrected = ", 1 corrected" if classes_of(changed) != ("even", "odd & more") else ""
    assert take_back_and_refresh() == f"20 labels taken{corrected}, 0 images wait"

    # The third: a batch by the API, and one by a file.
    assert stack.finish("hand-out")["state"]["type"] == "COMPLETED"
    file = stack.folder / "tasks.json"
    mapped = (f"{site.sources[0]}/=http://files.example/", f"{site.sources[0]}/shard.tar#=http://files.example/")
    stack.wtl(
        "export",
        "--new",
        10,
        "--format",
        "label-studio",
        "-o",
        file,
        "--url",
        mapped[0],
        "--url",
        mapped[1],
        "-w",
        stack.workspace,
    )
    by_file = [{"data": {"photo": task["data"]["image"], **task["data"]}} for task in json.loads(file.read_text())]
    files = {"file": ("tasks.json", json.dumps(by_file).encode())}
    label_studio.ask("POST", f"/api/projects/{project}/import", files=files)
    assert len(annotate(open_tasks())) == 30
    assert take_back_and_refresh() == "30 labels taken, 0 images wait"
    nothing = stack.finish("take-back")
    assert stack.run(nothing["id"])["name"] == "no new label, 0 images wait"

    # Every image was in the tool once, under its address, and the ranking is of the images that nobody has labelled.
    tasks = label_studio.tasks(project)
    shown_ids = [task["data"]["sample_id"] for task in tasks]
    exported = ledger.sample_ids(ledger.read(store), "exported")
    assert len(shown_ids) == len(set(shown_ids)) == 70
    assert set(shown_ids) == set(exported)
    assert {task["data"]["uri"].removeprefix(f"{site.sources[0]}/") for task in tasks} >= set(NAMES)
    uploaded = 0
    for task in tasks:
        address, name = task["data"]["photo"], task["data"]["uri"].removeprefix(f"{site.sources[0]}/")
        if address.startswith("/data/upload/"):
            image = label_studio.client.get(address)
            uploaded += 1
            assert hashlib.sha256(image.content).hexdigest() == task["data"]["sample_id"]
        else:
            assert unquote(address.removeprefix("http://files.example/")) == name.removeprefix("shard.tar#")
    assert uploaded > 0
    assert len(said) == 69
    commit = last_commit(stack.workspace)
    assert commit is not None
    assert commit["counts"]["ranked"] == 1  # the one that was skipped


def ledger_length(stack: Stack) -> int:
    commit = last_commit(stack.workspace)
    return 0 if commit is None else int(commit["ledger_length"])
