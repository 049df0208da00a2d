"""Which encoder comes next, and when: the policy, and a pointer that a refresh follows. Imports no torch.

`wtl train-encoder` leaves the pointer, or a refresh whose recipe says so. The old ranking stays the workspace's present
until every sample has a vector of the new encoder and a commit says so.
"""

import json

from wtl_core.recipe.encoder import EncoderParams
from wtl_core.workspace.commits import Age
from wtl_core.workspace.storage import Store

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


def reasons(age: Age | None, params: EncoderParams) -> list[str]:
    """Why the encoder needs a successor by the recipe's policy, one clause each; none while it fits its pool."""
    if age is None or params.retrain == "never":
        return []
    found = []
    growth = age.images_now / age.images_then
    if growth >= params.retrain_growth:
        found.append(f"the pool is {growth:.1f} x the {age.images_then:,} images that its encoder was trained on")
    if age.own_share is not None and age.own_share > params.retrain_drift:
        found.append(
            f"arrivals since its encoder's training keep to themselves ({age.own_share:.0%}, alike would be 50%)"
        )
    return found


def advice(age: Age | None, params: EncoderParams) -> str | None:
    """What a person should know of the encoder's age; None while it fits its pool."""
    found = reasons(age, params)
    if not found:
        return None
    is_automatic = params.retrain == "automatic"
    remedy = "the next refresh trains the next one" if is_automatic else "`wtl train-encoder` makes the next one"
    return f"{', and '.join(found)}: {remedy}"
