"""The part of CVAT's HTTP API that `wtl` uses, in this process: what answers the tests of its client.

It does what the documentation, `cvat-sdk` 2.80.0 and the source of the server say. No test runs a CVAT server, which
comes as containers alone: what this stub has wrong, the tests do not see.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from posixpath import basename
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "personal-access-token"
PROJECT = {"id": 12, "name": "birds", "organization_id": 5}


@dataclass
class Stub:
    """The project number 12, the tasks of the server, and what goes wrong next."""

    url: str = ""
    tasks: list[dict[str, Any]] = field(default_factory=list)
    """As they are listed, and with `labels` and `asked`, what was sent as their data."""
    requests: list[str] = field(default_factory=list)
    on_data: Callable[[dict[str, Any]], int] | None = None
    """Called with a task whose data were asked for; returns the status to answer with. None fetches them: 202."""
    answer: tuple[int, bytes] | None = None
    """What every request is answered with, if something is."""
    state: dict[str, Any] | None = None
    """What the server says of the fetching of images; None if it has forgotten."""
    silent: str = ""
    """The beginning of a request that is done, and whose answer does not come."""

    def fetch(self, task: dict[str, Any]) -> int:
        """Fetch a task's images: their names are unique, as the server wants them."""
        names = [basename(unquote(urlsplit(url).path)) for url in task["asked"]["remote_files"]]
        assert len({*names}) == len(names), "filename collision"
        task["size"], task["frames"] = len(names), [{"name": name} for name in names]
        return 202

    def post(self, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """Make a task, or give one its images."""
        if path == "/api/tasks":
            if body.get("project_id") not in (None, PROJECT["id"]) or not (body.get("labels") or "project_id" in body):
                return 400, {"project_id": ["no such project"]}
            place = {"project_id": body.get("project_id"), "organization_id": query.get("org_id")}
            task = {"id": 70 + len(self.tasks), "size": 0, "data": None, "labels": body.get("labels"), **place}
            self.tasks.append(task | {"name": body["name"]})
            return 201, self.tasks[-1]
        task = self.task(path)
        if task["data"] is not None:
            return 400, "Adding more data is not supported"
        task["data"], task["asked"] = 1, body
        return (self.on_data or self.fetch)(task), {"rq_id": f"action=create&target=task&id={task['id']}"}

    def get(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """Look at what there is."""
        if path == "/api/users/self":
            return 200, {"username": "somebody"}
        if path.startswith("/api/projects/"):
            return (200, PROJECT) if path.endswith("/12") else (404, {"detail": "Not found."})
        if path == "/api/requests":
            return 200, {"results": [] if self.state is None else [self.state]}
        if path == "/api/tasks":
            kinds = {name: str(value) for name, value in query.items() if name in ("name", "project_id")}
            found = [task for task in self.tasks if kinds.items() <= {key: str(task[key]) for key in kinds}.items()]
            return 200, {"results": found, "next": None}
        task = self.task(path)
        return 200, {"frames": task["frames"]} if path.endswith("/data/meta") else task

    def task(self, path: str) -> dict[str, Any]:
        """The task in a path."""
        return next(task for task in self.tasks if task["id"] == int(path.split("/")[3]))


@contextmanager
def serve() -> Iterator[Stub]:
    """A stub that answers at its `url`."""
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.handle_request(None)

        def do_POST(self) -> None:
            self.handle_request(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def handle_request(self, body: Any) -> None:
            stub.requests.append(f"{self.command} {self.path}")
            parts = urlsplit(self.path)
            query = dict(parse_qsl(parts.query))
            if stub.answer is not None:
                status, told = stub.answer
            elif self.headers["Authorization"] != f"Bearer {TOKEN}":
                status, told = 401, b'{"detail": "Invalid token."}'
            else:
                status, found = stub.get(parts.path, query) if body is None else stub.post(parts.path, query, body)
                told = json.dumps(found).encode()
            if stub.silent and stub.requests[-1].startswith(stub.silent):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
