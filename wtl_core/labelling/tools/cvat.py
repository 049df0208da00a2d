"""A batch as a task of a CVAT server, made over its HTTP API. Labels come back by `wtl labels add`.

CVAT fetches the images by their addresses, once, and keeps their file names alone. By httpx, which Prefect brings, for
the seven requests that are made here. They follow `cvat-sdk` 2.80.0 and the source of the server; none was run.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import httpx
import polars as pl

from wtl_core.errors import ConfigError, TransientError
from wtl_core.labelling import batch_files, batches, sample_names
from wtl_core.labelling.batch_files import Wanted
from wtl_core.labelling.batches import Asked, Batch
from wtl_core.workspace import lease
from wtl_core.workspace.storage import Store

TOKEN = "CVAT_ACCESS_TOKEN"  # noqa: S105, the name of a variable
"""Where the token comes from, as in CVAT's own command line."""
_ADDRESS = re.compile(r"(https?://[^\s?#@]+?)(?:/projects/([1-9][0-9]*))?/?(?:[?#].*)?")
_TIMEOUT = httpx.Timeout(60, connect=10)
_QUALITY = 70
"""Of the JPEGs that annotators are shown, in per cent: what CVAT's page and SDK take too."""
_FETCH_SECONDS, _LOOK_SECONDS = 600.0, 2.0
"""How long the images are waited for, and between two looks."""
_BLIND_LOOKS = 5
"""So often a task may be looked at that shows neither images nor why not."""
_TOLD_CHARACTERS = 300


@dataclass(frozen=True)
class Made:
    """A batch, and the page of its task: None if the batch is empty, or was only asked about."""

    batch: Batch
    link: str | None = None


class Server:
    """A server, or one of its projects, as the user of a token sees it; a context that closes its connections.

    Every method raises TransientError if the server does not answer or is overloaded, and ConfigError if it refuses.
    """

    def __init__(self, address: str, token: str | None) -> None:
        """`address` is that of the server or of a project's page; nothing is asked yet.

        Raises:
            ConfigError: the address is neither, or there is no token.
        """
        found = _ADDRESS.fullmatch(address)
        if found is None:
            raise ConfigError(
                f"{address}: expected the address of a CVAT server or of a project's page, such as "
                "https://app.cvat.ai/projects/12, found another; mend it"
            )
        if not token:
            raise ConfigError(
                f"{TOKEN}: expected an access token of CVAT at {found[1]}, found none; make one there in the settings "
                "of your account, under Security, and set the variable"
            )
        self.url, self.project = found[1], int(found[2]) if found[2] else None
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.cvat+json"}
        self._client = httpx.Client(base_url=self.url, timeout=_TIMEOUT, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def link(self, task: int) -> str:
        """The address of a task's page."""
        return f"{self.url}/tasks/{task}"

    def check(self) -> None:
        """See that the token opens the server and the project, whose organization later requests are made in."""
        if self.project is None:
            self._ask("GET", "/api/users/self")
            return
        organization = self._ask("GET", f"/api/projects/{self.project}").get("organization_id")
        if organization is not None:
            self._client.params = httpx.QueryParams(org_id=organization)

    def find(self, name: str) -> int | None:
        """The number of the first task of this name in the project, or outside of projects."""
        inside = {} if self.project is None else {"project_id": self.project}
        asked = {"name": name, "page_size": 100, "sort": "id", **inside}
        tasks = _expect(self._ask("GET", "/api/tasks", params=asked), "results", list)
        fitting = [task for task in tasks if (task.get("name"), task.get("project_id")) == (name, self.project)]
        return _expect(fitting[0], "id", int) if fitting else None

    def create(self, name: str, classes: Sequence[str]) -> int:
        """Make a task without images, and return its number. In a project it has the labels of that."""
        labels: dict[str, Any] = {"labels": [{"name": label} for label in classes]}
        inside = labels if self.project is None else {"project_id": self.project}
        return int(_expect(self._ask("POST", "/api/tasks", json={"name": name, **inside}), "id", int))

    def has_data(self, task: int) -> bool:
        """Whether the task was given images, which it can be once; they may still be fetched."""
        return self._ask("GET", f"/api/tasks/{task}").get("data") is not None

    def attach(self, task: int, urls: Sequence[str]) -> None:
        """Have the server fetch a task's images from these addresses, in this order; it does so after it answers."""
        body = {"image_quality": _QUALITY, "remote_files": list(urls), "sorting_method": "predefined"}
        self._ask("POST", f"/api/tasks/{task}/data", json=body)

    def wait(self, task: int) -> list[str]:
        """The names of a task's images, once they are all there."""
        deadline, blind = time.monotonic() + _FETCH_SECONDS, 0
        while not self._ask("GET", f"/api/tasks/{task}").get("size"):
            found = self._ask("GET", "/api/requests", params={"action": "create", "task_id": task})
            states = {str(held.get("status")): held.get("message") for held in _expect(found, "results", list)}
            blind += not states.keys() & {"queued", "started"}
            if "failed" in states or blind > _BLIND_LOOKS:
                told = " ".join(str(states.get("failed") or "no reason given").split())[-_TOLD_CHARACTERS:]
                raise ConfigError(
                    f"{self.link(task)}: CVAT did not fetch the images: {told}; mend it, delete this empty task there, "
                    "and call again, which makes another"
                )
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{self.link(task)}: CVAT has not fetched the images after {_FETCH_SECONDS:.0f} s; the same call "
                    "looks again"
                )
            time.sleep(_LOOK_SECONDS)
        frames = _expect(self._ask("GET", f"/api/tasks/{task}/data/meta"), "frames", list)
        return [str(_expect(frame, "name", str)) for frame in frames]

    def _ask(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise TransientError(
                f"{self.url}: CVAT does not answer: {error or type(error).__name__}; see that it is up, then run again"
            ) from error
        told = _told(answer)
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise TransientError(f"{self.url}: CVAT answered {answer.status_code}: {told}; run again")
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigError(f"{TOKEN}: expected a token that opens {self.url}, found one that is refused: {told}")
        if not answer.is_success:
            raise ConfigError(f"{self.url}: CVAT refused {method} {path}, {answer.status_code}: {told}")
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ConfigError(f"{self.url}: expected CVAT to answer with a JSON object, found something else; mend -o")
        return found


def make_task(
    store: Store, server: Server, asked: Asked, how: Wanted, *, due: date | None = None, is_dry: bool = False
) -> Made:
    """Hand out the batch that is asked for, as the task of its name, and wait until the server has its images.

    The ledger has the batch before the server is told of it. The same call makes good what was cut short: a task of the
    name that holds the images is the batch's, and no second one is made.

    Args:
        store: The workspace, whose lease is held until the server knows the images.
        server: Where the task is made.
        asked: Which images.
        how: From `batch_files.wanted_by_address`.
        due: The day by which it is to be labelled.
        is_dry: Enter and make nothing.

    Raises:
        ConfigError: as `batches.choose` and `batch_files.prepared`, an image that CVAT cannot fetch or name, or no
            labels for the task, and nothing is entered; or CVAT refuses, and the same call with the batch's name goes
            on.
        TransientError: the server does not answer, or fetches for too long.
        BusyError: another process writes to the workspace.
    """
    with nullcontext() if is_dry else lease.hold(store):
        batch = batches.choose(store, asked)
        images, classes = batch_files.prepared(store, batch.table, how), batch_files.known_classes(store)
        if not images.height:
            return Made(batch)
        names = _checked_names(store, images)
        if server.project is None and not classes:
            raise ConfigError(
                f"{server.url}: expected classes in the ledger as labels of the task, found none; name a project that "
                f"has labels (-o {server.url}/projects/N); nothing is entered"
            )
        server.check()
        if is_dry:
            return Made(batch)
        batch = batches.enter(store, batch, due=due)
        with _recorded(batch):
            task = server.find(batch.name) or server.create(batch.name, classes)
            if not server.has_data(task):
                server.attach(task, images["url"].to_list())
    with _recorded(batch):
        if others := set(names).difference(server.wait(task)):
            raise ConfigError(
                f"{server.link(task)}: expected the images of {batch.name}, found a task of that name without "
                f"{len(others):,} of them, first {min(others)!r}; rename that task"
            )
    return Made(batch, server.link(task))


@contextmanager
def _recorded(batch: Batch) -> Iterator[None]:
    """Adds to an error that the batch is in the ledger."""
    try:
        yield
    except (ConfigError, TransientError) as error:
        again = f"the same call with `--name {batch.name}` goes on"
        raise type(error)(f"{error}; {batch.name} is recorded, and {again}") from error


def _checked_names(store: Store, images: pl.DataFrame) -> list[str]:
    """What the images are called in CVAT. Raises ConfigError if it cannot fetch one, or a name is not one image's."""
    urls = images["url"].to_list()
    if unreachable := [url for url in urls if not url.startswith(("http://", "https://"))]:
        raise ConfigError(
            f"expected addresses that CVAT can fetch over HTTP, found {unreachable[0]!r} and {len(unreachable) - 1:,} "
            "more; --url FROM=https://HOST/ maps them, --presign 12h signs those in a bucket; nothing is entered"
        )
    names = [PurePosixPath(unquote(urlsplit(url).path)).name for url in urls]
    matched = sample_names.match_in_pool(store, list(dict.fromkeys(names)))
    owners = dict(matched.select("value", "sample_ids").iter_rows())
    unclear = [
        name
        for name, sample_id in zip(names, images["sample_id"], strict=True)
        if owners[name] != [sample_id] or not PurePosixPath(name).suffix
    ]
    if unclear:
        raise ConfigError(
            f"expected file names with an ending that are each of one image in the pool, found {len(unclear):,} "
            f"others, first {unclear[0]!r}: CVAT tells images by these alone; --format cvat -o manifest.jsonl "
            "keeps folders, --format folder names copies; nothing is entered"
        )
    return names


def _expect(found: Any, key: str, kind: type) -> Any:
    """What an answer holds under `key`. Raises ConfigError if it is not there or of another type."""
    if not isinstance(found, dict) or not isinstance(found.get(key), kind):
        raise ConfigError(f"CVAT: expected an answer with {key!r}, found another; this follows its version 2.80")
    return found[key]


def _told(answer: httpx.Response) -> str:
    """What an answer says, in one line."""
    if answer.is_redirect:
        return f"it lies at {answer.headers.get('location')}"
    return " ".join(answer.text.split())[:_TOLD_CHARACTERS] or answer.reason_phrase
