"""Finds a recipe's encoder, and loads the same network from its record on every device."""

from functools import lru_cache

from wtl_core.encoders import compiled, resolve, weights_files
from wtl_core.encoders.encoder import Encoder
from wtl_core.encoders.encoder_ref import EncoderRef
from wtl_core.errors import ConfigError, TransientError
from wtl_core.machine import Machine
from wtl_core.recipe import encoder_names
from wtl_core.recipe.encoder import EncoderParams
from wtl_core.workspace.storage import Store


def describe(resolvable: str, store: Store, params: EncoderParams, machine: Machine) -> EncoderRef:
    """The record of the encoder that `resolvable` names: a trained encoder's fingerprint, or the name in `params`.

    Raises what `resolve.resolve` does, and ConfigError where the recipe has it compiled and the machine cannot do that.
    """
    file = weights_files.weights_file(params.name)  # before loading: a file that is replaced later counts as changed
    encoder = resolve.resolve(resolvable, store, device=machine.device, side_px=params.side_px)
    fingerprint = encoder.fingerprint
    if params.compile:
        compiled.check_can_compile(machine.device)
        fingerprint = compiled.compiled_fingerprint(fingerprint)
    return EncoderRef(
        fingerprint,
        params.name,
        resolvable,
        encoder.dimensions,
        file,
        is_compiled=params.compile,
        near_copy_distance=encoder.near_copy_distance,
        side_px=params.side_px,
    )


@lru_cache(maxsize=1)
def on_devices(ref: EncoderRef, store: Store, machine: Machine) -> list[Encoder]:
    """The network on each of the machine's devices. It stays loaded until `release`, since chunks come one by one.

    Raises:
        ConfigError: a factory gives other weights each time that it is called.
        TransientError: the weights file was replaced since the run began.
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
    if encoder.fingerprint == ref.fingerprint:
        return encoder
    if encoder_names.parse_name(ref.resolvable).kind == "python":
        raise ConfigError(
            f"{ref.resolvable}: expected the same weights each time that the factory is called, found others; "
            "seed it, or let it load a file"
        )
    raise TransientError(f"{ref.resolvable}: the weights were replaced while they were in use; run again")
