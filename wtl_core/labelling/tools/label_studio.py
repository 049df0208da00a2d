"""A project of a Label Studio server, spoken to over HTTP. What its annotations mean is in `formats.label_studio`.

By httpx, which Prefect brings, and not by `label-studio-sdk`: that brings pandas, OpenCV, NLTK, lxml and a generator of
code, for the six requests that are made here. Checked with Label Studio 1.23.2, whose open edition imports while it is
asked. Others answer first and import later, so nothing relies on what the answer to an import says.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import httpx

from wtl_core.errors import ConfigError, TransientError

TOKEN = "LABEL_STUDIO_API_KEY"  # noqa: S105, the name of a variable
"""Where the token comes from, as in Label Studio's own SDK."""
_LOADABLE = ("http://", "https://", "s3://", "gs://", "azure-blob://", "/data/")
"""How addresses begin that a page of Label Studio can open; those of buckets need a storage in the project."""
UPLOADED = ("jpeg", "png", "webp", "gif", "bmp")
"""Formats of images, as the pool calls them, that it stores; browsers show no others either."""
_PAGE_TASKS, _PAGE_ANNOTATED = 1000, 200
_TIMEOUT = httpx.Timeout(300, connect=10)
"""A server that has not answered by then does not import any more, so that the tasks can be sent again."""
_TOLD_CHARACTERS = 300
_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
"""The one form of a time that its filters take."""

_UNANNOTATED = {"filter": "filter:tasks:total_annotations", "operator": "equal", "type": "Number", "value": 0}
_ANNOTATED = {**_UNANNOTATED, "operator": "greater"}
_UNSKIPPED = {**_UNANNOTATED, "filter": "filter:tasks:cancelled_annotations"}
_SKIPPED = {**_UNSKIPPED, "operator": "greater"}


class Project:
    """A project as the user of a token sees it; a context that closes its connections.

    Every method raises TransientError if the server does not answer or is overloaded, and ConfigError if it refuses.
    None asks twice by itself: whoever calls may.
    """

    def __init__(self, url: str, number: int, token: str | None) -> None:
        """The project `number` of the server at `url`; nothing is asked yet. Raises ConfigError without a token."""
        if not token:
            raise ConfigError(
                f"{TOKEN}: expected an access token of Label Studio at {url}, found none; make one there under Account "
                "& Settings, and set the variable"
            )
        self.link = f"{url}/projects/{number}"
        self._url, self._number, self._token = url, number, token
        self._client = httpx.Client(base_url=url, timeout=_TIMEOUT, headers={"Authorization": f"Token {token}"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def task_link(self, task: int) -> str:
        """The address of a task's page."""
        return f"{self.link}/data?task={task}"

    def controls(self) -> dict[str, dict[str, Any]]:
        """The control tags of the labelling configuration by their names, as the server has parsed them."""
        found = self._ask("GET", f"/api/projects/{self._number}")
        return dict(_expect(found, "parsed_label_config", dict))

    def image_field(self) -> str:
        """The field of a task's data that holds the address of its image. Raises ConfigError if none does."""
        inputs = [shown for control in self.controls().values() for shown in control.get("inputs", [])]
        images = [str(shown.get("value")) for shown in inputs if shown.get("type") == "Image"]
        if not images:
            raise ConfigError(
                f"{self.link}: expected a labelling configuration with an image that is labelled, such as "
                '<Image name="image" value="$image"/>, found none; set it up in the project'
            )
        return images[0]

    def waiting(self) -> int:
        """How many tasks have neither an annotation nor been skipped."""
        return self._count(_UNANNOTATED, _UNSKIPPED)

    def skipped(self) -> int:
        """How many tasks were skipped, and have no annotation."""
        return self._count(_UNANNOTATED, _SKIPPED)

    def tasks(self, *, after: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and data of each task whose number is above `after`, in their order. 1,000 take some 0.8 s."""
        for task in self._pages([], _PAGE_TASKS, after=after, include="id,data"):
            yield int(task["id"]), _expect(task, "data", dict)

    def annotated(self, since: datetime | None) -> Iterator[dict[str, Any]]:
        """`id`, `data` and `annotations` of each task that has some, in the order of their numbers.

        `updated_at` of an annotation is in UTC, in a form whose texts are ordered as the times are.

        Args:
            since: Without those that have not changed since this time of the server; None for all.

        Cost: some 8 s for 1,000, which the server takes; so only what has changed is asked for.
        """
        filters: list[dict[str, Any]] = [_ANNOTATED]
        if since is not None:
            value = since.astimezone(UTC).strftime(_TIME)
            filters.append({**_ANNOTATED, "filter": "filter:tasks:updated_at", "type": "Datetime", "value": value})
        for task in self._pages(filters, _PAGE_ANNOTATED, fields="all"):  # `include` would cut annotations short too
            for annotation in _expect(task, "annotations", list):
                at = datetime.fromisoformat(_expect(annotation, "updated_at", str))
                annotation["updated_at"] = at.astimezone(UTC).strftime(_TIME)  # so that times compare as texts
            yield {name: task[name] for name in ("id", "data", "annotations")}

    def push(self, data: Sequence[dict[str, Any]]) -> None:
        """Add a task for each data. If this fails, some of them may be there."""
        self._ask("POST", f"/api/projects/{self._number}/import", json=[{"data": held} for held in data])

    def upload(self, name: str, image: bytes) -> str:
        """Store an image file in the project, without a task; returns the address that a task can have for it."""
        path = f"/api/projects/{self._number}/import"
        found = self._ask("POST", path, params={"commit_to_project": "false"}, files={"file": (name, image)})
        [number] = _expect(found, "file_upload_ids", list)
        return f"/data/{_expect(self._ask('GET', f'/api/import/file-upload/{number}'), 'file', str)}"

    def _count(self, *filters: dict[str, Any]) -> int:
        return int(_expect(self._list(filters, page_size=1), "total", int))

    def _pages(self, filters: Sequence[dict[str, Any]], size: int, *, after: int = 0, **more: str) -> Iterator[Any]:
        """Tasks in the order of their numbers; numbered pages would pass by some when others are deleted meanwhile."""
        while True:
            later = {"filter": "filter:tasks:id", "operator": "greater", "type": "Number", "value": after}
            found = _expect(self._list([*filters, later], page_size=size, **more), "tasks", list)
            yield from found
            if not found:
                return
            after = max(int(_expect(task, "id", int)) for task in found)

    def _list(self, filters: Sequence[dict[str, Any]], **more: str | int) -> Any:
        query = {"filters": {"conjunction": "and", "items": list(filters)}, "ordering": ["tasks:id"]}
        asked = {"project": self._number, "resolve_uri": "false", "query": json.dumps(query), **more}
        return self._ask("GET", "/api/tasks", params=asked)

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self._send(method, path, **more)
        if answer.status_code == httpx.codes.UNAUTHORIZED and self._token.count(".") == 2:  # a personal token is a JWT
            self._renew()
            answer = self._send(method, path, **more)
        if answer.is_success:
            return _parsed(answer, self._url)
        told = _told(answer)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ConfigError(
                f"{TOKEN}: expected a token that opens {self.link}, found one that is refused: {told}; make one "
                "there under Account & Settings"
            )
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise ConfigError(
                f"{self.link}: expected a project that the token's user can see, found none: {told}; mend `url` or "
                "`project` of [labelling] in the site file"
            )
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise TransientError(f"{self._url}: Label Studio answered {answer.status_code}: {told}; run again")
        raise ConfigError(f"{self.link}: Label Studio refused {method} {path}, {answer.status_code}: {told}")

    def _renew(self) -> None:
        """Get the short-lived token that a personal one stands for."""
        answer = self._send("POST", "/api/token/refresh/", json={"refresh": self._token})
        if answer.is_success:
            access = _expect(_parsed(answer, self._url), "access", str)
            self._client.headers["Authorization"] = f"Bearer {access}"

    def _send(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._client.request(method, path, **more)
        except httpx.HTTPError as error:
            raise TransientError(
                f"{self._url}: Label Studio does not answer: {error or type(error).__name__}; see that it is up, then "
                "run again"
            ) from error


def can_open(address: str) -> bool:
    """Whether a page of Label Studio can open an image at this address, as far as its beginning says."""
    return address.startswith(_LOADABLE)


def _parsed(answer: httpx.Response, url: str) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise ConfigError(
            f"{url}: expected Label Studio to answer in JSON, found something else; mend `url` of [labelling]"
        ) from error


def _expect(found: Any, key: str, kind: type) -> Any:
    """What an answer holds under `key`. Raises ConfigError if it is not there or of another type."""
    if not isinstance(found, dict) or not isinstance(found.get(key), kind):
        raise ConfigError(
            f"Label Studio: expected an answer with {key!r}, found another; this was checked with its version 1.23.2"
        )
    return found[key]


def _told(answer: httpx.Response) -> str:
    """What an answer says of why it is a refusal, in one line."""
    if answer.is_redirect:
        return f"it lies at {answer.headers.get('location')}"
    try:
        found = answer.json()
        reasons = [found.get("detail"), found.get("validation_errors")] if isinstance(found, dict) else [found]
    except ValueError:
        reasons = [answer.reason_phrase]
    return " ".join(str(reason) for reason in reasons if reason)[:_TOLD_CHARACTERS] or "no reason given"
