"""The part of Label Studio's HTTP API that `wtl` uses, in this process: what answers the unit tests of its client.

It holds one project and does what version 1.23.2 was seen to do. `tests/services/test_labelling_tool.py` runs the same
circle with the real server; what only a stub can do is to fail at the right moment.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN, PERSONAL_TOKEN, ACCESS_TOKEN = "legacy-token", "personal.jwt.token", "short-lived"
CHOICES = {"type": "Choices", "to_name": ["image"], "inputs": [{"type": "Image", "value": "image"}]}


@dataclass
class Stub:
    """The project number 7, its tasks, and what goes wrong next."""

    url: str = ""
    controls: dict[str, Any] = field(default_factory=lambda: {"class": CHOICES})
    tasks: list[dict[str, Any]] = field(default_factory=list)
    uploads: list[tuple[str, bytes]] = field(default_factory=list)
    """Names and contents of files that were stored."""
    requests: list[str] = field(default_factory=list)
    on_import: Callable[[list[dict[str, Any]]], int] | None = None
    """Called with the tasks of an import; returns the status to answer with. None adds them and answers 201."""
    answer: tuple[int, bytes] | None = None
    """What every request is answered with, if something is."""
    clock: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> str:
        """The time, which goes on by a minute."""
        self.clock += timedelta(minutes=1)
        return self.clock.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def add(self, tasks: list[dict[str, Any]]) -> int:
        """Add tasks as an import does."""
        for task in tasks:
            number = max((held["id"] for held in self.tasks), default=0) + 1
            self.tasks.append({"id": number, "data": task["data"], "annotations": [], "updated_at": self.now()})
        return 201

    def annotate(self, sample_id: str, *choices: str, control: str = "class", **more: Any) -> dict[str, Any]:
        """Add a person's annotation to the first task of an image; with no choice it is an empty one."""
        task = next(held for held in self.tasks if held["data"]["sample_id"] == sample_id)
        result = [{"from_name": control, "to_name": "image", "type": "choices", "value": {"choices": list(choices)}}]
        annotation = {"id": self.clock.timestamp(), "result": result if choices else [], "was_cancelled": False, **more}
        task["annotations"].append(annotation)
        return self.change(annotation)

    def change(self, annotation: dict[str, Any], *choices: str) -> dict[str, Any]:
        """Give an annotation other choices, if any, and a later time."""
        if choices:
            annotation["result"][0]["value"]["choices"] = list(choices)
        annotation["updated_at"] = self.now()
        task = next(held for held in self.tasks if annotation in held["annotations"])
        task["updated_at"] = self.now()
        return annotation

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        """Tasks as the data manager lists them: filtered, one page of them, with the fields that are asked for."""
        found = self.tasks
        for held in json.loads(query["query"])["filters"]["items"]:
            name, value = held["filter"].removeprefix("filter:tasks:"), held["value"]
            is_greater = held["operator"] == "greater"
            if held["type"] == "Datetime":
                datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")  # the real server fails at any other form
            found = [
                task for task in found if (_value(task, name) > value if is_greater else _value(task, name) == value)
            ]
        page = found[: int(query["page_size"])]
        wanted = query["include"].split(",") if "include" in query else None
        return {"total": len(found), "tasks": [_cut(task, wanted) for task in page]}


def _cut(held: dict[str, Any], wanted: list[str] | None) -> dict[str, Any]:
    """What is wanted of a task; the real server cuts its annotations to the same names."""
    kept = {name: value for name, value in held.items() if wanted is None or name in wanted}
    return kept | (
        {"annotations": [_cut(held, wanted) for held in kept["annotations"]]} if "annotations" in kept else {}
    )


def _value(task: dict[str, Any], name: str) -> Any:
    if name == "total_annotations":
        return sum(not held["was_cancelled"] for held in task["annotations"])
    if name == "cancelled_annotations":
        return sum(held["was_cancelled"] for held in task["annotations"])
    return task[name]


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
            data = self.rfile.read(int(self.headers["Content-Length"]))
            self.handle_request(data if self.headers["Content-Type"].startswith("multipart/") else json.loads(data))

        def handle_request(self, body: Any) -> None:
            stub.requests.append(f"{self.command} {self.path}")
            parts = urlsplit(self.path)
            allowed = (f"Token {TOKEN}", f"Bearer {ACCESS_TOKEN}")
            if stub.answer is not None:
                self.reply(*stub.answer)
            elif parts.path == "/api/token/refresh/":
                is_known = body == {"refresh": PERSONAL_TOKEN}
                self.reply(200, {"access": ACCESS_TOKEN}) if is_known else self.reply(
                    401, {"detail": "Token is invalid"}
                )
            elif self.headers["Authorization"] not in allowed:
                self.reply(401, {"detail": "Invalid token."})
            elif parts.path == "/api/tasks":
                self.reply(200, stub.listed({name: values[0] for name, values in parse_qs(parts.query).items()}))
            elif parts.path == "/api/projects/7":
                self.reply(200, {"id": 7, "parsed_label_config": stub.controls})
            elif parts.path == "/api/projects/7/import" and isinstance(body, bytes):
                kind = self.headers["Content-Type"]
                [part] = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
                stub.uploads.append((str(part.get_filename()), bytes(part.get_payload(decode=True))))
                self.reply(201, {"task_count": 1, "file_upload_ids": [len(stub.uploads)]})
            elif parts.path.startswith("/api/import/file-upload/"):
                number = int(parts.path.rpartition("/")[2])
                self.reply(200, {"id": number, "file": f"upload/7/{stub.uploads[number - 1][0]}"})
            elif parts.path == "/api/projects/7/import":
                self.reply((stub.on_import or stub.add)(body), {"task_count": len(body)})
            else:
                self.reply(404, {"detail": "No Project matches the given query."})

        def reply(self, status: int, body: Any) -> None:
            if not status:  # the connection breaks
                self.close_connection = True
                return
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

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
