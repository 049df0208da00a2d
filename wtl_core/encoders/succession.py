"""Which encoder comes next: a pointer that `wtl train-encoder` leaves and a refresh follows. Imports no torch.

The old ranking stays the workspace's present until every sample has a vector of the new encoder and a commit says so.
"""

import json

from wtl_core.storage import Store

_KEY = "encoders/next.json"


def name_successor(store: Store, fingerprint: str) -> None:
    """Let the next refresh take this encoder. For the holder of the lease."""
    store.write_bytes(_KEY, json.dumps({"fingerprint": fingerprint}).encode() + b"\n")


def successor(store: Store) -> str | None:
    """The fingerprint that a refresh with a trained encoder should use; None where none was trained on purpose."""
    if not store.exists(_KEY):
        return None
    fingerprint: str = json.loads(store.read_bytes(_KEY))["fingerprint"]
    return fingerprint
