"""When an encoder that was trained on the pool, or fitted to it, is replaced, and which one the next refresh takes.

The successor is named in a file, by `wtl train-encoder` or by a refresh whose recipe retrains automatically. The old
ranking stays valid until every sample has a vector of the new encoder and the refresh is committed. Imports no torch.
"""

import json

from wtl_core.errors import CorruptArtifactError
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.workspace.commits import Age, Commit
from wtl_core.workspace.encoder_check import EncoderCheck
from wtl_core.workspace.storage import Store

_KEY = "encoders/next.json"
_LEAST_GAIN = 1.1
"""Features that are trusted share so many times more neighbours than features without training. Of 18 sets only digits
fell below it by the network alone (0.7), where the training-free features are better; the others had 1.2 to 2.3."""


def name_successor(store: Store, fingerprint: str, name: str) -> None:
    """Let the next refresh use this encoder where its recipe has this name. Only for the holder of the lease."""
    store.write_bytes(_KEY, json.dumps({"fingerprint": fingerprint, "name": name}).encode() + b"\n")


def successor(store: Store, name: str | None = None) -> str | None:
    """Fingerprint of the encoder to use for a recipe's `name`, any if None; None if no successor was made for it.

    Raises CorruptArtifactError.
    """
    if not store.exists(_KEY):
        return None
    try:
        found = json.loads(store.read_bytes(_KEY))
        fingerprint: str = found["fingerprint"]
    except (ValueError, LookupError, TypeError) as error:
        raise CorruptArtifactError(
            f"{store.path(_KEY)}: expected the fingerprint of the next encoder, found something else ({error}); delete "
            "the file, and `wtl train-encoder` makes the encoder anew"
        ) from error
    return fingerprint if name in (None, found.get("name", "ssl")) else None  # once only `ssl` had successors


def reasons(age: Age | None, params: EncoderParams) -> list[str]:
    """Why the recipe wants the encoder made anew, one clause for each reason; empty if it does not."""
    if age is None or params.retrain == "never":
        return []
    found = []
    growth = age.images_now / age.images_then
    if growth >= params.retrain_growth:
        found.append(f"the pool is {growth:.1f} x the {age.images_then:,} images that its encoder was made from")
    if age.own_share is not None and age.own_share > params.retrain_drift:
        found.append(
            "images that came after its encoder was made form clusters of their own "
            f"({age.own_share:.0%} of their nearest neighbours are new too; 50% would be chance)"
        )
    return found


def advice(commit: Commit) -> str | None:
    """For a person: that the features are weak or that the encoder should be made anew; None if all is well."""
    said = (_weakness(commit.encoder_check), ageing(commit.encoder_age, commit.recipe.encoder))
    return "; ".join(sentence for sentence in said if sentence) or None


def _weakness(check: EncoderCheck | None) -> str | None:
    if check is None or check.shared_neighbours >= _LEAST_GAIN * check.by_pixels:
        return None
    return (
        f"the features say little about these images (an image and another view of it share "
        f"{check.shared_neighbours:.0%} of their nearest neighbours, {check.by_pixels:.0%} without any learning), so "
        "the ranking may be no better than random picks: train an encoder on the pool (--encoder ssl), or name a "
        "network that knows such images"
    )


def ageing(age: Age | None, params: EncoderParams) -> str | None:
    """One sentence for a person: why the encoder should be made anew and what does it; None if there is no need."""
    found = reasons(age, params)
    if not found:
        return None
    is_automatic = params.retrain == "automatic"
    remedy = "the next refresh makes a new one" if is_automatic else "make a new one with `wtl train-encoder`"
    return f"{', and '.join(found)}: {remedy}"
