"""Finds a recipe's encoder, and loads the same network from its record on every device."""

from functools import lru_cache

from wtl_core.encoders import cards, compiled, resolve, weights_files
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.encoders.fingerprints import compiled_fingerprint, makes
from wtl_core.machine import Machine
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.recipe.encoder_names import parse_name
from wtl_core.workspace.commits import Commit
from wtl_core.workspace.storage import Store


def describe(resolvable: str, store: Store, params: EncoderParams, machine: Machine) -> EncoderRef:
    """The record of the encoder that `resolvable` names: a trained encoder's fingerprint, or the name in `params`.

    An encoder that the workspace keeps is described by its card: to load its network takes more than a second, which a
    refresh without new images can do without. `on_devices` finds out whether its weights are there and as they were.

    Raises what `resolve.resolve` does, and ConfigError where the recipe has it compiled and the machine cannot do that.
    """
    file = weights_files.weights_file(params.name)  # before loading: a file that is replaced later counts as changed
    card = cards.load_card(store, resolvable) if parse_name(resolvable).kind == "fingerprint" else None
    if card is not None and cards.DIMENSIONS in card:
        fingerprint, dimensions, near_copy_distance = resolvable, card[cards.DIMENSIONS], card.get("near_copy_distance")
    else:
        encoder = resolve.resolve(resolvable, store, device=machine.device, side_px=params.side_px)
        fingerprint, dimensions = encoder.fingerprint, encoder.dimensions
        near_copy_distance = encoder.near_copy_distance
    if params.compile:
        compiled.check_can_compile(machine.device)
        fingerprint = compiled_fingerprint(fingerprint)
    return EncoderRef(
        fingerprint,
        params.name,
        resolvable,
        dimensions,
        file,
        is_compiled=params.compile,
        near_copy_distance=near_copy_distance,
        side_px=params.side_px,
    )


def kept(store: Store, fingerprint: str) -> str | None:
    """The workspace's encoder that makes vectors of this fingerprint, compiled or not; None if it keeps none."""
    names = [name for name in store.names(cards.FOLDER) if len(name) == len(fingerprint)]
    return next((name for name in names if makes(name, fingerprint) and cards.load_card(store, name) is not None), None)


def last_used(store: Store, last: Commit, *, device: str) -> Encoder | None:
    """The encoder of a refresh, not compiled; None if its name means another network now.

    Raises what `resolve.resolve` does.
    """
    if weights_files.has_changed(last.encoder_file, last.encoder_name):
        return None
    name = kept(store, last.encoder) or last.encoder_name
    encoder = resolve.resolve(name, store, device=device, side_px=last.recipe.encoder.side_px)
    return encoder if makes(encoder.fingerprint, last.encoder) else None


@lru_cache(maxsize=1)
def on_devices(ref: EncoderRef, store: Store, machine: Machine) -> list[Encoder]:
    """The network on each of the machine's devices. It stays loaded until `release`, since chunks come one by one.

    Raises what `resolve.resolve` and `resolve.other_weights` do.
    """
    names = [machine.device]
    if machine.devices > 1:
        names = [f"{machine.device}:{number}" for number in range(machine.devices)]
    return [_load(ref, store, name) for name in names]


def release() -> None:
    """Give the memory of the loaded network back, on its devices too."""
    on_devices.cache_clear()


def _load(ref: EncoderRef, store: Store, device: str) -> Encoder:
    encoder = resolve.resolve(ref.resolvable, store, device=device, side_px=ref.side_px)
    if ref.is_compiled:
        encoder = compiled.compiled(encoder)
    if encoder.fingerprint != ref.fingerprint:
        raise resolve.other_weights(ref.resolvable)
    return encoder
