"""`wtl report --serve`: the reports of a workspace over HTTP, also of one in a bucket, for browsers and Prefect.

Only reports are served, and only to requests that name this server: another site's page cannot read them through a
name of its own that leads here (DNS rebinding).
"""

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from wtl_core.errors import ConfigError
from wtl_core.workspace import commits
from wtl_core.workspace.storage import Store

_REPORT = re.compile(r"/(reports/\d{6,12}\.html)")
_LOCAL = ("127.0.0.1", "localhost")


class ReportServer(ThreadingHTTPServer):
    """`/` is the report of the latest refresh, and `/reports/<n>.html` that of refresh n."""

    daemon_threads = True

    def __init__(self, store: Store, host: str, port: int) -> None:
        self.store, self.host = store, host
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"{host}:{port}: expected an address that is free, found that it cannot be used: {error.strerror}; "
                "name another one by --host and --port"
            ) from error

    @property
    def address(self) -> str:
        """As a browser takes it, with the port that was given or found."""
        return f"http://{self.host}:{self.server_port}/"

    def is_meant(self, host: str) -> bool:
        """Whether a request's `Host` names this server; one that listens beyond this machine may have any name."""
        return self.host not in _LOCAL or host.rpartition(":")[0] in _LOCAL or host in _LOCAL

    def page(self, path: str) -> bytes | None:
        """The report that a path names; None if there is none."""
        asked = _REPORT.fullmatch(path)
        last = None if asked else commits.latest(self.store)
        key = asked[1] if asked else last.report if last is not None and path == "/" else None
        return self.store.read_bytes(key) if key is not None and self.store.exists(key) else None


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def do_GET(self) -> None:
        if not self.server.is_meant(self.headers.get("Host", "")):
            return self._answer(HTTPStatus.MISDIRECTED_REQUEST, b"ask for this server by its own name\n")
        found = self.server.page(urlsplit(self.path).path)
        if found is None:
            return self._answer(HTTPStatus.NOT_FOUND, b"no such report: / is the latest one\n")
        return self._answer(HTTPStatus.OK, found, kind="text/html; charset=utf-8")

    def _answer(self, status: HTTPStatus, data: bytes, *, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing: stdout and stderr are for results and messages."""
