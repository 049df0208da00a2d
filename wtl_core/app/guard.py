"""Who may ask the app: whoever has the token, from its own page, by its own name. Everything else is refused.

The server listens on 127.0.0.1, where every page that a browser shows can send requests, and every user of the machine.
So a request needs the token, in a cookie or a header; a name of this machine as its Host, since a foreign name may be
made to point here (DNS rebinding); and no Origin but our own.
"""

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = "x-wtl-token"
MOST_BODY_BYTES = 2 << 20
"""Of a request; the largest holds ten thousand sample ids, and what was decided on each."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """An ASGI application around another one, which gets only requests that may be answered.

    The page `/?token=...` is answered with a cookie that browsers send back to this server alone and from its own pages
    alone (`SameSite=Strict`); its name has the port, since cookies do not tell ports apart.
    """

    def __init__(self, app: Application, *, token: str, port: int) -> None:
        self._app, self._token = app, token
        names = ("127.0.0.1", "localhost")
        self._hosts = {f"{name}:{port}" for name in names} | ({*names} if port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}
        self._cookie = f"wtl-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        is_page = scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
        refusal = self._refusal(headers, given if is_page else "", is_page=is_page, method=scope["method"])
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        more = {}
        if is_page and given:
            more["set-cookie"] = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _with_headers(message["headers"], more)}
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _refusal(
        self, headers: dict[str, list[str]], given: str, *, is_page: bool, method: str
    ) -> tuple[int, str] | None:
        """Status and reason if the request is refused."""
        hosts = headers.get("host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "expected a name of this machine as host; open the address that `wtl ui` printed"
        origins = headers.get("origin", [])
        if any(origin not in self._origins for origin in origins):
            return 403, "expected a request of the app's own page, found one of another origin"
        sites = headers.get("sec-fetch-site", [])
        if not is_page and any(site not in ("same-origin", "none") for site in sites):
            return 403, "expected a request of the app's own page, found one of another site"
        is_named = self._is_token(headers.get(HEADER, [""])[-1])
        if not (is_named or self._is_token(given) or self._has_cookie(headers)):
            return 401, "expected the token; open the address that `wtl ui` printed, with what stands behind `?`"
        if method not in ("GET", "HEAD") and not is_named and not origins:
            return 403, "expected a request of the app's own page, found one without an origin"
        sizes = headers.get("content-length", ["0"])
        if not sizes[0].isdecimal() or int(sizes[0]) > MOST_BODY_BYTES:
            return 413, f"expected a request of at most {MOST_BODY_BYTES:,} bytes"
        return None

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self._token.encode())

    def _has_cookie(self, headers: dict[str, list[str]]) -> bool:
        for line in headers.get("cookie", []):
            try:
                found = SimpleCookie(line).get(self._cookie)
            except CookieError:
                continue
            if found is not None and self._is_token(found.value):
                return True
        return False


def _with_headers(headers: list[tuple[bytes, bytes]], more: dict[str, str]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    added = {"cache-control": "no-store", **_HEADERS, **more}
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in added.items()]
    return [*headers, *(pair for pair in pairs if pair[0] not in present)]


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = f"{reason}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": _with_headers(headers, {})})
    await send({"type": "http.response.body", "body": body})
