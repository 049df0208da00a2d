"""Where the app listens, and the token that its address carries. Imports nothing heavy: it is printed at once."""

import secrets
import socket

from wtl_core.errors import ConfigError

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1; port 0 takes a free one.

    Raises:
        ConfigError: the port is taken, or may not be used.
    """
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
    except OSError as error:
        taken.close()
        raise ConfigError(
            f"port {port}: expected a free one, found it in use ({error}); name another by --port"
        ) from error
    taken.listen(128)
    return taken


def new_token() -> str:
    """A word that cannot be guessed, new with every start."""
    return secrets.token_urlsafe(24)
