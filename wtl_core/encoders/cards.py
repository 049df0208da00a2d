"""Encoders on disk: `encoders/<fingerprint>/weights.safetensors` beside `card.json`. Nothing that is read is executed.

The card is written last: a folder without one holds no encoder. `origin.json` describes the pool it was trained on.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from wtl_core.encoders.encoder import Encoder, NumberFormat, build, fingerprint
from wtl_core.encoders.networks import NetworkShape, build_network
from wtl_core.encoders.preprocessing import Preprocessing, from_json
from wtl_core.encoders.whitening import Whitening, split
from wtl_core.errors import ConfigError, CorruptArtifactError
from wtl_core.workspace.encoder_check import EncoderCheck
from wtl_core.workspace.storage import Store

FOLDER = "encoders"
WEIGHTS, CARD, ORIGIN, CHECK = "weights.safetensors", "card.json", "origin.json", "check.json"
DIMENSIONS = "dimensions"
"""The field of a card that says how long a vector is; cards of earlier versions have none."""
ORIGIN_IDS = 5000
"""Sample ids of the pool that are kept: enough to find 2,500 known and as many new ones (`encoder_age`)."""


@dataclass(frozen=True)
class Origin:
    """The pool that an encoder was trained on.

    Attributes:
        images: How many images it had.
        sample_ids: Its first ids in order, which are a random sample since ids are hashes.
    """

    images: int
    sample_ids: list[str]

    def covers(self, sample_id: str) -> bool:
        """Whether `sample_ids` show if this sample was in the pool: it is not behind the last id that was kept."""
        return self.images == len(self.sample_ids) or sample_id <= self.sample_ids[-1]


def save_encoder(
    store: Store,
    weights: dict[str, torch.Tensor],
    *,
    shape: NetworkShape,
    preprocessing: Preprocessing,
    number_format: NumberFormat,
    card: dict[str, Any],
    near_copy_distance: float | None = None,
) -> str:
    """Store a trained network with its whitening among the weights; its fingerprint. Repeating it changes nothing.

    `near_copy_distance`, see `near_copies`, is stored in the head of the weights file; it changes no vector.
    """
    weights = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    digest = fingerprint(weights, shape.to_json(), preprocessing, number_format)
    folder = f"{FOLDER}/{digest}"
    if store.exists(f"{folder}/{CARD}"):
        return digest
    head = {
        "fingerprint": digest,
        "network": shape.to_json(),
        "preprocessing": preprocessing.to_json(),
        "number_format": number_format,
        "near_copy_distance": near_copy_distance,
    }
    store.write_bytes(f"{folder}/{WEIGHTS}", save_tensors(weights, {"wtl": json.dumps(head)}))
    _, whitening = split(weights)
    dimensions = shape.dimensions if whitening is None else whitening.dimensions
    _write_card(store, digest, {**head, DIMENSIONS: dimensions, **card})
    return digest


def save_fitted(store: Store, encoder: Encoder, *, name: str, side_px: int | None, card: dict[str, Any]) -> str:
    """Store what fits a named network to a pool: its whitening, and the name by which the network is found again.

    The network's own weights stay where they are; `resolve.resolve` refuses another network under that name.

    Args:
        store: The workspace.
        encoder: The fitted encoder, `Encoder.fitted`.
        name: What `resolve` finds the network by.
        side_px: The image side that it is loaded with, None for its own.
        card: What is known of it.
    """
    assert encoder.whitening is not None
    folder = f"{FOLDER}/{encoder.fingerprint}"
    if not store.exists(f"{folder}/{CARD}"):
        head = {"fingerprint": encoder.fingerprint, "base": {"name": name, "side_px": side_px}}
        tensors = {key: value.cpu().contiguous() for key, value in encoder.whitening.tensors().items()}
        store.write_bytes(f"{folder}/{WEIGHTS}", save_tensors(tensors, {"wtl": json.dumps(head)}))
        _write_card(store, encoder.fingerprint, {**head, DIMENSIONS: encoder.dimensions, **card})
    return encoder.fingerprint


def _write_card(store: Store, digest: str, card: dict[str, Any]) -> None:
    store.write_bytes(f"{FOLDER}/{digest}/{CARD}", json.dumps(card, indent=2, sort_keys=True).encode())


def save_origin(store: Store, digest: str, sample_ids: Sequence[str]) -> None:
    """Store which pool an encoder was trained on."""
    origin = Origin(len(sample_ids), sorted(sample_ids)[:ORIGIN_IDS])
    store.write_bytes(f"{FOLDER}/{digest}/{ORIGIN}", json.dumps(asdict(origin)).encode())


def load_origin(store: Store, digest: str) -> Origin | None:
    """The pool that an encoder of this workspace was trained on; None for one from elsewhere.

    Raises CorruptArtifactError.
    """
    try:
        found = json.loads(store.read_bytes(f"{FOLDER}/{digest}/{ORIGIN}"))
        return Origin(found["images"], found["sample_ids"])
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError) as error:
        raise _corrupt(store, digest, ORIGIN, error) from error


def save_check(store: Store, digest: str, check: EncoderCheck) -> None:
    """Store how much an encoder's features say about the pool that it was made for."""
    store.write_bytes(f"{FOLDER}/{digest}/{CHECK}", check.model_dump_json().encode())


def load_check(store: Store, digest: str) -> EncoderCheck | None:
    """What `save_check` wrote; None if the encoder was not checked. Raises CorruptArtifactError."""
    try:
        return EncoderCheck.model_validate_json(store.read_bytes(f"{FOLDER}/{digest}/{CHECK}"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _corrupt(store, digest, CHECK, error) from error


def load_card(store: Store, digest: str) -> dict[str, Any] | None:
    """What is known of an encoder of this workspace; None if there is none of that fingerprint."""
    try:
        card: dict[str, Any] = json.loads(store.read_bytes(f"{FOLDER}/{digest}/{CARD}"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _corrupt(store, digest, CARD, error) from error
    return card


def _corrupt(store: Store, digest: str, file: str, error: Exception) -> CorruptArtifactError:
    reason = str(error).partition("\n")[0]
    told = f"expected a JSON object, found something else ({reason})"
    return CorruptArtifactError(f"{store.path(FOLDER)}/{digest}/{file}: {told}; delete the folder and train again")


def load_whitening(store: Store, digest: str) -> Whitening:
    """The whitening of an encoder of this workspace that `save_fitted` wrote. Raises CorruptArtifactError."""
    where = f"{store.path(FOLDER)}/{digest}"
    try:
        _, whitening = split(load_tensors(store.read_bytes(f"{FOLDER}/{digest}/{WEIGHTS}")))
    except (FileNotFoundError, SafetensorError, KeyError) as error:
        raise CorruptArtifactError(
            f"{where}: expected a whitening in {WEIGHTS}, found: {error}; delete the folder and run again"
        ) from error
    if whitening is None:
        raise CorruptArtifactError(f"{where}: expected a whitening in {WEIGHTS}, found none; delete the folder")
    return whitening


def load_encoder(store: Store, digest: str, *, device: torch.device) -> Encoder:
    """An encoder of this workspace.

    Raises:
        ConfigError: there is none of that fingerprint.
        CorruptArtifactError: its weights are not the ones it was stored with.
    """
    card = load_card(store, digest)
    if card is None:
        raise _none_of(store, digest)
    where = f"{store.path(FOLDER)}/{digest}"
    try:
        data = store.read_bytes(f"{FOLDER}/{digest}/{WEIGHTS}")
    except FileNotFoundError as error:
        raise CorruptArtifactError(
            f"{where}: expected {WEIGHTS} beside {CARD}, found none; copy it there, or delete the folder and train"
        ) from error
    encoder = from_weights(data, where=where, device=device, card=card)
    if encoder.fingerprint != digest:
        raise CorruptArtifactError(
            f"{where}: expected weights of this fingerprint, found {encoder.fingerprint[:16]}...; delete the folder "
            "and train again"
        )
    return encoder


def _none_of(store: Store, digest: str) -> ConfigError:
    held = [name for name in store.names(FOLDER) if len(name) == len(digest)]
    return ConfigError(
        f"{store.path(FOLDER)}: expected an encoder {digest[:16]}..., found {len(held)} others "
        f"({', '.join(name[:16] for name in held[:5]) or 'none'}); name one of them, or train one"
    )


def from_weights(data: bytes, *, where: str, device: torch.device, card: dict[str, Any] | None = None) -> Encoder:
    """An encoder from the bytes of its weights file alone: the file's head describes the network.

    Raises:
        CorruptArtifactError: not a safetensors file, or one that does not fit its own head.
        ConfigError: a safetensors file that `wtl` did not write, or of a newer version.
    """
    held, head = read_weights(data, where=where)
    weights, whitening = split(held)
    try:
        shape, preprocessing = NetworkShape(**head["network"]), from_json(head["preprocessing"])
    except TypeError as error:  # a field that this version does not know would give other vectors if it were passed by
        raise ConfigError(f"{where}: an encoder written by a newer wtl ({error}): update wtl") from error
    network = build_network(shape)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CorruptArtifactError(f"{where}: the weights do not fit their own description: {error}") from error
    return build(
        network,
        name=shape.kind if ":" in shape.kind else "ssl",
        architecture=shape.to_json(),
        preprocessing=preprocessing,
        device=device,
        number_format=head["number_format"],
        card=card or head,
        whitening=whitening,
    )


def read_weights(data: bytes, *, where: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and head of a file that `save_encoder` wrote. Raises like `from_weights`."""
    try:
        weights = load_tensors(data)
    except SafetensorError as error:
        raise CorruptArtifactError(f"{where}: expected a safetensors file, found: {error}; copy it again") from error
    head = read_head(data)
    if head is None or "network" not in head:  # a checkpoint has a head too
        raise ConfigError(
            f"{where}: expected weights that wtl wrote, found a file without a network's description; "
            f"name the network too, as timm:NAME@{where} or torchvision:NAME@{where}"
        )
    return weights, head


def read_head(data: bytes) -> dict[str, Any] | None:
    """What `wtl` wrote into a safetensors file's head; None for a file that it did not write."""
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    head: dict[str, Any] | None = json.loads(metadata["wtl"]) if "wtl" in metadata else None
    return head
