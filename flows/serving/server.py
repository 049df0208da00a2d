"""The one way to start a Prefect server: for `wtl up`, and for a single run where PREFECT_API_URL names no other.

A server that listens beyond this machine asks for a password: whoever reaches an open one can make a deployment, and so
run commands on its worker.
"""

import ipaddress
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flows.serving.processes import Child
from flows.serving.site_values import read_settings
from wtl_core.errors import TransientError

START_SECONDS = 120.0
SERVER_PASSWORD, CLIENT_PASSWORD = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"
"""Prefect's settings, each `user:password`: what a server asks for, and what worker, deploy and others send."""

_OWN = {
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_UI_ENABLED": "0",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
}
"""As Prefect starts its temporary servers: those of its services that a single run has no use for stay off."""


@dataclass(frozen=True)
class Place:
    """Where a server listens and where its state lies."""

    folder: Path
    """Of logs; of the database, too, unless `is_own`."""
    host: str = "127.0.0.1"
    port: int = 4200
    database_url: str | None = None
    is_own: bool = False
    """A server of this process alone: without pages and schedules, on the user's usual database, gone with us."""

    @property
    def address(self) -> str:
        """The UI's address."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104, compared, not bound
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def password_file(self) -> Path | None:
        """Where the password is kept that we made; None if it needs none, or the environment names one."""
        is_ours = not os.environ.get(SERVER_PASSWORD) and not is_loopback(self.host)
        return self.folder / "server-password" if is_ours else None

    def client_environment(self) -> dict[str, str]:
        """What a client needs to reach the server."""
        password = os.environ.get(SERVER_PASSWORD)
        if self.password_file is not None:
            password = kept_password(self.password_file)
        return {"PREFECT_API_URL": f"{self.address}/api"} | ({CLIENT_PASSWORD: password} if password else {})

    def environment(self) -> dict[str, str]:
        """What server, worker and runs need; the shell's own settings win over the shipped files."""
        client = self.client_environment()
        fixed = {"PREFECT_SERVER_API_HOST": self.host, "PREFECT_SERVER_API_PORT": str(self.port), **client}
        if CLIENT_PASSWORD in client:
            fixed[SERVER_PASSWORD] = client[CLIENT_PASSWORD]
        if self.is_own:
            return {**os.environ, **fixed, **_OWN}
        fixed |= {"PREFECT_HOME": str(self.folder), "PREFECT_UI_URL": self.address}
        if self.database_url is not None:
            fixed["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = self.database_url
        return {**read_settings("server"), **read_settings("worker"), **os.environ, **fixed}


def start(place: Place) -> Child:
    """Start the server at `place`, its output going to a log there; it answers some seconds later."""
    own = ["flows.serving.own_server", str(os.getpid()), str(place.port)]
    module = own if place.is_own else ["prefect", "server", "start"]
    command = [sys.executable, "-m", *module]
    server = Child("server", command, place.environment(), log_file(place.folder, "server"))
    server.start()
    return server


def wait(server: Child, place: Place) -> None:
    """Wait until it answers.

    Raises:
        TransientError: it has ended, or did not answer in time; the last lines of its log are in the message.
    """
    deadline = time.monotonic() + START_SECONDS
    while server.is_running() and time.monotonic() < deadline:
        if answers(place):
            return
        time.sleep(0.05)
    lines = [line.strip() for line in server.log.read_text(errors="replace").splitlines() if line.strip()][-3:]
    where = "its log" if place.is_own else f"its log, {server.log},"  # an own server's log goes with it
    raise TransientError(
        f"the Prefect server does not answer at {place.address}; {where} ends with: {' / '.join(lines) or 'nothing'}"
    )


def answers(place: Place) -> bool:
    """Whether a server answers there and is well."""
    with (
        suppress(urllib.error.URLError, TimeoutError, ConnectionError),
        urllib.request.urlopen(f"{place.address}/api/health", timeout=5) as answer,  # noqa: S310, our own server
    ):
        return bool(answer.status == 200)
    return False


def log_file(folder: Path, name: str) -> Path:
    """Where a child of a state folder writes."""
    return folder / "logs" / f"{name}.log"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens at `host`; False for a name that is not known here."""
    try:
        found = {str(entry[4][0]).partition("%")[0] for entry in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(host) and all(ipaddress.ip_address(address).is_loopback for address in found)


def kept_password(file: Path) -> str:
    """The `user:password` in `file`, which only its owner may read; a random one is made if there is none."""
    with suppress(FileNotFoundError):
        file.chmod(0o600)
        if kept := file.read_text().strip():
            return kept
        file.unlink()
    file.parent.mkdir(parents=True, exist_ok=True)
    made = f"wtl:{secrets.token_hex(24)}"
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(f"{made}\n")
    return made
